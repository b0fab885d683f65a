"""Pictures of the probes: the gap by time, the sensitivity of bands, attention on a file's spectrogram."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgmse.common.files import save_figure
from sgmse.diagnostics.attention import AttentionMap
from sgmse.diagnostics.gap import MISMATCHED, NULL, Proposal
from sgmse.diagnostics.sensitivity import BOOST_DB, NUM_BANDS, band_edges, matrix, selectivity

_COLOURS = {NULL: "C0", MISMATCHED: "C1"}
_GAPS = {
    "gap": "loss against − loss matched",
    "relative_gap": "… as a share of the loss against",
    "effect": "‖x̂ matched − x̂ against‖² / ‖x̂ against − x‖²",
}
_RANGE_DB = 80.0
_SPAN = re.compile(r"(\d+\.?\d*)-(\d+\.?\d*) ([^;]*)")  # of a timeline, in seconds


def write_gap(lines: pd.DataFrame, proposal: Proposal, path: Path) -> None:
    """ΔL, its share and the effect on the estimate over diffusion time, with 95 % intervals; lines of `gap.summary`."""
    figure = Figure(figsize=(13, 4), dpi=110, layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(_GAPS)), _GAPS.items(), strict=True):
        for against, curve in lines.groupby("against", sort=False):
            colour = _COLOURS[str(against)]
            axes.plot(curve["t"], curve[name], "o-", color=colour, ms=4, lw=1.5, label=f"against {against}")
            ends = (curve[f"{name}_low"].fillna(curve[name]), curve[f"{name}_high"].fillna(curve[name]))
            axes.fill_between(curve["t"], *ends, color=colour, alpha=0.18, lw=0)
        if proposal.interval is not None:
            axes.axvspan(*proposal.interval, color="0.9", zorder=0, label="proposed for guidance")
        axes.axhline(0, color="0.6", lw=1, zorder=1)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="diffusion time t (sampling runs from right to left)", xlim=(0, 1.02))
        bare(axes)
    figure.axes[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def write_sensitivity(rows: pd.DataFrame, sample_rate: int, path: Path) -> None:
    """The matrix of attenuations, and per file how much more goes in the raised band than elsewhere."""
    found, files = matrix(rows), selectivity(rows)
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    most = max(1.0, float(np.nanmax(np.abs(found)))) if np.isfinite(found).any() else 1.0
    image = left.imshow(found, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", aspect="auto")
    for (raised, band), value in np.ndenumerate(found):
        colour = "white" if abs(value) > 0.6 * most else "0.2"
        left.text(band, raised, "–" if np.isnan(value) else f"{value:z.1f}", ha="center", va="center", color=colour)
    edges = band_edges(sample_rate) / 1000
    names = [f"{low:.1f}–{high:.1f}" for low, high in pairwise(edges)]
    left.set_xticks(range(NUM_BANDS), names, rotation=40, ha="right")
    left.set_yticks(range(NUM_BANDS), names)
    left.set(xlabel="band of the output, kHz", ylabel=f"band of the reference with {BOOST_DB:+.0f} dB, kHz")
    figure.colorbar(image, ax=left, label="attenuation of the noise, dB more")
    right.axline((0, 0), slope=1, color="0.6", lw=1, ls="--")
    right.plot(files["elsewhere"], files["own"], "o", color="C0", ms=5, alpha=0.8)
    right.axhline(0, color="0.85", lw=1)
    right.axvline(0, color="0.85", lw=1)
    right.set(xlabel="attenuation elsewhere, dB", ylabel="attenuation in the raised band, dB")
    right.set_title(f"{len(files)} files; above the line: more where it says", fontsize=10)
    bare(right)
    save_figure(figure, path)


def write_attention(
    title: str,
    spectrum_db: np.ndarray,
    seconds: float,
    sample_rate: int,
    timeline: str,
    found: AttentionMap,
    path: Path,
) -> None:
    """Noisy spectrogram [F, T] with the noise's timeline, and below it what each of its frames attends to."""
    bands = found.by_band.shape[0]
    panels = 2 + (bands > 1)
    figure = Figure(figsize=(9, 2.2 + 1.9 * panels), dpi=110, layout="constrained")
    rows = np.atleast_1d(figure.subplots(panels, 1, sharex=True))
    top = float(spectrum_db.max())
    kilohertz = sample_rate / 2000
    rows[0].imshow(
        spectrum_db,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, seconds, 0, kilohertz),
        vmin=top - _RANGE_DB,
    )
    rows[0].set(ylabel="kHz")
    rows[0].set_title(title, fontsize=10, pad=8 + 17 * _draw_timeline(rows[0], timeline))
    share = f"own band {found.own_band:.2f} (chance {1 / bands:.2f})" if bands > 1 else ""
    about = f"{found.tokens_used:.1f} of {found.tokens} tokens share the attention" + (f"; {share}" if share else "")
    maps = [("time step of the reference", found.by_time), ("frequency band of the reference", found.by_band)]
    for axes, (label, shares) in zip(rows[1:], maps[: panels - 1], strict=True):
        count = shares.shape[0]
        extent = (0, seconds, 0.5, count + 0.5)
        image = axes.imshow(shares.numpy(), origin="lower", aspect="auto", extent=extent, vmin=0, interpolation="none")
        axes.set(ylabel=label.replace(" of ", "\nof "))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axes, label="attention")
    rows[1].set_title(about, fontsize=9)
    rows[-1].set(xlabel="s")
    save_figure(figure, path)


def _draw_timeline(axes: Axes, timeline: str) -> int:
    """Bars above the spectrogram, one line per span such as "0.00-1.32 dog"; returns the number of lines."""
    spans = _SPAN.findall(timeline)
    for line, (start, end, label) in enumerate(spans):
        at = 1.04 + 0.1 * line
        transform = axes.get_xaxis_transform()
        axes.plot([float(start), float(end)], [at, at], color=f"C{line}", lw=4, transform=transform, clip_on=False)
        axes.text(float(start), at + 0.02, label, fontsize=7.5, transform=transform, va="bottom")
    return len(spans)


def bare(axes: Axes) -> None:
    """A light grid and no frame above and to the right."""
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
