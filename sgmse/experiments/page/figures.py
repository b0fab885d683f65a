"""The figures of the page: differences with their intervals, curves over training, quality over guidance and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_CURVES = {"valid_loss": "validation loss", "pesq": "PESQ", "cond_gap": "cond_gap"}
_PER_ROW = 8  # curves that can be told apart in one panel
_GREY = "0.55"
_INK = "#1b2130"


def forest(differences: pd.DataFrame, thresholds: Mapping[tuple[str, str, str], float], path: Path) -> None:
    """PESQ differences over all files of each set: a panel per set, a line per comparison, bars of 95 % intervals.

    `differences`: rows of `compare_experiments`, one per set and pair. A filled point: the interval excludes 0.
    `thresholds`: what a criterion asks, by experiment, opponent and set.
    """
    sets = list(differences["set"].drop_duplicates())
    pairs = list(dict.fromkeys(zip(differences["experiment"], differences["against"], strict=True)))
    figure = Figure(figsize=(3.0 + 2.9 * len(sets), 1.1 + 0.3 * len(pairs)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, sharex=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        axes.axvline(0, color="0.4", lw=0.9, zorder=0)
        for _, row in differences[differences["set"] == name].iterrows():
            place = pairs.index((row["experiment"], row["against"]))
            asked = thresholds.get((row["experiment"], row["against"], name))
            if asked is not None:
                axes.plot([asked, asked], [place - 0.5, place + 0.5], color="#e07a1f", lw=1.6, ls=":", zorder=1)
            shown = row["low"] > 0 or row["high"] < 0
            colour = _GREY if row["smoke"] else "#1b7f4b" if row["low"] > 0 else "#b42318" if shown else "#3b5bdb"
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=2, solid_capstyle="round")
            axes.plot(row["mean"], place, "o", color=colour, mfc=colour if shown else "white", ms=6, mew=1.5)
        axes.set(title=name, xlabel="PESQ difference", ylim=(len(pairs) - 0.4, -0.6))
        axes.set_yticks(range(len(pairs)), [f"{a} − {b}" for a, b in pairs])
        _finish(axes, "x")
    figure.savefig(path)


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
                    axes.plot(known["step"], known[column], color=_colour(shown.index(name)), lw=1.5, marker=".", ms=4)
            if column == "cond_gap":
                axes.axhline(0, color="0.4", lw=0.9, zorder=0)
            elif column == "pesq":
                for value in {v["noisy/pesq"].iloc[0] for v in trainings.values() if "noisy/pesq" in v}:
                    axes.axhline(value, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
            axes.set(title=title, xlabel="step")
            _finish(axes, "both")
        legend = [Line2D([], [], color=_colour(place), lw=2, label=name) for place, name in enumerate(shown)]
        panels[-1].legend(handles=legend, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=8)
    figure.savefig(path)


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
            best = lines[lines["experiment"] == name].groupby(column)["pesq"].max()
            axes.plot(best.index, best, color=_colour(place), marker="osD^vP"[place // 10 % 6], ms=5, lw=1.4, alpha=0.9)
        axes.set(xlabel=title, ylabel="PESQ on the validation set" if axes is panels[0] else "")
        _finish(axes, "both")
    if lines["passes"].nunique() > 1:
        panels[1].set_xscale("log", base=2)
    for axes, column in zip(panels, titles, strict=True):
        ticks = sorted(set(lines[column]))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    figure.legend(handles=_legend(names), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)


def _legend(names: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=_colour(place), marker="osD^vP"[place // 10 % 6], ms=5, lw=1.4, label=name)
        for place, name in enumerate(names)
    ]


def _colour(place: int) -> str:
    return matplotlib.colors.to_hex(matplotlib.colormaps["tab10"](place % 10))


def _finish(axes: Axes, grid: Literal["both", "x"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.92")
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)
    axes.tick_params(labelsize=9)
