"""Rows of scores → means of each reference protocol and paired differences, as a whole, by noise class and by SNR."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from sgmse.diagnostics.use import BASELINE, NOISY
from sgmse.enhancement.protocols import PROTOCOLS, SHIFT_DB
from sgmse.evaluation.statistics import Difference, hierarchical, paired
from sgmse.evaluation.sweep_table import aligned

METRICS = {"pesq": "PESQ", "estoi": "ESTOI", "si_sdr": "SI-SDR dB"}
TITLES = {
    NOISY: "unprocessed",
    BASELINE: "baseline",
    "matched": "matched",
    "same_class": "same class",
    "mismatched": "mismatched",
    "louder": f"{SHIFT_DB:g} dB louder",
    "softer": f"{SHIFT_DB:g} dB softer",
    "shuffled": "shuffled",
    "estimated": "estimated",
    "null": "null",
    "oracle": "oracle",
}
_OTHERS = (BASELINE, "mismatched", "same_class", "louder", "softer", "shuffled", "estimated", "null")
PAIRS = [*(("matched", other) for other in _OTHERS), ("oracle", "matched")]
WITHOUT_MATCHED = [("oracle", BASELINE), ("oracle", "null")]
BY_GROUP = [("matched", other) for other in (BASELINE, "mismatched", "null")]
SNR_WIDTH_DB = 5  # of the groups where there are more SNRs than `_MOST_SNRS`
_MOST_SNRS = 8
_DECIMALS = {"pesq": 3, "estoi": 3, "si_sdr": 2}

Pair = tuple[str, str]
Differences = dict[Pair, dict[str, Difference]]


def leaking(frame: pd.DataFrame) -> list[str]:
    """Files whose matched reference shares samples with the mixture, so that what it gives is no evidence."""
    rows = frame[(frame["system"] == "matched") & frame["leak_shared"].fillna(False).astype(bool)]
    return sorted(rows["file"].unique())


def of(frame: pd.DataFrame, pairs: Sequence[Pair] | None = None) -> Differences:
    """By pair and metric, the mean of a - b over files with its interval over seeds and noise sources.

    `pairs` None: all that make sense; those of which the frame lacks a system are left out.
    """
    there = set(frame["system"])
    if pairs is None:
        pairs = PAIRS if "matched" in there else WITHOUT_MATCHED
    rows = {name: frame[frame["system"] == name] for name in there}
    return {(a, b): between(rows[a], rows[b]) for a, b in pairs if {a, b} <= there}


def between(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Difference]:
    """By metric, the mean over files of what one system scores more than another; rows of one system each."""
    if set(first["seed"]) != set(second["seed"]):  # trained with other seeds: each file against the mean of the others
        second = second.groupby("file", as_index=False)[list(METRICS)].mean().assign(seed=None)
    return {metric: hierarchical(paired(first, second, metric)) for metric in METRICS}


def means(frame: pd.DataFrame) -> dict[str, dict[str, Difference]]:
    """By system and metric, the mean score over files with its interval."""
    found = {}
    for system in (NOISY, BASELINE, *PROTOCOLS):
        rows = frame[frame["system"] == system]
        if len(rows):
            values = {metric: rows.assign(value=rows[metric].astype(float)) for metric in METRICS}
            found[system] = {metric: hierarchical(table[table["value"].notna()]) for metric, table in values.items()}
    return found


def groups(frame: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The rows by class of noise and by SNR, where the manifest tells these and they differ."""
    by = {"class": frame["kind"].where(frame["kind"] != ""), "SNR dB": _snr_labels(frame["snr_db"])}
    found = {}
    for name, labels in by.items():
        parts = {str(label): rows for label, rows in frame.groupby(labels, observed=True)}
        if len(parts) > 1:
            found[name] = parts
    return found


def _snr_labels(snr_db: pd.Series) -> pd.Series:
    """Each SNR itself, in rising order; of more than a few, the interval it lies in."""
    values = sorted(snr_db.dropna().unique())
    if len(values) <= _MOST_SNRS:
        labels, order = snr_db.map(lambda v: f"{v:g}", na_action="ignore"), [f"{v:g}" for v in values]
    else:
        low = (snr_db / SNR_WIDTH_DB).map(math.floor, na_action="ignore") * SNR_WIDTH_DB
        order = [f"{v:g} to {v + SNR_WIDTH_DB:g}" for v in sorted(low.dropna().unique())]
        labels = low.map(lambda v: f"{v:g} to {v + SNR_WIDTH_DB:g}", na_action="ignore")
    return pd.Series(pd.Categorical(labels, categories=order, ordered=True), index=snr_db.index)


def means_table(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """Markdown, a line per system, the unprocessed files first."""
    lines = [["system", *METRICS.values(), "files"]]
    for system, values in found.items():
        lines.append([TITLES[system], *_cells(values, tuple(METRICS), signed=False), str(values["si_sdr"].n_files)])
    return aligned(lines)


def differences_table(found: Differences) -> str:
    """Markdown, a line per pair."""
    lines = [["difference", *METRICS.values(), "files", "sources", "seeds"]]
    for (a, b), values in found.items():
        one = values["pesq"]
        counts = [str(one.n_files), str(one.n_sources), str(one.n_seeds)]
        lines.append([f"{TITLES[a]} − {TITLES[b]}", *_cells(values, tuple(METRICS)), *counts])
    return aligned(lines)


def group_table(name: str, parts: Mapping[str, pd.DataFrame]) -> str:
    """Markdown, a line per group of files; PESQ and SI-SDR of the pairs that matter most."""
    by_group = {label: of(rows, BY_GROUP) for label, rows in parts.items()}
    pairs = [pair for pair in BY_GROUP if any(pair in found for found in by_group.values())]
    shown = ("pesq", "si_sdr")
    lines = [[name, "files", *(f"{METRICS[m]}: {TITLES[a]} − {TITLES[b]}" for a, b in pairs for m in shown)]]
    for label, found in by_group.items():
        cells = [_cells(found[pair], shown) if pair in found else [""] * len(shown) for pair in pairs]
        lines.append([label, str(parts[label]["file"].nunique()), *(cell for some in cells for cell in some)])
    return aligned(lines)


def told(difference: Difference, metric: str = "pesq", signed: bool = True) -> str:
    """`mean [low, high]`; the mean alone where nothing is repeated."""
    sign, decimals = "+" if signed else "", _DECIMALS[metric]
    if math.isnan(difference.mean):
        return "–"
    if not difference.is_known:
        return f"{difference.mean:{sign}z.{decimals}f}"
    ends = ", ".join(f"{end:{sign}z.{decimals}f}" for end in (difference.low, difference.high))
    return f"{difference.mean:{sign}z.{decimals}f} [{ends}]"


def _cells(values: Mapping[str, Difference], shown: Sequence[str], signed: bool = True) -> list[str]:
    return [told(values[metric], metric, signed) for metric in shown]
