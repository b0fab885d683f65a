"""A sweep of settings: a line per cell with what it costs and how good it is, and pictures of quality over cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgmse.common.files import save_figure
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.figures import finish_axes
from sgmse.evaluation.metrics import MAIN, METRICS, names_in
from sgmse.evaluation.tables import Table, interval, markdown_rows, titles

KEY = ["sampler", "N", "guidance_scale", "interval"]
_HEADER = ["sampler", "N", "w", "interval", "NFE", "passes", "real-time factor"]
_COSTS = {"nfe": "evaluations (NFE)", "passes": "network passes"}
_SPREAD = 0.25  # of the curves around a cost, in doublings


def columns(asked: Sequence[str] = ()) -> list[str]:
    """Of the table of a sweep; `asked`: metrics beside the main ones."""
    return [*KEY, "file", "audio_s", "seconds", "nfe", "passes", *MAIN, *asked, "reason"]


def summarise_cells(rows: pd.DataFrame) -> pd.DataFrame:
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
    return {f"{prefix}{name}{end}": float(rows[column][name]) for name in rows.index for end, column in ends.items()}


def markdown(lines: pd.DataFrame) -> str:
    """The result of `summarise_cells` as a Markdown table that is aligned, so that it can be printed too."""
    table = list_cells(lines)
    return markdown_rows([table.header, *table.rows])


def list_cells(lines: pd.DataFrame, prefixes: Sequence[str] = ("", "d_")) -> Table:
    """A row per cell with its cost; prefixes: "" for the scores themselves, "d_" for the differences to w = 1.

    With the differences alone, cells that have none are left out.
    """
    names, rows = names_in(lines.columns), []
    for _, line in lines.iterrows():
        values = []
        for prefix in prefixes:
            for name in names:
                mean, low, high = (line.get(f"{prefix}{name}{end}", float("nan")) for end in ("", "_low", "_high"))
                text = interval(mean, low, high, METRICS[name].decimals, signed=bool(prefix))
                values.append("" if pd.isna(mean) else text)
        if any(values):
            rows.append([str(line["sampler"]), *_list_costs(line), *values])
    headings = {"": titles(names), "d_": [f"{title} to w = 1" for title in titles(names, prefix="Δ")]}
    return Table("cells", "All cells", [*_HEADER, *(text for prefix in prefixes for text in headings[prefix])], rows)


def _list_costs(line: pd.Series) -> list[str]:
    """Steps, w, interval and cost of a cell; nothing for the noisy files."""
    if not line["nfe"]:
        return [""] * 6
    steps = "" if line["sampler"] == "rk45" else str(line["N"])
    settings = [steps, f"{line['guidance_scale']:g}", str(line["interval"])]
    return [*settings, str(line["nfe"]), str(line["passes"]), f"{line['rtf']:.3f}"]


def draw_curves(lines: pd.DataFrame, path: Path) -> None:
    """Every metric over evaluations and over passes: a curve over the steps for each sampler, scale and interval.

    `lines` come from `summarise_cells`; bars are 95 % intervals.
    """
    cells = lines[lines["nfe"] > 0]
    looks, legend = _choose_looks(cells)
    names = names_in(lines.columns)
    figure = Figure(figsize=(11, 1 + 3.2 * len(names)), dpi=110, layout="constrained")
    panels = figure.subplots(len(names), len(_COSTS), squeeze=False, sharex="col", sharey="row")
    curves = [curve for _, curve in cells.groupby(["sampler", "guidance_scale", "interval"])]
    for metric, row in zip(names, panels, strict=True):
        for cost, axes in zip(_COSTS, row, strict=True):
            for place, curve in enumerate(curves):
                curve = curve.sort_values(cost)
                x = curve[cost] * 2 ** (_SPREAD * ((place + 0.5) / len(curves) - 0.5))  # bars side by side
                ends = [curve[metric] - curve[f"{metric}_low"], curve[f"{metric}_high"] - curve[metric]]
                look = looks[curve.index[0]]
                axes.errorbar(x, curve[metric], yerr=ends, lw=1.4, ms=5, elinewidth=0.7, alpha=0.85, **look)
            _finish(axes, lines, metric, cost)
            axes.label_outer()
    figure.legend(handles=legend, loc="outside right upper", frameon=False)
    save_figure(figure, path)


def draw_pareto(lines: pd.DataFrame, path: Path) -> None:
    """Every metric over passes for all cells; a line joins those that no cheaper or equally dear cell surpasses."""
    cells = lines[lines["nfe"] > 0]
    looks, legend = _choose_looks(cells)
    names = names_in(lines.columns)
    figure = Figure(figsize=(5.5 * len(names), 4.6), dpi=110, layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        best = front(cells, metric)
        axes.plot(best["passes"], best[metric], color="0.3", lw=1.2, drawstyle="steps-post", zorder=1)
        for place, cell in [*cells.iterrows(), *best.iterrows()]:  # the best once more, on top
            fill = looks[place]["color"] if place in best.index else "white"
            axes.plot(cell["passes"], cell[metric], ms=7, mfc=fill, **looks[place])
        for _, cell in best.iterrows():
            where = "" if cell["interval"] == "none" else f", [{cell['interval'].replace(':', ', ')}]"
            text, at = f"w {cell['guidance_scale']:g}, N {cell['N']}{where}", (cell["passes"], cell[metric])
            axes.annotate(text, at, xytext=(-5, 6), textcoords="offset points", fontsize=7.5, ha="right")
        _finish(axes, lines, metric, "passes")
        axes.margins(0.2, 0.12)
    figure.legend(handles=legend, loc="outside right upper", frameon=False)
    save_figure(figure, path)


def front(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells that are better than every cell of as many or fewer passes, by rising passes."""
    goodness = cells[metric] if METRICS[metric].higher_is_better else -cells[metric]
    ordered = cells.assign(goodness=goodness).sort_values(
        ["passes", "goodness"], ascending=[True, False], kind="stable"
    )
    is_best = ordered["goodness"] > ordered["goodness"].cummax().shift(fill_value=-float("inf"))
    return ordered.loc[is_best, cells.columns]


