"""The rows of a sweep → one line per cell: cost, scores with intervals over files, differences to w = 1."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sgmse.evaluation import metrics
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.kept import KEY

SCORES = ("pesq", "estoi", "si_sdr")
_DECIMALS = {"pesq": 3, "estoi": 3, "si_sdr": 2}
_HEADER = ["sampler", "N", "w", "interval", "NFE", "passes", "real-time factor", "PESQ", "ESTOI", "SI-SDR dB"]
_HEADER += ["ΔPESQ to w = 1", "ΔSI-SDR to w = 1"]


def per_cell(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per cell, in the order they were done, the noisy files first; none for those that guide nothing.

    Returns the columns `KEY`, nfe, passes, rtf, and for every score (and for d_pesq, d_si_sdr, the mean of the paired
    differences to the cell of the same sampler and steps with w = 1) the mean, NAME_low and NAME_high (95 % interval
    over files).
    """
    frame = rows.assign(system=rows[KEY].astype(str).agg(" ".join, axis=1)).reindex(
        columns=[*rows.columns, "system", *(set(metrics.METRICS) - set(rows.columns))]
    )
    lines = []
    systems = frame.drop_duplicates("system").set_index("system")
    for system, first in systems.iterrows():
        own = frame[frame["system"] == system]
        line = {**first[KEY], **own[["nfe", "passes"]].mean().round().astype(int)}  # those of rk45 differ by file
        line["rtf"] = own["seconds"].sum() / own["audio_s"].sum()
        line |= _means(evaluation.summary(own), SCORES, "")
        same = (systems["sampler"] == first["sampler"]) & (systems["N"] == first["N"])
        plain = systems.index[same & (systems["guidance_scale"] == 1)]
        if len(plain) and plain[0] != system:
            if first["interval"] != "none" and line["passes"] == line["nfe"]:
                continue  # no evaluation lies in its interval
            line |= _means(evaluation.paired(frame, str(system), plain[0]), ("pesq", "si_sdr"), "d_")
        lines.append(line)
    return pd.DataFrame(lines)


def _means(table: pd.DataFrame, names: tuple[str, ...], prefix: str) -> dict[str, float]:
    rows = {row["metric"]: row for _, row in table.iterrows()}
    ends = {"": "mean", "_low": "low", "_high": "high"}
    return {f"{prefix}{name}{end}": float(rows[name][column]) for name in names for end, column in ends.items()}


def markdown(lines: pd.DataFrame) -> str:
    """The lines of `per_cell` as a Markdown table that is aligned, so that it can be printed too."""
    return aligned([_HEADER, *(_cells(line) for _, line in lines.iterrows())])


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the header first, as a Markdown table with columns of equal width."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    table = [table[0], ["-" * width for width in widths], *table[1:]]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded) + "\n"


def _cells(line: pd.Series) -> list[str]:
    scores = [_interval(line, name, _DECIMALS[name]) for name in SCORES]
    if line["nfe"] == 0:
        return [str(line["sampler"]), *[""] * 6, *scores, "", ""]
    asked = "" if line["sampler"] == "rk45" else str(line["N"])
    cost = [str(line["nfe"]), str(line["passes"]), f"{line['rtf']:.3f}"]
    differences = [_interval(line, "d_pesq", 3), _interval(line, "d_si_sdr", 2)]
    return [
        str(line["sampler"]),
        asked,
        f"{line['guidance_scale']:g}",
        str(line["interval"]),
        *cost,
        *scores,
        *differences,
    ]


def _interval(line: pd.Series, name: str, decimals: int) -> str:
    mean, low, high = (line.get(f"{name}{end}", float("nan")) for end in ("", "_low", "_high"))
    return "" if pd.isna(mean) else f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
