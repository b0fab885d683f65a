"""The command line of the scripts."""

from __future__ import annotations

import argparse
from typing import NoReturn

from sgmse.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument that does not fit is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see --help)")
