"""Enhance a set with a strong enhancer of others, whose weights come inside a Python package: a row beside ours.

  dtln   DTLN (Westhausen & Meyer 2020), causal, 16 kHz
  dfn3   DeepFilterNet3 (Schröter et al. 2023), 48 kHz

Neither takes a noise reference. The files of SET/noisy (or of SET) go to OUT under their names; files that are there
already are kept. `scripts/evaluate.py` scores OUT like any folder.

example:
  python scripts/baseline_enhance.py dtln SET enhanced/dtln
  python scripts/evaluate.py --test_dir SET --enhanced_dir enhanced/dtln enhanced/ours
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from sgmse.common.bounds import InputDir, OneOf
from sgmse.common.errors import UserError, run
from sgmse.common.progress import track
from sgmse.common.typed import print_next
from sgmse.data import audio, listing
from sgmse.evaluation.baselines import BASELINES, load_baseline
from sgmse.settings.cli import positional, read_command_line


@dataclass(frozen=True)
class BaselineSettings:
    """What to enhance with which"""

    name: Annotated[str, OneOf(tuple(BASELINES))] = positional()
    """the enhancer"""
    test_set: InputDir = positional()
    """folder of noisy files, or with noisy/ inside"""
    out: Path = positional()
    """where the enhanced files go"""


def main() -> None:
    settings = read_command_line(BaselineSettings, __doc__)
    folder = settings.test_set / "noisy"
    folder = folder if folder.is_dir() else settings.test_set
    headers = listing.read_headers(listing.find(folder, "noisy files"))  # all that cannot be read are named at once
    if settings.out.resolve() == folder.resolve():
        raise UserError(f"{settings.out}: holds the noisy files; name another folder for the enhanced ones")
    enhance = load_baseline(settings.name)
    print(f"{settings.name}: {BASELINES[settings.name].origin}")
    missing = [info for info in headers if not (settings.out / info.path.relative_to(folder)).exists()]
    for path, rate in track([(i.path, i.sample_rate) for i in missing], len(missing), settings.name):
        enhanced = np.stack([enhance(channel, rate) for channel in audio.read(path, None, mono=False)])
        audio.write(settings.out / path.relative_to(folder), enhanced, rate)
    print(f"{len(missing)} of {len(headers)} files enhanced into {settings.out}")
    clean = ["--clean_dir", settings.test_set / "clean"] if (settings.test_set / "clean").is_dir() else []
    print_next("scripts/evaluate.py", *clean, "--noisy_dir", folder, "--enhanced_dir", settings.out, "--page", "page")


if __name__ == "__main__":
    run(main)
