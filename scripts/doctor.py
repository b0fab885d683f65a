"""`python scripts/doctor.py`, which is `sgmse-doctor`: the command of `sgmse/commands/doctor.py`."""

from sgmse.commands.doctor import command

if __name__ == "__main__":
    command()