def _choose_looks(cells: pd.DataFrame) -> tuple[dict[object, dict[str, str]], list[Line2D]]:
    """Colour for the guidance scale, line for the interval, marker for the sampler: by cell, and their legend."""
    scales, viridis = sorted(cells["guidance_scale"].unique()), matplotlib.colormaps["viridis"]
    hues = {w: matplotlib.colors.to_hex(viridis(0.9 * i / max(1, len(scales) - 1))) for i, w in enumerate(scales)}
    dashes = dict(zip(cells["interval"].unique(), cycle(("-", "--", ":", "-.")), strict=False))
    markers = dict(zip(cells["sampler"].unique(), cycle("osD^vPX"), strict=False))
    looks = {
        place: {"color": hues[w], "ls": dashes[cell_interval], "marker": markers[sampler]}
        for place, w, cell_interval, sampler in cells[["guidance_scale", "interval", "sampler"]].itertuples()
    }
    legend = [Line2D([], [], color=hue, lw=3, label=f"w = {w:g}") for w, hue in hues.items()]
    for name, dash in dashes.items() if len(dashes) > 1 else []:
        where = "everywhere" if name == "none" else f"in [{name.replace(':', ', ')}]"
        legend.append(Line2D([], [], color="0.3", ls=dash, label=f"guided {where}"))
    if len(markers) > 1:
        legend += [Line2D([], [], color="0.3", ls="", marker=marker, label=name) for name, marker in markers.items()]
    return looks, [*legend, Line2D([], [], color="0.6", lw=1, ls=(0, (6, 3)), label="noisy")]


def _finish(axes: Axes, lines: pd.DataFrame, metric: str, cost: str) -> None:
    """The noisy files' score, the names of both axes, and a cost whose doubling is one step."""
    is_noisy = lines["nfe"] == 0
    for value in lines.loc[is_noisy, metric]:
        axes.axhline(value, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
    axes.set_xscale("log", base=2)
    ticks = sorted(set(lines.loc[~is_noisy, cost]))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel=_COSTS[cost], ylabel=METRICS[metric].title)
    finish_axes(axes)
