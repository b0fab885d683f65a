"""Make the small corpus that ships with this repository: synthetic voices, synthetic noise, a fixed test set.

    python scripts/make_corpus.py --out my_corpus --seed 0

Needs the programs `espeak-ng` and `flite`; needs no network. One seed and one version of the two programs give the same
files. What comes out is described in sgmse/data/embedded/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgmse.common.errors import run
from sgmse.common.typed import print_next
from sgmse.data.corpora.embedded import EMBEDDED, make_corpus
from sgmse.settings.cli import read_command_line
from sgmse.settings.config import Seed


@dataclass(frozen=True)
class CorpusSettings:
    """What to make"""

    out: Path = EMBEDDED
    """folder to write to"""
    seed: Seed = 0
    """seed of every draw"""
    replace: bool = False
    """delete speech, noise and test in --out first"""


def main() -> None:
    """Make the corpus."""
    settings = read_command_line(CorpusSettings, __doc__)
    make_corpus(settings.out, settings.seed, settings.replace)
    size = sum(path.stat().st_size for path in settings.out.rglob("*") if path.is_file())
    print(f"{settings.out}: {size / 1e6:.2f} MB")
    print_next("train.py", "--speech_dir", settings.out / "speech", "--noise_dir", settings.out / "noise")


if __name__ == "__main__":
    run(main)
