"""Figures that reports share: spectrograms, means with their intervals, and paired differences around 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgmse.common.files import save_figure
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.results import NOISY

if TYPE_CHECKING:  # pictures of scores need no torch
    from sgmse.diffusion.adaptive import Familiarity
    from sgmse.diffusion.guidance import GuidanceSettings

RANGE_DB = 80.0
GREY, BETTER, WORSE, OPEN = "0.55", "#1b7f4b", "#b42318", "#3b5bdb"
_WINDOW_S, _HOP_S = 0.032, 0.008
_MAX_COLUMNS = 2000  # of a spectrogram: more do not show in a picture this wide


def spectrum_db(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Power spectrogram in dB [F, T] of `waveform` [N]."""
    window = np.hanning(round(_WINDOW_S * rate))
    hop = max(round(_HOP_S * rate), len(waveform) // _MAX_COLUMNS)
    padded = np.pad(waveform, len(window) // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop] * window
    return 10 * np.log10(np.abs(np.fft.rfft(frames).T) ** 2 + 1e-12)


def draw_spectrum(axes: Axes, spectrum: np.ndarray, seconds: float, rate: int, top_db: float) -> None:
    """A spectrogram [F, T] over s and kHz; colours span the `RANGE_DB` below `top_db`."""
    axes.imshow(
        spectrum,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, seconds, 0, rate / 2000),
        vmin=top_db - RANGE_DB,
        vmax=top_db,
    )
    axes.set(xlabel="s", ylabel="kHz")


def side_by_side(waveforms: Mapping[str, np.ndarray], rate: int) -> Figure:
    """One spectrogram per signal [N], in one row and on one colour scale."""
    spectra = {name: spectrum_db(waveform, rate) for name, waveform in waveforms.items()}
    top = max(float(spectrum.max()) for spectrum in spectra.values())
    figure = Figure(figsize=(3.0 * len(spectra), 2.6), dpi=110, layout="constrained")
    for axes, (name, spectrum) in zip(np.atleast_1d(figure.subplots(1, len(spectra))), spectra.items(), strict=True):
        draw_spectrum(axes, spectrum, len(waveforms[name]) / rate, rate, top)
        axes.set(title=name)
    return figure


def draw_means(scores: pd.DataFrame, path: Path) -> None:
    """The result of `scores.summary`: a panel per metric and a line per system, the noisy files on top."""
    names = list(scores["system"].unique())
    figure = Figure(figsize=(3.7 * len(MAIN), 1.2 + 0.36 * len(names)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(MAIN), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, MAIN, strict=True):
        rows = scores[scores["metric"] == metric].set_index("system").loc[names]
        for place, (name, row) in enumerate(rows.iterrows()):
            draw_interval(axes, row, place, "0.45" if name == NOISY else f"C{(place - 1) % 10}", filled=True)
        if NOISY in names:
            axes.axvline(rows.loc[NOISY, "mean"], color="0.75", lw=1, ls="--", zorder=0)
        axes.set(title=METRICS[metric].title, ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), names)
        finish_axes(axes, "x")
    save_figure(figure, path)


def draw_forest(
    differences: pd.DataFrame, metric: str, thresholds: Mapping[tuple[str, str, str], float], path: Path
) -> None:
    """Differences of `metric` over all files of each set: a panel per set, a line per comparison, 95 % intervals.

    `differences`: the columns experiment, against, set, mean, low, high, and smoke for those that count for nothing. A
    filled point: the interval excludes 0. `thresholds`: what a criterion asks, by experiment, opponent and set.
    """
    sets = list(differences["set"].drop_duplicates())
    pairs = list(dict.fromkeys(zip(differences["experiment"], differences["against"], strict=True)))
    figure = Figure(figsize=(3.0 + 2.9 * len(sets), 1.1 + 0.3 * len(pairs)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, sharex=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        axes.axvline(0, color="0.4", lw=0.9, zorder=0)
        for _, row in differences[differences["set"] == name].iterrows():
            place = pairs.index((row["experiment"], row["against"]))
            wanted = thresholds.get((row["experiment"], row["against"], name))
            if wanted is not None:
                axes.plot([wanted, wanted], [place - 0.5, place + 0.5], color="#e07a1f", lw=1.6, ls=":", zorder=1)
            excludes_zero = row["low"] > 0 or row["high"] < 0
            colour = BETTER if row["low"] > 0 else WORSE if row["high"] < 0 else OPEN
            draw_interval(axes, row, place, GREY if row["smoke"] else colour, filled=excludes_zero)
        axes.set(title=name, xlabel=f"Δ{METRICS[metric].title}", ylim=(len(pairs) - 0.4, -0.6))
        axes.set_yticks(range(len(pairs)), [f"{a} − {b}" for a, b in pairs])
        finish_axes(axes, "x")
    save_figure(figure, path)


def draw_disagreement(deviation: np.ndarray, seconds: float, rate: int, path: Path) -> None:
    """Picture of the standard deviation between samples of a file [F, T], relative to its level, over s and kHz."""
    figure = Figure(figsize=(6.0, 2.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    place: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, rate / 2000)}
    figure.colorbar(axes.imshow(deviation, cmap="magma", vmin=0, vmax=2, **place), ax=axes)
    axes.set(xlabel="s", ylabel="kHz", title="disagreement between samples, relative to the file's level")
    save_figure(figure, path)


def draw_adaptive_scale(
    guidance: GuidanceSettings, familiarity: Familiarity, files: Sequence[tuple[float, float]], path: Path
) -> None:
    """The curve of w over the distance, the training references below it, and files (distance, w) on it."""
    training = familiarity.training()
    furthest = max(1.2 * guidance.adaptive_far, *(1.05 * distance for distance, _ in files), 0.0)
    grid = training.new_tensor(np.linspace(0, furthest, 400))
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot(grid.tolist(), guidance.scale_at(grid).tolist(), color="C0", lw=2)
    upper.plot([x for x, _ in files], [w for _, w in files], "o", color="C1", ms=5, label=f"{len(files)} files")
    upper.set(ylabel="guidance scale w", ylim=(-0.05 * guidance.adaptive_full, 1.1 * guidance.adaptive_full + 0.01))
    upper.legend(frameon=False)
    lower.hist(training.clamp_max(furthest).tolist(), bins=60, range=(0, furthest), color="0.6")
    lower.set(
        xlabel="distance from the training references (1: their 95 % quantile)",
        ylabel=f"{len(training)} training\nreferences",
        xlim=(0, furthest),
    )
    finish_axes(upper, "x")
    finish_axes(lower, "x")
    save_figure(figure, path)


def draw_interval(axes: Axes, row: pd.Series, place: float, colour: str, filled: bool) -> None:
    """The point `row`["mean"] at height `place`, and the bar from low to high."""
    axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=2, solid_capstyle="round")
    axes.plot(row["mean"], place, "o", color=colour, mfc=colour if filled else "white", ms=6, mew=1.5)


def colour(place: int) -> str:
    """The colour of the curve number `place`; ten can be told apart."""
    return matplotlib.colors.to_hex(matplotlib.colormaps["tab10"](place % 10))


def finish_axes(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    """The look of all figures: a light grid behind, no frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.92")
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)
    axes.tick_params(labelsize=9)
