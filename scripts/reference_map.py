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
from sgmse.common.files import write_csv, write_text
from sgmse.common.machine import Parser
from sgmse.diagnostics import worth, worth_report
from sgmse.diagnostics.items import require_writable

_PICTURES = {"class": "class.png", "SNR dB": "snr.png"}


def main() -> None:
    """Write the map and print its tables."""
    arguments = parse_arguments()
    require_writable(arguments.out)
    results = worth.read(arguments.folders)
    found = worth.gains(results, arguments.against or results[0].training)
    text = worth_report.markdown(found, worth.trainings(results))
    write_text(arguments.out / "map.md", text)
    write_csv(worth.table(found), arguments.out / "map.csv")
    worth_report.write_map(found, arguments.out / "map.png")
    groups = worth.by_group(found)
    for by, chosen in groups.items():
        worth_report.write_groups(chosen, arguments.out / _PICTURES[by])
    written = ["map.md", "map.csv", "map.png", *(_PICTURES[by] for by in groups)]
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
