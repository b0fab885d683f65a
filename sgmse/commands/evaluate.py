"""Score enhanced speech: PESQ (wide band), ESTOI, SI-SDR, SI-SIR and SI-SAR, the unprocessed files always first.

Files are matched by name, at equal rate and length; metrics are computed at 16 kHz. Printed are the mean over files
with its 95 % interval (over the noise recordings that the set's manifest.csv names, else over files) and the paired
differences, which are the ones to trust when systems are compared. Where noise references are known (from the
enhancement's run.json, or --ref_dir), the leak score tells whether they share samples with the noise that they helped
to remove. --csv keeps every file's scores, together with the settings that the enhancement left in run.json, and --page
writes a folder with the differences, the scores and recordings to look at and listen to, blindly if you like.

Without --clean_dir nothing is scored: --page then shows before and after, and what was removed (noisy − enhanced).

examples:
  python scripts/evaluate.py
      the newest folder below enhanced/, on the small test set that comes with the code
  python scripts/evaluate.py --clean_dir set/clean --noisy_dir set/noisy
      the unprocessed files alone: the line that every system has to beat
  python scripts/evaluate.py --clean_dir set/clean --noisy_dir set/noisy --enhanced_dir out/pooled out/attention \\
      --csv scores.csv --page page
  python scripts/evaluate.py --noisy_dir recordings --enhanced_dir out/recordings --page page
      before and after, without clean files
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sgmse.common.bounds import Count, File, InputDir, Positive, Text
from sgmse.common.errors import UserError, run
from sgmse.common.files import temporary_file, write_csv
from sgmse.common.typed import print_next
from sgmse.data import corpora, listing
from sgmse.settings.cli import read_command_line

if TYPE_CHECKING:
    import pandas as pd

TEST_SET = corpora.embedded_dir() / "test"
ENHANCED = Path("enhanced")
_OTHERS = {"clean", "noisy", "reference"}  # what else stands beside the systems on a page


@dataclass(frozen=True)
class Evaluation:
    """What to score"""

    clean_dir: InputDir | None = None
    """clean speech. Default: with no folder named, that of the embedded test set; else none"""
    noisy_dir: InputDir | None = None
    """unprocessed files, for the first row, SI-SIR and SI-SAR"""
    enhanced_dir: list[InputDir] = field(default_factory=list)
    """enhanced files, one folder per system"""
    ref_dir: InputDir | None = None
    """noise references, for the leak score and the page"""
    csv: File | None = None
    """file for the scores of every file"""
    metrics: list[str] = field(default_factory=list)
    """more metrics: dnsmos, distillmos (these two need no clean files), right_talker, speaker_similarity"""
    page: Path | None = None
    """folder for a page with differences, scores, spectrograms and players"""
    max_items: Count = 12
    """files to listen to on the page"""
    excerpt_s: Positive = 5.0
    """of each of them so much, where it has the most energy"""
    title: Text = "Speech enhancement"
    """title of the page"""
    jobs: Count | None = None
    """processes. Default: one per core"""


def main() -> None:
    arguments = read_settings()
    # these take a second to load, which --help and a mistake need not wait for
    from sgmse.evaluation import leakage, metrics
    from sgmse.evaluation.scores import with_settings

    asked = metrics.select_metrics(arguments.metrics)
    systems = named_systems(arguments.enhanced_dir)
    if arguments.clean_dir is None:
        scored = show_scores(arguments, systems, asked) if asked else None
        frame = show_removed(arguments, systems)
        if scored is not None:
            frame = scored.merge(frame.drop(columns="seconds"), how="left")
    elif arguments.noisy_dir is None:
        frame = show_scores(arguments, systems, asked)
    else:
        references = leakage.find_references(systems, arguments.clean_dir, arguments.noisy_dir, arguments.ref_dir)
        frame = show_scores(arguments, systems, asked)
        frame = leakage.with_leaks(frame, references, arguments.jobs)
        for number, line in enumerate(leakage.describe_leaks(frame, systems)):
            print(line if number else f"\n{line}")
    frame = with_settings(frame, systems)
    if arguments.csv is not None:
        write_csv(frame, arguments.csv)
        print(f"Scores of every file: {arguments.csv}")
    if arguments.page is not None:
        write_page(arguments, frame, systems)
    else:
        print_next("scripts/evaluate.py", *sys.argv[1:], "--page", "page")


def show_scores(arguments: Evaluation, systems: dict[str, Path], asked: Sequence[str]) -> pd.DataFrame:
    """Score everything; print means and differences."""
    from sgmse.evaluation import scores
    from sgmse.evaluation.tables import print_table, scores_table

    frame = scores.evaluate(arguments.clean_dir, systems, arguments.noisy_dir, arguments.jobs, asked)
    print_table(scores_table(scores.summary(frame), "means", "Mean over files"))
    print_differences(frame)
    return frame


def show_removed(arguments: Evaluation, systems: dict[str, Path]) -> pd.DataFrame:
    """Without clean files: print how much was removed."""
    from sgmse.evaluation import scores

    assert arguments.noisy_dir is not None
    frame = scores.measure_removed(arguments.noisy_dir, systems)
    for name, percent in frame.groupby("system", sort=False)[scores.REMOVED].mean().items():
        words = f"{percent:.1f} % of the noisy files' energy removed on average, which is no measure of quality"
        print(f"{name}: {words}")
    return frame


def write_page(arguments: Evaluation, frame: pd.DataFrame, systems: dict[str, Path]) -> None:
    from sgmse.evaluation import set_page  # loads matplotlib, which only a page needs

    assert arguments.page is not None
    folders = (arguments.noisy_dir, arguments.clean_dir, arguments.ref_dir)
    limits = (arguments.max_items, arguments.title, arguments.excerpt_s)
    page = set_page.write_page(arguments.page, frame, systems, *folders, *limits)
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"Page: {page} ({size / 1e6:.1f} MB)")


def require_table(path: Path) -> None:
    """Raise `UserError` where --csv cannot be written, or would replace something else than a table by system."""
    begin = b"system,file,"
    if path.is_dir() or (path.is_file() and not path.read_bytes().startswith(begin)):
        raise UserError(f"--csv {path}: exists and is no table of this command; choose another file")
    with temporary_file(path) as part:
        part.touch()


def read_settings() -> Evaluation:
    """The command line; where no set is named, with the one that comes with the code and the newest enhanced folder."""
    asked = read_command_line(Evaluation, __doc__)
    if asked.csv is not None:
        require_table(asked.csv)
    if asked.page is not None:
        from sgmse.evaluation.page import check_place  # loads matplotlib, which only a page needs

        check_place(asked.page, "--page")
    if asked.clean_dir is None and asked.noisy_dir is None:
        if not TEST_SET.is_dir():
            raise UserError(f"{TEST_SET}: is missing; name a test set with --clean_dir and --noisy_dir")
        print(f"Clean speech: {TEST_SET / 'clean'}")
        ref_dir = TEST_SET / "ref" if (TEST_SET / "ref").is_dir() else None
        asked = replace(
            asked,
            clean_dir=TEST_SET / "clean",
            noisy_dir=TEST_SET / "noisy",
            ref_dir=asked.ref_dir or ref_dir,
            enhanced_dir=asked.enhanced_dir or find_newest(ENHANCED),
        )
    if not asked.enhanced_dir and (asked.noisy_dir is None or asked.clean_dir is None):
        raise UserError("nothing to score: name folders with --enhanced_dir, or both --clean_dir and --noisy_dir")
    return asked


def find_newest(parent: Path) -> list[Path]:
    """The folder directly below `parent` that changed last, if there is one."""
    folders = [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    if not folders:
        print(f"No enhanced folder below {parent}/: only the unprocessed files are scored.")
        return []
    newest = max(folders, key=lambda path: path.stat().st_mtime)
    print(f"Enhanced: {newest}, the newest below {parent}/")
    return [newest]


def named_systems(folders: list[Path]) -> dict[str, Path]:
    """Systems by the name of their folder, or by as much of its path as tells them apart."""
    folders = list(dict.fromkeys(folders))
    for folder in folders:
        listing.find(folder, "enhanced speech")
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names) and not _OTHERS & set(names)
    names = names if unique else [str(folder) for folder in folders]
    return dict(zip((f"./{name}" if name in _OTHERS else name for name in names), folders, strict=True))


def print_differences(frame: pd.DataFrame) -> None:
    """Paired differences of every system to the noisy files, and of later systems to the first."""
    import pandas as pd

    from sgmse.evaluation import scores
    from sgmse.evaluation.tables import print_table, scores_table

    pairs = scores.planned_pairs(frame)
    if pairs:
        print("\nPaired differences")
        differences = pd.concat([scores.paired(frame, a, b) for a, b in pairs])
        print_table(scores_table(differences, "differences", "Paired differences", signed=True))


command = partial(run, main)
