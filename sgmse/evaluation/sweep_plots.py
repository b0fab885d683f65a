"""Pictures of a sweep: quality over cost, and what is worth its cost."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgmse.common.files import save_figure
from sgmse.evaluation.figures import finish_axes
from sgmse.evaluation.metrics import MAIN, METRICS

_COSTS = {"nfe": "evaluations (NFE)", "passes": "network passes"}
_STYLES = ("-", "--", ":", "-.")
_MARKERS = "osD^vPX"
_SPREAD = 0.25  # of the curves around a cost, in doublings


def write_curves(lines: pd.DataFrame, path: Path) -> None:
    """Every metric over evaluations and over passes: a curve over the steps for each sampler, scale and interval.

    `lines` come from `table.per_cell`; bars are 95 % intervals.
    """
    cells = lines[lines["nfe"] > 0]
    looks = _Looks(cells)
    figure = Figure(figsize=(11, 1 + 3.2 * len(MAIN)), dpi=110, layout="constrained")
    panels = figure.subplots(len(MAIN), len(_COSTS), squeeze=False, sharex="col", sharey="row")
    curves = [curve for _, curve in cells.groupby(["sampler", "guidance_scale", "interval"])]
    for score, row in zip(MAIN, panels, strict=True):
        for (cost, cost_title), axes in zip(_COSTS.items(), row, strict=True):
            for place, curve in enumerate(curves):
                curve = curve.sort_values(cost)
                x = curve[cost] * 2 ** (_SPREAD * ((place + 0.5) / len(curves) - 0.5))  # bars side by side
                ends = [curve[score] - curve[f"{score}_low"], curve[f"{score}_high"] - curve[score]]
                look = looks.style(curve.iloc[0])
                axes.errorbar(x, curve[score], yerr=ends, lw=1.4, ms=5, elinewidth=0.7, alpha=0.85, **look)
            _finish(axes, lines, score, cells[cost])
            axes.set(
                ylabel=METRICS[score].title if cost == "nfe" else "", xlabel=cost_title if score == MAIN[-1] else ""
            )
    figure.legend(handles=looks.legend(), loc="outside right upper", frameon=False)
    save_figure(figure, path)


def write_pareto(lines: pd.DataFrame, path: Path) -> None:
    """Every metric over passes for all cells; a line joins those that no cheaper or equally dear cell surpasses."""
    cells = lines[lines["nfe"] > 0]
    looks = _Looks(cells)
    figure = Figure(figsize=(5.5 * len(MAIN), 4.6), dpi=110, layout="constrained")
    for axes, score in zip(figure.subplots(1, len(MAIN), squeeze=False)[0], MAIN, strict=True):
        best = front(cells, score)
        axes.plot(best["passes"], best[score], color="0.3", lw=1.2, drawstyle="steps-post", zorder=1)
        for place, cell in [*cells.iterrows(), *best.iterrows()]:  # the best once more, on top
            look = looks.style(cell)
            axes.plot(cell["passes"], cell[score], ms=7, mfc=look["color"] if place in best.index else "white", **look)
        for _, cell in best.iterrows():
            where = "" if cell["interval"] == "none" else f", [{cell['interval'].replace(':', ', ')}]"
            text, at = f"w {cell['guidance_scale']:g}, N {cell['N']}{where}", (cell["passes"], cell[score])
            axes.annotate(text, at, xytext=(-5, 6), textcoords="offset points", fontsize=7.5, ha="right")
        _finish(axes, lines, score, cells["passes"])
        axes.set(ylabel=METRICS[score].title, xlabel=_COSTS["passes"])
        axes.margins(0.2, 0.12)
    figure.legend(handles=looks.legend(), loc="outside right upper", frameon=False)
    save_figure(figure, path)


def front(cells: pd.DataFrame, score: str) -> pd.DataFrame:
    """The cells that are better than every cell of as many or fewer passes, by rising passes."""
    goodness = cells[score] if METRICS[score].higher_is_better else -cells[score]
    ordered = cells.assign(goodness=goodness).sort_values(
        ["passes", "goodness"], ascending=[True, False], kind="stable"
    )
    is_best = ordered["goodness"] > ordered["goodness"].cummax().shift(fill_value=-float("inf"))
    return ordered.loc[is_best, cells.columns]


class _Looks:
    """Colour for the guidance scale, line for the interval, marker for the sampler."""

    def __init__(self, cells: pd.DataFrame) -> None:
        self.scales, self.intervals, self.samplers = (
            list(cells[name].drop_duplicates()) for name in ("guidance_scale", "interval", "sampler")
        )
        self.scales = sorted(self.scales)

    def style(self, cell: pd.Series) -> dict[str, str]:
        colour, line = self._colour(cell["guidance_scale"]), self._line(cell["interval"])
        return {"color": colour, "ls": line, "marker": self._marker(cell["sampler"])}

    def legend(self) -> list[Line2D]:
        """An entry per scale, then per interval and per sampler where there are several."""
        entries = [Line2D([], [], color=self._colour(s), lw=3, label=f"w = {s:g}") for s in self.scales]
        if len(self.intervals) > 1:
            named = {i: "everywhere" if i == "none" else f"in [{i.replace(':', ', ')}]" for i in self.intervals}
            entries += [Line2D([], [], color="0.3", ls=self._line(i), label=f"guided {named[i]}") for i in named]
        if len(self.samplers) > 1:
            markers = {s: self._marker(s) for s in self.samplers}
            entries += [Line2D([], [], color="0.3", ls="", marker=m, label=s) for s, m in markers.items()]
        return [*entries, Line2D([], [], color="0.6", lw=1, ls=(0, (6, 3)), label="noisy")]

    def _colour(self, scale: float) -> str:
        place = self.scales.index(scale) / max(1, len(self.scales) - 1)
        return matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](0.9 * place))

    def _line(self, interval: str) -> str:
        return _STYLES[self.intervals.index(interval) % len(_STYLES)]

    def _marker(self, sampler: str) -> str:
        return _MARKERS[self.samplers.index(sampler) % len(_MARKERS)]


def _finish(axes: Axes, lines: pd.DataFrame, score: str, costs: pd.Series) -> None:
    """The noisy files' score, and an axis on which doubling the cost is one step."""
    for value in lines.loc[lines["nfe"] == 0, score]:
        axes.axhline(value, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
    axes.set_xscale("log", base=2)
    ticks = sorted(set(costs))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    finish_axes(axes)
