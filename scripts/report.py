"""Write the page of a run of experiments: criteria, tables, figures, and a page to listen to.

RUN_DIR is what scripts/run_experiments.py wrote, complete or not; what is missing is said. The page is one folder
without links to anywhere else: open its index.html, or put it online.

  index.html       the criteria first; what was run; scores per set, noise class and SNR; forest plot, curves, costs
  listening.html   utterances clean, noisy, with their reference, from the baseline and from each experiment; blind A/B
  tables.md, tables.tex, forest.png, curves.png, sweep.png

examples:
  python scripts/report.py experiments/mini
  python scripts/report.py experiments/paper --out page --max_items 24
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser
from sgmse.experiments.page.write import write


def main() -> None:
    """Write the page and say where it lies."""
    arguments = parse_arguments()
    page = write(arguments.run_dir, arguments.out or arguments.run_dir / "page", arguments.max_items)
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"{page}: {size / 1e6:.1f} MB")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder that scripts/run_experiments.py wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the page (default: RUN_DIR/page)")
    text = "utterances to listen to, per test set (default: %(default)s)"
    parser.add_argument("--max_items", type=int, default=12, metavar="N", help=text)
    arguments = parser.parse_args()
    if arguments.max_items < 1:
        raise UserError(f"--max_items {arguments.max_items}: 1 or more is needed")
    return arguments


if __name__ == "__main__":
    run(main)
