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

import sys
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.typed import print_next
from sgmse.doctor.examine import Request, examine
from sgmse.settings.cli import read_command_line


def main() -> None:
    """Print the report; leave with exit code 1 if something would falsify a result."""
    request = read_command_line(Request, __doc__)
    if request == Request(max_files=request.max_files):
        raise UserError("nothing to look at; name --data, --config, --ckpt, --speech_dir, --noise_dir or --test_dir")
    report = examine(request)
    print(report)
    if report.is_falsified:
        sys.exit(1)
    if request.ckpt is not None and request.test_dir:
        print_next("enhancement_noise_cond.py", request.test_dir[0], "--ckpt", request.ckpt)
    elif request.ckpt is None and not request.test_dir:
        print_next("train.py", *training_flags(request))


def training_flags(request: Request) -> list[Path | str]:
    """The flags with which what was looked at is trained on."""
    named = {"--config": request.config, "--speech_dir": request.speech_dir, "--noise_dir": request.noise_dir}
    if request.data is not None and (request.data / "train").is_dir():
        named["--base_dir"] = [request.data]
    elif request.data is not None and (request.data / "speech").is_dir():
        named = named | {"--speech_dir": [request.data / "speech"], "--noise_dir": [request.data / "noise"]}
    return [word for flag, paths in named.items() for path in paths for word in (flag, path)]


command = partial(run, main)
