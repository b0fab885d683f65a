"""`python enhancement_noise_cond.py`, which is `sgmse-enhance`: the command of `sgmse/commands/enhance.py`."""

from sgmse.commands.enhance import command

if __name__ == "__main__":
    command()
