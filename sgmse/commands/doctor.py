"""Look at data, settings and a checkpoint before they cost a week: what is wrong, and what to do about it, on one page.

Problems come first, those that would falsify a result marked with !!. Exit code 1 if there is one of these, 0 if not,
2 for a mistake on the command line.

examples:
  python scripts/doctor.py --data VoiceBank-DEMAND --config configs/sgmse_plus.yaml
      rates, pairing, alignment, silence, clipping, offsets, duplicates across splits, SNRs
  python scripts/doctor.py --config logs/RUN/config.yaml --ckpt logs/RUN/checkpoints/best_pesq.ckpt --test_dir SET
      the run's own data, its checkpoint, and a test set: whether its references leak, and whether it was trained on
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser
from sgmse.doctor.examine import Request, examine


def main() -> None:
    """Print the page; leave with exit code 1 if something would falsify a result."""
    report = examine(parse_arguments())
    print(report.text())
    if report.is_falsified:
        sys.exit(1)


def parse_arguments() -> Request:
    """The command line as a request."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="pairs in {train,valid,test}/{clean,noisy}")
    parser.add_argument("--config", type=Path, nargs="+", default=[], metavar="FILE", help="settings, as for train.py")
    parser.add_argument("--ckpt", type=Path, metavar="FILE", help="checkpoint")
    parser.add_argument("--speech_dir", type=Path, nargs="+", default=[], metavar="DIR", help="speech to train on")
    parser.add_argument("--noise_dir", type=Path, nargs="+", default=[], metavar="DIR", help="noise to train on")
    parser.add_argument("--test_dir", type=Path, nargs="+", default=[], metavar="SET", help="test sets")
    parser.add_argument("--max_files", type=int, default=500, metavar="N", help="decoded per check (default: 500)")
    given = parser.parse_args()
    if given.max_files < 1:
        raise UserError(f"--max_files {given.max_files}: 1 or more is needed")
    if not any((given.data, given.config, given.ckpt, given.speech_dir, given.noise_dir, given.test_dir)):
        raise UserError("nothing to look at; name --data, --config, --ckpt, --speech_dir, --noise_dir or --test_dir")
    return Request(
        given.data, given.config, given.ckpt, given.speech_dir, given.noise_dir, given.test_dir, given.max_files
    )


command = partial(run, main)
