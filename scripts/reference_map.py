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

import argparse
from pathlib import Path

from sgmse.common.errors import run
from sgmse.common.machine import Parser
from sgmse.diagnostics import worth
from sgmse.diagnostics.items import require_writable


def main() -> None:
    """Write the map and print its tables."""
    arguments = parse_arguments()
    require_writable(arguments.out)
    scores = worth.read_scores(arguments.folders)
    text, written = worth.write_map(scores, worth.compare_trainings(scores, arguments.against), arguments.out)
    print(f"{text}\n{arguments.out}: {', '.join(written)}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "TRAINING/SET that scripts/reference_use.py wrote"
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help=text)
    text = "training that the baselines and models of the others are held against (default: the first)"
    parser.add_argument("--against", metavar="TRAINING", help=text)
    text = "folder of the map (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("results", "reference_map"), metavar="DIR", help=text)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
