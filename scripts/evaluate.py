"""`python scripts/evaluate.py`, which is `sgmse-evaluate`: the command of `sgmse/commands/evaluate.py`."""

from sgmse.commands.evaluate import command

if __name__ == "__main__":
    command()
