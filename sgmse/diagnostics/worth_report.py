"""The map of where a reference pays, as text and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sgmse.common.files import save_figure
from sgmse.diagnostics.differences import METRICS, told
from sgmse.diagnostics.use_plot import draw_interval
from sgmse.diagnostics.verdict import SMALL
from sgmse.diagnostics.worth import ALL, DATA, REFERENCE, WRONG, Gain, by_group
from sgmse.evaluation.sweep_table import aligned

_COLOURS = {REFERENCE: "C0", WRONG: "0.6", DATA: "C1"}  # the differences that are drawn
_MOST_PESQ = 0.3  # the ends of the colour scale


def markdown(found: Sequence[Gain], trainings: Sequence[Sequence[str]]) -> str:
    """Tables aligned so that they can be printed: the trainings; every difference by set; what the reference adds by
    class and by SNR."""
    parts = ["# Where a reference pays", aligned(trainings)]
    for metric in SMALL:
        parts += [f"## {METRICS[metric]}", _by_set(found, metric)]
    for by, chosen in by_group(found).items():
        known = [gain.values["pesq"] for gain in chosen if gain.values["pesq"].is_known]
        outside = sum(one.excludes_zero for one in known)
        chance = f"where nothing is, {0.05 * len(known):.1f} would on average"
        counted = f"{outside} of {len(known)} intervals exclude 0; {chance}."
        parts += [f"## {chosen[0].what} by {by}, PESQ", counted, _by_group(chosen, by)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _by_set(found: Sequence[Gain], metric: str) -> str:
    whole = [gain for gain in found if gain.by == ALL]
    sets = list(dict.fromkeys(gain.test_set for gain in whole))
    cells = {(gain.training, gain.what, gain.test_set): gain.values[metric] for gain in whole}
    lines = [["training", "difference", *sets]]
    for training, what in dict.fromkeys((gain.training, gain.what) for gain in whole):
        row = [cells.get((training, what, one)) for one in sets]
        lines.append([training, what, *("" if one is None else told(one, metric) for one in row)])
    return aligned(lines)


def _by_group(chosen: Sequence[Gain], by: str) -> str:
    trainings = list(dict.fromkeys(gain.training for gain in chosen))
    cells = {(gain.test_set, gain.group, gain.training): gain.values["pesq"] for gain in chosen}
    lines = [["set", by, "files", *trainings]]
    for test_set, group in _rows(chosen):
        row = [cells.get((test_set, group, training)) for training in trainings]
        files = max(one.n_files for one in row if one is not None)
        lines.append([test_set, group, str(files), *("" if one is None else told(one) for one in row)])
    return aligned(lines)


def _rows(chosen: Sequence[Gain]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((gain.test_set, gain.group) for gain in chosen))


def write_map(found: Sequence[Gain], path: Path) -> None:
    """A panel per set and metric: what the reference adds to each training, beside what the training itself does."""
    whole = [gain for gain in found if gain.by == ALL and gain.pair in _COLOURS]
    sets = list(dict.fromkeys(gain.test_set for gain in whole))
    trainings = list(dict.fromkeys(gain.training for gain in whole))
    kinds = [pair for pair in _COLOURS if any(gain.pair == pair for gain in whole)]
    figure = Figure(figsize=(1.6 + 2.9 * len(sets), 6.6), dpi=110, layout="constrained")
    panels = figure.subplots(len(SMALL), len(sets), sharex=True, sharey="row", squeeze=False)
    for row, (metric, small) in zip(panels, SMALL.items(), strict=True):
        for axes, test_set in zip(row, sets, strict=True):
            axes.axhspan(-small, small, color="0.94", zorder=0)
            axes.axhline(0, color="0.6", lw=1, zorder=1)
            for gain in whole:
                if gain.test_set == test_set:
                    place = trainings.index(gain.training) + 0.17 * (kinds.index(gain.pair) - (len(kinds) - 1) / 2)
                    draw_interval(axes, place, gain.values[metric], _COLOURS[gain.pair], upright=True)
            axes.set_xticks(range(len(trainings)), trainings)
            axes.set_xlim(-0.5, len(trainings) - 0.5)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"Δ {METRICS[metric]}, 95 % interval")
    for axes, test_set in zip(panels[0], sets, strict=True):
        axes.set_title(test_set)
    names = {gain.pair: gain.what for gain in whole}
    marks = [panels[0, 0].plot([], [], "o-", color=_COLOURS[pair], label=names[pair])[0] for pair in kinds]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(kinds), frameon=False)
    save_figure(figure, path)


def write_groups(chosen: Sequence[Gain], path: Path) -> None:
    """Gains in PESQ, a row per set and group of files, a column per training; bold where the interval excludes 0."""
    rows, trainings = _rows(chosen), list(dict.fromkeys(gain.training for gain in chosen))
    values = np.full((len(rows), len(trainings)), np.nan)
    figure = Figure(figsize=(3.4 + 1.35 * len(trainings), 1.4 + 0.27 * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for gain in chosen:
        row, column = rows.index((gain.test_set, gain.group)), trainings.index(gain.training)
        one = gain.values["pesq"]
        values[row, column] = one.mean
        if one.mean == one.mean:
            weight = "bold" if one.excludes_zero else "normal"
            dark = abs(one.mean) > 0.7 * _MOST_PESQ
            colour = "white" if dark else "black"
            axes.text(
                column, row, f"{one.mean:+z.2f}", ha="center", va="center", weight=weight, color=colour, fontsize=9
            )
    image = axes.imshow(values, cmap="RdBu", vmin=-_MOST_PESQ, vmax=_MOST_PESQ, aspect="auto")
    axes.set_xticks(range(len(trainings)), trainings)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [f"{test_set}: {group}" for test_set, group in rows])
    for row in range(1, len(rows)):
        if rows[row][0] != rows[row - 1][0]:
            axes.axhline(row - 0.5, color="black", lw=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"Δ PESQ, {chosen[0].what}", shrink=min(1.0, 6 / len(rows)))
    save_figure(figure, path)
