"""The command line of the scripts."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from sgmse.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument that does not fit is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see --help)")


def cores() -> int:
    """Cores this process may use, which a cluster's scheduler often limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
