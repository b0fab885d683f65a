"""What the figures of the diagnostics share."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from sgmse.evaluation.statistics import Difference

MARKERS = "osD^v"


def bare_axes(axes: Axes) -> None:
    """A light grid and no frame above and to the right."""
    axes.grid(color="0.93")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_interval(axes: Axes, place: float, difference: Difference, colour: str, upright: bool = False) -> None:
    """Mean and interval at a place of the other axis; where nothing is repeated, a hollow mean alone."""
    if math.isnan(difference.mean):
        return
    if difference.is_known:
        ends, places = [difference.low, difference.high], [place] * 2
        axes.plot(*((places, ends) if upright else (ends, places)), color=colour, lw=2.2, solid_capstyle="round")
    point = (place, difference.mean) if upright else (difference.mean, place)
    axes.plot(*point, "o", color=colour, ms=7, mfc=colour if difference.is_known else "white")
