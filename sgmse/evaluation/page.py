"""A page to look at and listen to: index.html with tables, spectrograms and players, readable without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.evaluation import scores as evaluation

_TEMPLATES = Path(__file__).parent / "templates"
RANGE_DB = 80.0
_WINDOW_S, _HOP_S = 0.032, 0.008
_MAX_COLUMNS = 2000  # of a spectrogram: more do not show in a picture this wide


@dataclass(frozen=True)
class _Panel:
    """One signal of an item: what is seen, heard and scored. Paths are relative to the page."""

    title: str
    picture: str
    sound: str
    scores: str


@dataclass(frozen=True)
class _Item:
    """One file of the set in all its versions."""

    name: str
    panels: list[_Panel]


def write_page(
    out_dir: Path,
    frame: pd.DataFrame,
    systems: Mapping[str, Path],
    clean_dir: Path,
    noisy_dir: Path | None = None,
    ref_dir: Path | None = None,
    max_items: int = 6,
    title: str = "Speech enhancement",
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write `out_dir`/index.html, overview.png and copies of the sounds of a few files. Returns the page's path.

    `frame` comes from `evaluation.evaluate` with the same folders. `settings` are shown as they are; those in each
    system's run.json are added.
    """
    folders: dict[str, Path | None] = {"clean": clean_dir, evaluation.NOISY: noisy_dir, "reference": ref_dir}
    sources = {
        name: evaluation.match(clean_dir, folder, name)
        for name, folder in {**folders, **systems}.items()
        if folder is not None
    }
    runs = {name: values for name, folder in systems.items() if (values := evaluation.run_settings(folder))}
    means = evaluation.summary(frame)
    page = out_dir / "index.html"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        _draw_overview(means, out_dir / "overview.png")
        keys = choose_items(frame, max_items)
        items = [_write_item(out_dir, number, key, sources, frame) for number, key in enumerate(keys, start=1)]
        page.write_text(_html(frame, means, items, title, dict(settings or {}), runs), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out_dir}: the page cannot be written ({error.strerror}); check the folder") from error
    return page


def choose_items(frame: pd.DataFrame, max_items: int) -> list[str]:
    """Files spread evenly over the ranking by the PESQ gain of the last system, from the worst to the best."""
    by_system = frame.pivot(index="file", columns="system", values="pesq")
    gain = by_system[frame["system"].iloc[-1]]
    if evaluation.NOISY in by_system and frame["system"].nunique() > 1:
        gain = gain - by_system[evaluation.NOISY]
    ranked = gain.sort_values(kind="stable").index
    places = np.unique(np.linspace(0, len(ranked) - 1, min(max_items, len(ranked))).round().astype(int))
    return [str(ranked[place]) for place in places]


