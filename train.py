"""`python train.py`, which is `sgmse-train`: the command of `sgmse/commands/train.py`."""

from sgmse.commands.train import command

if __name__ == "__main__":
    command()
