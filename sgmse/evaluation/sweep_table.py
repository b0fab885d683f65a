"""The rows of a sweep → one line per cell: cost, scores with intervals over files, differences to w = 1."""

from __future__ import annotations

import math

import pandas as pd

from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.tables import interval, markdown_rows, titles

KEY = ["sampler", "N", "guidance_scale", "interval"]
COLUMNS = [*KEY, "file", "audio_s", "seconds", "nfe", "passes", *MAIN, "reason"]
_HEADER = ["sampler", "N", "w", "interval", "NFE", "passes", "real-time factor", *titles()]
_HEADER += [f"{title} to w = 1" for title in titles(prefix="Δ")]


def per_cell(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per cell, in the order they were done, the noisy files first; none for those that guide nothing.

    Returns the columns `KEY`, nfe, passes, rtf, and for every metric the mean, NAME_low and NAME_high (95 % interval,
    over sources where rows have the column source). The same with d_ before NAME: the mean of the paired
    differences to the cell of the same sampler and steps with w = 1.
    """
    frame = rows.assign(system=rows[KEY].astype(str).agg(" ".join, axis=1))
    lines = []
    systems = frame.drop_duplicates("system").set_index("system")
    for system, first in systems.iterrows():
        own = frame[frame["system"] == system]
        line = {**first[KEY], **own[["nfe", "passes"]].mean().round().astype(int)}  # those of rk45 differ by file
        line["rtf"] = own["seconds"].sum() / own["audio_s"].sum()
        line |= _means(evaluation.summary(own), "")
        same = (systems["sampler"] == first["sampler"]) & (systems["N"] == first["N"])
        plain = systems.index[same & (systems["guidance_scale"] == 1)]
        if len(plain) and plain[0] != system:
            if first["interval"] != "none" and line["passes"] == line["nfe"]:
                continue  # no evaluation lies in its interval
            line |= _means(evaluation.paired(frame, str(system), plain[0]), "d_")
        lines.append(line)
    return pd.DataFrame(lines)


def _means(table: pd.DataFrame, prefix: str) -> dict[str, float]:
    rows = table.set_index("metric")
    ends = {"": "mean", "_low": "low", "_high": "high"}
    return {f"{prefix}{name}{end}": float(rows[column][name]) for name in MAIN for end, column in ends.items()}


def markdown(lines: pd.DataFrame) -> str:
    """The lines of `per_cell` as a Markdown table that is aligned, so that it can be printed too."""
    return markdown_rows([_HEADER, *(_cells(line) for _, line in lines.iterrows())])


def _cells(line: pd.Series) -> list[str]:
    scores = [_interval(line, name, "") for name in MAIN]
    if line["nfe"] == 0:
        return [str(line["sampler"]), *[""] * 6, *scores, *[""] * len(MAIN)]
    steps = "" if line["sampler"] == "rk45" else str(line["N"])
    setting = [str(line["sampler"]), steps, f"{line['guidance_scale']:g}", str(line["interval"])]
    cost = [str(line["nfe"]), str(line["passes"]), f"{line['rtf']:.3f}"]
    return [*setting, *cost, *scores, *(_interval(line, name, "d_") for name in MAIN)]


def _interval(line: pd.Series, metric: str, prefix: str) -> str:
    """Empty where the cell has no such difference."""
    mean, low, high = (line.get(f"{prefix}{metric}{end}", math.nan) for end in ("", "_low", "_high"))
    return "" if math.isnan(mean) else interval(mean, low, high, METRICS[metric].decimals, signed=bool(prefix))