def _html(
    frame: pd.DataFrame,
    means: pd.DataFrame,
    items: list[_Item],
    title: str,
    settings: Mapping[str, object],
    runs: Mapping[str, Mapping[str, object]],
) -> str:
    """The page's text, filled into the template."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    return environment.get_template("page.html").render(
        title=title,
        num_files=frame["file"].nunique(),
        minutes=frame.drop_duplicates("file")["seconds"].sum() / 60,
        tables=_tables(frame, means),
        items=items,
        ranked_by=frame["system"].iloc[-1],
        range_db=round(RANGE_DB),
        settings=settings,
        runs=runs,
    )


def _write_item(
    out_dir: Path, number: int, key: str, sources: Mapping[str, Mapping[str, Path]], frame: pd.DataFrame
) -> _Item:
    """Draw and copy every version of one file; all pictures share the colour scale that the noisy file sets."""
    rate = audio.info(sources["clean"][key]).sample_rate
    spectra = {name: spectrum_db(audio.read(files[key], rate), rate) for name, files in sources.items()}
    top = float(spectra[evaluation.NOISY if evaluation.NOISY in spectra else "clean"].max())
    panels = []
    for name, files in sources.items():
        stem = f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}"
        picture, sound = Path("pictures", f"{stem}.png"), Path("audio", f"{stem}{files[key].suffix.lower()}")
        for relative in (picture, sound):
            (out_dir / relative).parent.mkdir(exist_ok=True)
        seconds = audio.info(files[key]).seconds
        _draw_spectrum(spectra[name], seconds, rate, top, out_dir / picture)
        shutil.copyfile(files[key], out_dir / sound)
        panels.append(_Panel(name, picture.as_posix(), sound.as_posix(), _scores(frame, name, key)))
    return _Item(key, panels)


def _scores(frame: pd.DataFrame, system: str, key: str) -> str:
    """Scores of one file in words; empty for signals that are not scored."""
    rows = frame[(frame["system"] == system) & (frame["file"] == key)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    values = {"PESQ": f"{row['pesq']:.2f}", "ESTOI": f"{row['estoi']:.2f}", "SI-SDR": f"{row['si_sdr']:z.1f} dB"}
    return " · ".join(f"{name} {value.replace('nan', '–')}" for name, value in values.items())


def _tables(frame: pd.DataFrame, means: pd.DataFrame) -> list[tuple[str, evaluation.TableText]]:
    """The means, then the differences to the noisy files, each with its caption."""
    systems = [name for name in frame["system"].unique() if name != evaluation.NOISY]
    tables = [("Mean over files", means)]
    if evaluation.NOISY in set(frame["system"]) and systems:
        gains = pd.concat([evaluation.paired(frame, name, evaluation.NOISY) for name in systems])
        tables.append(("Gain over the noisy files", gains))
    return [(caption, evaluation.table_text(table)) for caption, table in tables]


def spectrum_db(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Power spectrogram in dB [F, T] of `waveform` [N]."""
    window = np.hanning(round(_WINDOW_S * rate))
    hop = max(round(_HOP_S * rate), len(waveform) // _MAX_COLUMNS)
    padded = np.pad(waveform, len(window) // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop] * window
    return 10 * np.log10(np.abs(np.fft.rfft(frames).T) ** 2 + 1e-12)


def _draw_spectrum(spectrum: np.ndarray, seconds: float, rate: int, top_db: float, path: Path) -> None:
    """Picture of a spectrogram [F, T] over s and kHz; colours span the `RANGE_DB` below `top_db`."""
    figure = Figure(figsize=(3.4, 2.3), dpi=130, layout="constrained")
    axes = figure.add_subplot()
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
    figure.savefig(path)


def _draw_overview(table: pd.DataFrame, path: Path) -> None:
    """Means with their intervals, a panel per metric and a line per system, the noisy files on top."""
    names = list(table["system"].unique())
    figure = Figure(figsize=(11, 1.2 + 0.36 * len(names)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(evaluation.MAIN), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, evaluation.MAIN, strict=True):
        rows = table[table["metric"] == metric].set_index("system").loc[names]
        for place, (name, row) in enumerate(rows.iterrows()):
            colour = "0.45" if name == evaluation.NOISY else f"C{(place - 1) % 10}"
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=2.2, solid_capstyle="round")
            axes.plot(row["mean"], place, "o", color=colour, ms=7)
        if evaluation.NOISY in names:
            axes.axvline(rows.loc[evaluation.NOISY, "mean"], color="0.75", lw=1, ls="--", zorder=0)
        axes.set_title(evaluation.TITLES[metric], fontsize=11)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    figure.savefig(path)


def side_by_side(waveforms: Mapping[str, np.ndarray], rate: int) -> Figure:
    """One spectrogram per signal [N], in one row and on one colour scale."""
    spectra = {name: spectrum_db(waveform, rate) for name, waveform in waveforms.items()}
    top = max(float(spectrum.max()) for spectrum in spectra.values())
    figure = Figure(figsize=(3.0 * len(spectra), 2.6), dpi=110, layout="constrained")
    for axes, (name, spectrum) in zip(np.atleast_1d(figure.subplots(1, len(spectra))), spectra.items(), strict=True):
        seconds = len(waveforms[name]) / rate
        extent = (0, seconds, 0, rate / 2000)
        axes.imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=top - RANGE_DB, vmax=top)
        axes.set(title=name, xlabel="s", ylabel="kHz")
    return figure
