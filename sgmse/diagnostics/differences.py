"""Rows of scores → one long table of paired differences, as a whole, by noise class and by SNR; its text and picture.

A system is what a file was enhanced with: a protocol of the references, the baseline, or nothing ("noisy"). The long
table has a row per group of files, difference and metric: by, group, difference (in words), first, second, metric,
mean, low, high (95 % interval over seeds and noise sources), files, sources, seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sgmse.enhancement.protocols import PROTOCOLS, SHIFT_DB
from sgmse.evaluation.figures import draw_interval, finish_axes
from sgmse.evaluation.metrics import METRICS, names_in
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.statistics import hierarchical, paired
from sgmse.evaluation.tables import markdown_rows, score_interval

BASELINE = "baseline"
ALL = "all"  # of `by` and `group`: no grouping
SMALL = {"pesq": 0.05, "si_sdr": 0.3}  # an interval that lies within counts as no effect
TITLES = {
    NOISY: "unprocessed",
    "disjoint": "matched",
    "same_class": "same class",
    "louder": f"{SHIFT_DB:g} dB louder",
    "softer": f"{SHIFT_DB:g} dB softer",
    "none": "null",
}
_OTHERS = (BASELINE, "mismatched", "same_class", "louder", "softer", "shuffled", "estimated", "none")
PAIRS = (*(("disjoint", other) for other in _OTHERS), ("oracle", "disjoint"))
WITHOUT_DISJOINT = (("oracle", BASELINE), ("oracle", "none"))  # of a set without disjoint references
BY_GROUP = tuple(("disjoint", other) for other in (BASELINE, "mismatched", "none"))
_SNR_WIDTH_DB = 5  # of the groups where there are more SNRs than `_MOST_SNRS`
_MOST_SNRS = 8

COLUMNS = ["by", "group", "difference", "first", "second", "metric", "mean", "low", "high", "files", "sources", "seeds"]

Pair = tuple[str, str]


def count_leaks(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that count, and the files left out: their disjoint reference shares samples with the mixture."""
    is_leak = (frame["system"] == "disjoint") & frame["leak_shared"].fillna(False).astype(bool)
    leaking = sorted(frame.loc[is_leak, "file"].unique())
    return frame[~frame["file"].isin(leaking)], leaking


def mean_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The long table of the mean score of each system itself; the unprocessed files come first."""
    rows = {system: frame[frame["system"] == system] for system in (NOISY, BASELINE, *PROTOCOLS)}
    return pd.DataFrame([line for system, part in rows.items() if len(part) for line in summarise(system, part)])


def paired_differences(frame: pd.DataFrame, pairs: Sequence[Pair] | None = None) -> pd.DataFrame:
    """The long table of a - b, file by file; pairs of which the frame lacks a system are left out.

    pairs: None for all that make sense.
    """
    rows = {str(name): part for name, part in frame.groupby("system")}
    if pairs is None:
        pairs = PAIRS if "disjoint" in rows else WITHOUT_DISJOINT
    there = [(a, b) for a, b in pairs if a in rows and b in rows]
    return pd.DataFrame([line for a, b in there for line in summarise(a, rows[a], b, rows[b])], columns=COLUMNS)


def summarise(
    first: str, rows: pd.DataFrame, second: str = "", others: pd.DataFrame | None = None, ending: str = ""
) -> list[dict[str, Any]]:
    """Lines of the long table, one per metric: the mean of `rows`, or of what they score more than `others`.

    first, second: the systems of these. ending: of the name of the difference.
    """
    if others is not None and {*rows["seed"].dropna()} != {*others["seed"].dropna()} and others["seed"].notna().any():
        rows, others = _with_like_seeds(rows, others)
    name = pair_title(first, second) + ending
    lines = []
    for metric in names_in(rows.columns):
        own = rows.assign(value=rows[metric].astype(float)).dropna(subset="value")
        is_share = METRICS[metric].is_binary
        found = hierarchical(own, is_share) if others is None else hierarchical(paired(rows, others, metric))
        line: dict[str, Any] = {
            "by": ALL,
            "group": ALL,
            "difference": name,
            "first": first,
            "second": second,
            "metric": metric,
        }
        line |= {"mean": found.mean, "low": found.low, "high": found.high}
        lines.append(line | {"files": found.n_files, "sources": found.n_sources, "seeds": found.n_seeds})
    return lines


def _with_like_seeds(*sides: pd.DataFrame) -> list[pd.DataFrame]:
    """Trainings of both sides in pairs by the rank of their seeds (which meets which is arbitrary); surplus ones go.

    Where one side was trained once, the mean of each, which tells nothing of other seeds.
    """
    count = min(side["seed"].nunique() for side in sides)
    if count > 1:
        ranked = [side.assign(seed=side["seed"].rank(method="dense")) for side in sides]
        return [side[side["seed"] <= count] for side in ranked]
    found = []
    for side in sides:
        ways = {name: "mean" if name in names_in(side.columns) else "first" for name in side.columns}
        del ways["file"], ways["seed"]
        found.append(side.groupby("file", as_index=False).agg(ways).assign(seed=None))
    return found


def split_by_noise(frame: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The rows by class of noise and by SNR, where the manifest tells these and they differ."""
    by = {"class": frame["kind"].where(frame["kind"] != ""), "SNR dB": _label_snrs(frame["snr_db"])}
    parts = {
        name: {str(label): rows for label, rows in frame.groupby(labels, observed=True)} for name, labels in by.items()
    }
    return {name: groups for name, groups in parts.items() if len(groups) > 1}


