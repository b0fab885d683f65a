"""Commands as a reader would type them: in the help, and at the end of each command the one to type next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sgmse.common.machine import is_first_process

_ENTRIES = {
    "train.py": "sgmse-train",
    "enhancement_noise_cond.py": "sgmse-enhance",
    "scripts/evaluate.py": "sgmse-evaluate",
    "scripts/doctor.py": "sgmse-doctor",
    "scripts/run_experiments.py": "sgmse-experiments",
}


def as_typed(text: str) -> str:
    """`text` with `python train.py` as `sgmse-train`, and so on, where this process was called in that way."""
    if not Path(sys.argv[0]).name.startswith("sgmse-"):
        return text
    for file, entry in _ENTRIES.items():
        text = text.replace(f"python {file}", entry)
    return text


def print_next(file: str, *words: object) -> None:
    """Print what to type next: the command of `file`, e.g. `scripts/doctor.py`, with these words, quoted for a shell.

    Of several processes of a training the first one prints.
    """
    if is_first_process():
        print(as_typed(f"next: python {file} {shlex.join(map(str, words))}".rstrip()), flush=True)
