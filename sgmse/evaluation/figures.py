"""Figures that reports share: spectrograms, means with their intervals, and paired differences around 0 (forests)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from sgmse.common.files import save_figure, whole_file
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.results import NOISY

if TYPE_CHECKING:  # pictures of scores need no torch
    from sgmse.diffusion.adaptive import Familiarity
    from sgmse.diffusion.guidance import GuidanceSettings

RANGE_DB = 80.0
GREY, BETTER, WORSE, OPEN = "#8c8c8c", "#1b7f4b", "#b42318", "#3b5bdb"
_WINDOW_S, _HOP_S = 0.032, 0.008
_MAX_COLUMNS = 2000  # of a spectrogram: more do not show in a picture this wide
_PICTURE = (400, 128)  # columns and rows of a picture on a page
_MAP = "magma"
_LABEL = 24  # characters in a line of a label
_TALL = 12  # rows, from which on a panel has its values above, too


def spectrum_db(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Power spectrogram in dB [F, T] of `waveform` [N]."""
    window = np.hanning(round(_WINDOW_S * rate))
    hop = max(round(_HOP_S * rate), len(waveform) // _MAX_COLUMNS)
    padded = np.pad(waveform, len(window) // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop] * window
    return 10 * np.log10(np.abs(np.fft.rfft(frames).T) ** 2 + 1e-12)


def draw_spectrum(axes: Axes, spectrum: np.ndarray, seconds: float, rate: int, top_db: float) -> AxesImage:
    """A spectrogram [F, T] over s and kHz; colours span the `RANGE_DB` below `top_db`."""
    image = axes.imshow(
        spectrum,
        origin="lower",
        aspect="auto",
        cmap=_MAP,
        extent=(0, seconds, 0, rate / 2000),
        vmin=top_db - RANGE_DB,
        vmax=top_db,
    )
    axes.set(xlabel="s", ylabel="kHz")
    return image


def side_by_side(waveforms: Mapping[str, np.ndarray], rate: int, captions: Mapping[str, str] | None = None) -> Figure:
    """One spectrogram per signal [N], in one row, on one dB scale with its bar. captions: a line below the name."""
    spectra = {name: spectrum_db(waveform, rate) for name, waveform in waveforms.items()}
    top = max(float(spectrum.max()) for spectrum in spectra.values())
    lines = max((text.count("\n") + 1 for text in (captions or {}).values()), default=0)
    figure = Figure(figsize=(3.1 * len(spectra) + 0.7, 2.7 + 0.2 * lines), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(spectra), sharey=True))
    for axes, (name, spectrum) in zip(panels, spectra.items(), strict=True):
        image = draw_spectrum(axes, spectrum - top, len(waveforms[name]) / rate, rate, 0.0)
        axes.set_title("\n".join(filter(None, (name, (captions or {}).get(name)))), fontsize=10, loc="left")
        axes.set(xlabel="time in s", ylabel="frequency in kHz")
        axes.label_outer()
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, fraction=0.05 / len(spectra))
    bar.set_label("dB", rotation=0, labelpad=8)
    return figure


def save_spectrum(spectrum: np.ndarray, top_db: float, path: Path) -> None:
    """Picture (WebP) of a power spectrogram in dB [F, T] and nothing else, low frequencies below.

    Colours span the `RANGE_DB` below `top_db`. More points than show in a narrow column are averaged.
    """
    size = min(spectrum.shape[1], _PICTURE[0]), min(spectrum.shape[0], _PICTURE[1])
    pooled = np.asarray(Image.fromarray(spectrum[::-1].astype(np.float32)).resize(size, Image.Resampling.BOX))
    levels = np.clip((pooled - top_db) / RANGE_DB + 1, 0, 1)
    colours = 255 * matplotlib.colormaps[_MAP](levels)[..., :3]
    with whole_file(path) as part:
        Image.fromarray(colours.round().astype(np.uint8)).save(part, "WEBP", quality=70, method=4)


def scale_colours() -> list[str]:
    """The colours of spectrograms from the lower end of the scale to the upper one, as CSS writes them."""
    return [matplotlib.colors.to_hex(matplotlib.colormaps[_MAP](place)) for place in np.linspace(0, 1, 9)]


def draw_intervals(rows: pd.DataFrame, title: str, around: float, path: Path, heading: str = "") -> None:
    """One panel, narrow enough for a phone: a line per row with its mean and 95 % interval.

    rows: the columns label, mean, low, high; colour (of the line, default: grey), is_filled (the point, default: yes),
    and threshold (a mark on the line, NaN: none) where they are known. around: where the vertical line stands (NaN:
    nowhere). title: of the values; heading: above the panel.
    """
    names = [textwrap.fill(str(label), _LABEL, break_on_hyphens=False) for label in rows["label"]]
    height = sum(0.18 + 0.17 * (name.count("\n") + 1) for name in names)
    figure = Figure(figsize=(4.6, 0.75 + height), dpi=170, layout="constrained")
    axes = figure.add_subplot()
    if not math.isnan(around):
        axes.axvline(around, color="0.3", lw=1.1, zorder=1)
    for place, (_, row) in enumerate(rows.iterrows()):
        if not math.isnan(row.get("threshold", math.nan)):
            axes.plot([row["threshold"]] * 2, [place - 0.5, place + 0.5], color="#e07a1f", lw=1.6, ls=":", zorder=1)
        draw_interval(axes, row, place, row.get("colour", GREY), filled=bool(row.get("is_filled", True)))
    axes.tick_params(top=len(names) > _TALL, labeltop=len(names) > _TALL)
    axes.set(xlabel=title, title=heading, ylim=(len(names) - 0.4, -0.6))
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    finish_axes(axes, "x")
    save_figure(figure, path)


def difference_title(metric: str) -> str:
    """Below the axis of a forest plot: what is shown, and which side is the better one."""
    better = "better →" if METRICS[metric].higher_is_better else "← better"
    return f"Δ{METRICS[metric].title}   ({better})"


def judge_differences(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`rows` of differences (low, high) with their verdict, and the colours of a forest plot.

    better, worse: the interval excludes 0, and the point is filled; undecided: it does not, or is not known.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    low, high = sign * rows["low"], sign * rows["high"]
    verdict = np.select([np.minimum(low, high) > 0, np.maximum(low, high) < 0], ["better", "worse"], "undecided")
    colours = pd.Series(verdict, rows.index).map({"better": BETTER, "worse": WORSE, "undecided": OPEN})
    return rows.assign(verdict=verdict, colour=colours, is_filled=verdict != "undecided")


def drawn_metrics(names: Sequence[str]) -> list[str]:
    """Those of some metrics that are drawn and stand beside players: the main ones, if there are; tables hold all."""
    return [name for name in names if name in MAIN] or list(names)


def system_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour per system, the same in all figures of a page and beside the players."""
    systems = [name for name in names if name != NOISY]
    return {name: colour(place) for place, name in enumerate(systems)} | ({NOISY: GREY} if NOISY in names else {})


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
