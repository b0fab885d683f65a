"""Rows of scores → means of each system and paired differences, as a whole, by noise class and by SNR.

A system is what a file was enhanced with: a protocol of the references, the baseline, or nothing ("noisy").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from sgmse.enhancement.protocols import PROTOCOLS, SHIFT_DB
from sgmse.evaluation import metrics
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.statistics import Difference, hierarchical, paired
from sgmse.evaluation.tables import markdown_rows

BASELINE = "baseline"
METRICS = {name: metrics.METRICS[name].title for name in metrics.MAIN}
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
SNR_WIDTH_DB = 5  # of the groups where there are more SNRs than `_MOST_SNRS`
_MOST_SNRS = 8

Pair = tuple[str, str]
Differences = dict[Pair, dict[str, Difference]]


def leaking_files(frame: pd.DataFrame) -> list[str]:
    """Files whose disjoint reference shares samples with the mixture, so that what it gives is no evidence."""
    rows = frame[(frame["system"] == "disjoint") & frame["leak_shared"].fillna(False).astype(bool)]
    return sorted(rows["file"].unique())


def paired_differences(frame: pd.DataFrame, pairs: Sequence[Pair] | None = None) -> Differences:
    """By pair and metric, the mean of a - b over files with its interval over seeds and noise sources.

    `pairs` None: all that make sense; those of which the frame lacks a system are left out.
    """
    rows = {str(name): part for name, part in frame.groupby("system")}
    if pairs is None:
        pairs = PAIRS if "disjoint" in rows else WITHOUT_DISJOINT
    return {(a, b): subtract(rows[a], rows[b]) for a, b in pairs if a in rows and b in rows}


def subtract(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Difference]:
    """By metric, the mean over files of what one system scores more than another; rows of one system each."""
    if set(first["seed"]) != set(second["seed"]):  # trained with other seeds: each file against the mean of the others
        second = second.groupby("file", as_index=False)[list(METRICS)].mean().assign(seed=None)
    return {metric: hierarchical(paired(first, second, metric)) for metric in METRICS}


def mean_scores(frame: pd.DataFrame) -> dict[str, dict[str, Difference]]:
    """By system and metric, the mean score over files with its interval; the unprocessed files come first."""
    found = {}
    for system in (NOISY, BASELINE, *PROTOCOLS):
        rows = frame[frame["system"] == system]
        if len(rows):
            scored = {metric: rows.assign(value=rows[metric].astype(float)) for metric in METRICS}
            found[system] = {metric: hierarchical(table[table["value"].notna()]) for metric, table in scored.items()}
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
        low, form = (snr_db / SNR_WIDTH_DB).map(math.floor, na_action="ignore") * SNR_WIDTH_DB, "{0:g} to {1:g}"
    labels = {value: form.format(value, value + SNR_WIDTH_DB) for value in sorted(low.dropna().unique())}
    return pd.Series(pd.Categorical(low.map(labels), categories=[*labels.values()], ordered=True), index=snr_db.index)


def pair_title(pair: Pair) -> str:
    return " − ".join(TITLES.get(system, system) for system in pair)


def interval_text(difference: Difference, metric: str = "pesq", signed: bool = True) -> str:
    """`mean [low, high]`; the mean alone where nothing is repeated."""
    form = f"{'+' if signed else ''}z.{metrics.METRICS[metric].decimals}f"
    if math.isnan(difference.mean):
        return "–"
    if not difference.is_known:
        return f"{difference.mean:{form}}"
    return f"{difference.mean:{form}} [{difference.low:{form}}, {difference.high:{form}}]"


def means_table(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """Markdown, a line per system."""
    lines = [["system", *METRICS.values(), "files"]]
    for system, values in found.items():
        cells = [interval_text(values[metric], metric, signed=False) for metric in METRICS]
        lines.append([TITLES.get(system, system), *cells, str(values["si_sdr"].n_files)])
    return markdown_rows(lines)


def differences_table(found: Differences) -> str:
    """Markdown, a line per pair."""
    lines = [["difference", *METRICS.values(), "files", "sources", "seeds"]]
    for pair, values in found.items():
        one = values["pesq"]
        cells = [interval_text(values[metric], metric) for metric in METRICS]
        lines.append([pair_title(pair), *cells, *map(str, (one.n_files, one.n_sources, one.n_seeds))])
    return markdown_rows(lines)


def groups_table(name: str, groups: Mapping[str, pd.DataFrame]) -> str:
    """How many intervals of groups of files exclude 0; then Markdown, a line per group, unless none does.

    The table holds PESQ and SI-SDR of the pairs that matter most.
    """
    by_group = {label: paired_differences(rows, BY_GROUP) for label, rows in groups.items()}
    pairs = [pair for pair in BY_GROUP if any(pair in found for found in by_group.values())]
    columns = [(pair, metric) for pair in pairs for metric in ("pesq", "si_sdr")]
    lines = [[name, "files", *(f"{METRICS[metric]}: {pair_title(pair)}" for pair, metric in columns)]]
    shown: list[Difference] = []
    for label, found in by_group.items():
        values = [(found[pair][metric] if pair in found else None, metric) for pair, metric in columns]
        shown += [one for one, _ in values if one is not None]
        cells = ["" if one is None else interval_text(one, metric) for one, metric in values]
        lines.append([label, str(groups[label]["file"].nunique()), *cells])
    text, says_something = count_exclusions(shown)
    return f"{text}\n\n{markdown_rows(lines)}" if says_something else text


def count_exclusions(found: Iterable[Difference]) -> tuple[str, bool]:
    """How many of the intervals that are known exclude 0, in words, and whether any does."""
    known = [one for one in found if one.is_known]
    count = sum(one.excludes_zero for one in known)
    text = f"{count} of {len(known)} intervals exclude 0; where nothing is, {0.05 * len(known):.1f} would on average."
    return text, count > 0
