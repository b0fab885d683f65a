"""Write the page of a run of experiments: criteria, tables, figures, and a page to listen to.

RUN_DIR is what scripts/run_experiments.py wrote, complete or not; what is missing is said. The page is one folder
without links to anywhere else: open its index.html, or put it online.

  index.html       criteria and differences first, in forest plots and tables; scores per set, class and SNR; costs
  listening.html   utterances clean, noisy, with their reference, from the baseline and from each experiment; blind A/B
  tables.md, tables.tex, forest-SET.png, curves.png, sweep.png

examples:
  python scripts/report.py experiments/mini
  python scripts/report.py experiments/paper --out page --max_items 24
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgmse.common.bounds import InputDir
from sgmse.common.errors import run
from sgmse.settings.cli import positional, read_command_line
from sgmse.settings.config import Count


@dataclass(frozen=True)
class Page:
    """The page"""

    run_dir: InputDir = positional()
    """folder that scripts/run_experiments.py wrote"""
    out: Path | None = None
    """folder of the page. Default: RUN_DIR/page"""
    max_items: Count | None = None
    """utterances to listen to, per test set. Default: 12, or as many as the page can hold with 50 MB"""


def main() -> None:
    """Write the page and say where it lies."""
    settings = read_command_line(Page, __doc__)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.experiments.page.write import write

    page = write(settings.run_dir, settings.out or settings.run_dir / "page", settings.max_items)
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"{page}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
