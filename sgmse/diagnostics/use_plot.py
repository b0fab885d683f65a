"""The picture of a verdict: paired differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgmse.common.files import save_figure
from sgmse.diagnostics.differences import METRICS, TITLES, Pair
from sgmse.diagnostics.use import BASELINE
from sgmse.diagnostics.verdict import SMALL, Verdict
from sgmse.evaluation.statistics import Difference

_COLOURS = {BASELINE: "C0", "oracle": "C3"}  # what pays, what leaks; the other protocols are grey
_OTHER = "0.35"


def write_forest(found: Mapping[Pair, Mapping[str, Difference]], verdict: Verdict, title: str, path: Path) -> None:
    """PESQ and SI-SDR of every pair, a line each; the band holds what counts as no effect."""
    pairs = list(found)
    figure = Figure(figsize=(11, 1.5 + 0.42 * len(pairs)), dpi=110, layout="constrained")
    for axes, (metric, small) in zip(figure.subplots(1, 2, sharey=True), SMALL.items(), strict=True):
        axes.axvspan(-small, small, color="0.94", zorder=0)
        axes.axvline(0, color="0.6", lw=1, zorder=1)
        for place, pair in enumerate(pairs):
            draw_interval(axes, place, found[pair][metric], _colour(pair))
        axes.set_yticks(range(len(pairs)), [f"{TITLES[a]} − {TITLES[b]}" for a, b in pairs])
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.set_xlabel(f"Δ {METRICS[metric]}, 95 % interval")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    figure.suptitle(f"{title}: {verdict.word}", fontsize=12, x=0.01, ha="left")
    save_figure(figure, path)


def draw_interval(axes: Axes, place: float, difference: Difference, colour: str, upright: bool = False) -> None:
    """Mean and interval at a place of the other axis; where nothing is repeated, a hollow mean alone."""
    if math.isnan(difference.mean):
        return
    ends, places = [difference.low, difference.high], [place] * 2
    if difference.is_known:
        line = (places, ends) if upright else (ends, places)
        axes.plot(*line, color=colour, lw=2.2, solid_capstyle="round")
    point = (place, difference.mean) if upright else (difference.mean, place)
    axes.plot(*point, "o", color=colour, ms=7, mfc=colour if difference.is_known else "white")


def _colour(pair: Pair) -> str:
    return next((_COLOURS[name] for name in pair if name in _COLOURS), _OTHER)
