"""The figures of the page: curves over training, quality over guidance and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgmse.common.files import save_figure
from sgmse.evaluation.figures import colour, finish_axes
from sgmse.evaluation.metrics import FIRST, METRICS

_CURVES = {"valid_loss": "validation loss", FIRST: METRICS[FIRST].title, "cond_gap": "cond_gap"}
_PER_ROW = 8  # curves that can be told apart in one panel


def curves(trainings: Mapping[tuple[str, int], pd.DataFrame], path: Path) -> None:
    """Validation loss, PESQ and cond_gap over steps: a colour per training, a line per seed, eight trainings a row.

    `trainings`: validation.csv by training and seed.
    """
    names = list(dict.fromkeys(name for name, _ in trainings))
    rows = [names[start : start + _PER_ROW] for start in range(0, len(names), _PER_ROW)]
    figure = Figure(figsize=(13.5, 3.1 * len(rows)), dpi=130, layout="constrained")
    grid = figure.subplots(len(rows), len(_CURVES), squeeze=False, sharex=True, sharey="col")
    for shown, panels in zip(rows, grid, strict=True):
        for axes, (column, title) in zip(panels, _CURVES.items(), strict=True):
            for (name, _), values in trainings.items():
                if name in shown and column in values:
                    known = values.dropna(subset=[column])
                    axes.plot(known["step"], known[column], color=colour(shown.index(name)), lw=1.5, marker=".", ms=4)
            if column == "cond_gap":
                axes.axhline(0, color="0.4", lw=0.9, zorder=0)
            elif column == FIRST:
                noisy = f"noisy/{FIRST}"
                for value in {v[noisy].iloc[0] for v in trainings.values() if noisy in v}:
                    axes.axhline(value, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
            axes.set(title=title, xlabel="step")
            finish_axes(axes)
        legend = [Line2D([], [], color=colour(place), lw=2, label=name) for place, name in enumerate(shown)]
        panels[-1].legend(handles=legend, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=8)
    save_figure(figure, path)


def sweeps(lines: pd.DataFrame, path: Path) -> None:
    """PESQ on the validation set over the guidance scale and over network passes: a colour per experiment.

    `lines`: the columns experiment, guidance_scale, passes, pesq. Over the one, the best of the other is shown.
    """
    names = list(lines["experiment"].drop_duplicates())
    figure = Figure(figsize=(12, 4 + 0.12 * max(0, len(names) - 14)), dpi=130, layout="constrained")
    titles = {"guidance_scale": "guidance scale w", "passes": "network passes per file"}
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for place, name in enumerate(names):
            best = lines[lines["experiment"] == name].groupby(column)[FIRST].max()
            axes.plot(best.index, best, color=colour(place), marker="osD^vP"[place // 10 % 6], ms=5, lw=1.4, alpha=0.9)
        axes.set(xlabel=title, ylabel=f"{METRICS[FIRST].title} on the validation set" if axes is panels[0] else "")
        finish_axes(axes)
    if lines["passes"].nunique() > 1:
        panels[1].set_xscale("log", base=2)
    for axes, column in zip(panels, titles, strict=True):
        ticks = sorted(set(lines[column]))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    figure.legend(handles=_legend(names), loc="outside right upper", frameon=False, fontsize=8)
    save_figure(figure, path)


def _legend(names: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour(place), marker="osD^vP"[place // 10 % 6], ms=5, lw=1.4, label=name)
        for place, name in enumerate(names)
    ]