def _label_snrs(snr_db: pd.Series) -> pd.Series:
    """Each SNR itself, in rising order; of more than a few, the interval it lies in."""
    if snr_db.nunique() <= _MOST_SNRS:
        low, form = snr_db, "{0:g}"
    else:
        low, form = (snr_db / _SNR_WIDTH_DB).map(math.floor, na_action="ignore") * _SNR_WIDTH_DB, "{0:g} to {1:g}"
    labels = {value: form.format(value, value + _SNR_WIDTH_DB) for value in sorted(low.dropna().unique())}
    return pd.Series(pd.Categorical(low.map(labels), categories=[*labels.values()], ordered=True), index=snr_db.index)


def pair_title(first: str, second: str = "") -> str:
    return " − ".join(TITLES.get(system, system) for system in (first, second) if system)


def excludes_zero(table: pd.DataFrame) -> pd.Series:
    """Of each row, whether its interval does; one that is not known does not."""
    return (table["low"] > 0) | (table["high"] < 0)


def count_exclusions(table: pd.DataFrame) -> tuple[str, bool]:
    """How many of the intervals that are known exclude 0, in words, and whether any does."""
    known, count = table["low"].notna().sum(), excludes_zero(table).sum()
    text = f"{count} of {known} intervals exclude 0; where nothing is, {0.05 * known:.1f} would on average."
    return text, count > 0


def interval_table(
    table: pd.DataFrame, index: Sequence[str], columns: str, counts: Sequence[str] = (), signed: bool = True
) -> str:
    """Markdown: an interval per combination of `index` (down) and `columns` (across), then the largest of `counts`."""
    cells = [score_interval(row, row["metric"], signed) for _, row in table.iterrows()]
    texts = table.assign(cell=cells, metric=table["metric"].map(lambda name: METRICS[name].title))
    across = list(texts[columns].unique())
    wide = texts.pivot_table("cell", index, columns, aggfunc="first", fill_value="", sort=False).reset_index()
    if counts:
        largest = table.groupby(list(index), sort=False)[list(counts)].max().astype(str)
        wide = wide.merge(largest, on=list(index))
    shown = wide[[*index, *across, *counts]]
    return markdown_rows([list(shown.columns), *shown.to_numpy().tolist()])


def draw_differences(
    axes: Axes, table: pd.DataFrame, metric: str, line: str, colours: Mapping[str, str], spread: float = 0.0
) -> None:
    """Intervals of one metric, a line per value of the column `line`; the band holds what counts as no effect.

    colours: by difference, of those that are drawn. Where several share a line, they lie `spread` apart.
    """
    lines = list(table[line].unique())
    axes.axvspan(-SMALL[metric], SMALL[metric], color="0.94", zorder=0)
    axes.axvline(0, color="0.6", lw=1, zorder=1)
    for _, row in table[(table["metric"] == metric) & table["difference"].isin(colours)].iterrows():
        shift = spread * (list(colours).index(row["difference"]) - (len(colours) - 1) / 2)
        is_known = bool(pd.notna(row["low"]))  # where nothing is repeated, there is a hollow mean alone
        draw_interval(axes, row, lines.index(row[line]) + shift, colours[row["difference"]], filled=is_known)
    axes.set_yticks(range(len(lines)), lines)
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlabel=f"Δ {METRICS[metric].title}, 95 % interval")
    finish_axes(axes, "x")
