"""Where does a reference pay, and where is other training data the better buy? Verdicts side by side.

Each FOLDER is what scripts/reference_use.py wrote with --out TRAINING/SET and --baseline: the names of the last two
folders tell trainings and sets apart, their order is that of the tables. Whether a baseline was trained alike stands in
the table.md of its folder. DIR gets

  map.md       the trainings; differences by set; what the reference adds by noise class and by SNR; 95 % intervals
  map.csv      all of them, a row per difference and metric
  map.png      per set: what the reference adds to each training, what a wrong one costs, and what each training's
               baseline scores more than the first one's
  class.png, snr.png   what the reference adds in PESQ, by noise class and by SNR; bold: the interval excludes 0

examples:
  python scripts/reference_map.py use/narrow/* use/diverse/* use/all/* --out map
  python scripts/reference_map.py use/*/nonstationary --against cnn --out encoders
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgmse.common.bounds import InputDir
from sgmse.common.errors import run
from sgmse.common.files import require_own_folder
from sgmse.settings.cli import positional, read_command_line


@dataclass(frozen=True)
class MapSettings:
    """What lies side by side"""

    folders: list[InputDir] = positional()
    """TRAINING/SET that scripts/reference_use.py wrote"""
    against: str | None = None
    """training that the baselines and models of the others are held against. Default: the first"""
    out: Path = Path("results", "reference_map")
    """folder of the map"""


def main() -> None:
    """Write the map and print its tables."""
    settings = read_command_line(MapSettings, __doc__)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.diagnostics import worth

    require_own_folder(settings.out, ["map.csv"])
    scores = worth.read_scores(settings.folders)
    text, written = worth.write_map(scores, worth.compare_trainings(scores, settings.against), settings.out)
    print(f"{text}\n{settings.out}: {', '.join(written)}")


if __name__ == "__main__":
    run(main)
