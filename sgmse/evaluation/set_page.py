"""The page of a set of files and its enhanced versions: differences first, then scores, then files to listen to.

Without clean files it shows before and after: what was there, what is left, and what was removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.evaluation import figures, scores
from sgmse.evaluation.listening import CLEAN, EXCERPT_S, REFERENCE, heading
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.page import INDEX, Section, page_folder, write_sections
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.scores import REMOVED
from sgmse.evaluation.set_files import write_files
from sgmse.evaluation.tables import Table, score_interval, scores_table

_INTERVALS = (
    "Brackets and bars hold 95 % intervals over noise sources: files that share a noise recording count together, a "
    "file without a known one for itself."
)
_WITHOUT_CLEAN = "No clean files were named: the scores come from the recordings alone."
_UNSCORED = (
    "No clean files were named, so that nothing says how good a system is: listen to what is left, and to what was "
    "removed, in which no speech should be."
)


def write_page(
    out_dir: Path,
    frame: pd.DataFrame,
    systems: Mapping[str, Path],
    noisy_dir: Path | None,
    clean_dir: Path | None = None,
    ref_dir: Path | None = None,
    max_items: int = 12,
    title: str = "Speech enhancement",
    excerpt_s: float = EXCERPT_S,
) -> Path:
    """Write the page of a set to the folder `out_dir`; an older page there is replaced. Returns its index.html.

    `frame` has a row per system and file: scores of `scores.evaluate`, and without clean files what
    `scores.measure_removed` returns. The folders are those that were scored. figure.png shows one file, for a paper.
    """
    shown = [name for name in METRICS if name in frame and frame[name].notna().any()]
    if not shown and REMOVED not in frame:
        shown = list(MAIN)  # no file could be scored
    named = {CLEAN: clean_dir, NOISY: noisy_dir, REFERENCE: ref_dir, **systems}
    folders = {name: folder for name, folder in named.items() if folder is not None}
    runs = {name: values for name, folder in systems.items() if (values := scores.run_settings(folder))}
    minutes = frame.drop_duplicates("file")["seconds"].sum() / 60
    with page_folder(out_dir, "--page") as part:
        sections = [*_compare(frame, shown, part), *_list_scores(frame, shown, part)]
        data = write_files(part, frame, folders, shown, max_items, excerpt_s)
        settings = [_list_pairs(f"Settings of {name}", values) for name, values in runs.items()]
        sections.append(Section("Settings", folded=[*settings, _list_pairs("Folders", folders)]))
        explained = [_INTERVALS] if shown else [_UNSCORED]
        explained += [_WITHOUT_CLEAN] if shown and clean_dir is None else []
        words = [f"{frame['file'].nunique()} files, {minutes:.1f} minutes.", *explained]
        write_sections(part, title, " ".join(words), sections, links={"Figure": "figure.png"}, data=data)
    return out_dir / INDEX


def _compare(frame: pd.DataFrame, shown: Sequence[str], out: Path) -> list[Section]:
    """What the page is about: systems against each other, and over the noisy files."""
    pairs = scores.planned_pairs(frame)
    parts = {
        "Systems against each other": [pair for pair in pairs if pair[1] != NOISY],
        "Gain over the noisy files": [pair for pair in pairs if pair[1] == NOISY],
    }
    sections = []
    for title, own in parts.items():
        if not own or not shown:
            continue
        rows = pd.concat([scores.paired(frame, *pair).assign(first=pair[0], second=pair[1]) for pair in own])
        judged = pd.concat([figures.judge_differences(part, str(name)) for name, part in rows.groupby("metric")])
        stem = "forest" if title.startswith("Systems") else "gain"
        text = (
            "Paired differences, file by file. A filled point: the interval excludes 0 (green: better, red: worse). "
            "A hollow one: undecided, this set cannot tell the two apart."
        )
        cards = [make_card(row) for _, row in judged[judged["metric"] == shown[0]].iterrows()]
        table = scores_table(rows, title.replace(" ", "-").lower(), title, signed=True)
        drawn = _draw(judged, figures.drawn_metrics(shown), 0.0, out, stem)
        sections.append(Section(title, text, cards, drawn, [table]))
    return sections


def make_card(row: pd.Series) -> dict[str, Any]:
    """A difference in large letters, and whether it is decided. row: of judged differences, first less second."""
    name, unit, _ = heading(row["metric"])
    tone = {"better": "met", "worse": "not-met"}.get(row["verdict"], "open")
    mean, _, brackets = score_interval(row, row["metric"], signed=True).partition(" ")
    text = f"{name}: {row['first']} − {row['second']}"
    return {
        "tone": tone,
        "figure": f"{mean} {unit}".strip(),
        "small": brackets,
        "text": text,
        "verdicts": [(row["verdict"], tone)],
    }


def _list_scores(frame: pd.DataFrame, shown: Sequence[str], out: Path) -> list[Section]:
    """The scores of each system itself."""
    if not shown:
        return []
    means = scores.summary(frame)
    colours = figures.system_colours(list(frame["system"].unique()))
    coloured = means.assign(first=means["system"], second="", colour=means["system"].map(colours))
    table = scores_table(means, "means", "Mean over files")
    text = "The line marks the noisy files." if NOISY in colours else ""
    drawn = _draw(coloured, figures.drawn_metrics(shown), None, out, "means")
    return [Section("Scores", text, figures=drawn, tables=[table])]


def _draw(
    rows: pd.DataFrame, metrics: Sequence[str], around: float | None, out: Path, stem: str
) -> list[tuple[str, str]]:
    """A figure per metric of the intervals in `rows`: differences `around` 0, or scores (None) around the noisy files.

    rows: the columns metric, first and second (or ""), and those that `figures.draw_intervals` needs.
    """
    drawn = []
    for metric in metrics:
        own = rows[(rows["metric"] == metric) & rows["mean"].notna()]
        if own.empty:
            continue
        labels = [f"{row['first']} − {row['second']}" if row["second"] else row["first"] for _, row in own.iterrows()]
        title, line = figures.difference_title(metric), around
        if line is None:
            title, line = METRICS[metric].title, next(iter(own.loc[own["first"] == NOISY, "mean"]), math.nan)
        figures.draw_intervals(own.assign(label=labels), title, line, out / f"{stem}_{metric}.png")
        drawn.append((f"{stem}_{metric}.png", f"{title}: mean and 95 % interval of {', '.join(labels)}"))
    return drawn


def _list_pairs(caption: str, values: Mapping[str, Any]) -> Table:
    rows = [(str(name), str(value)) for name, value in values.items()]
    return Table(caption.replace(" ", "-").lower(), caption, ("setting", "value"), rows)
