"""`python scripts/run_experiments.py`, which is `sgmse-experiments`: the command of `sgmse/commands/experiments.py`."""

from sgmse.commands.experiments import command

if __name__ == "__main__":
    command()
