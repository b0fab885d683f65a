"""Pages to look at and listen to: HTML with tables, spectrograms and players, readable without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.files import explain_failure, save_figure, write_text
from sgmse.data import audio
from sgmse.evaluation import figures, scores
from sgmse.evaluation.metrics import FIRST, MAIN, METRICS
from sgmse.evaluation.tables import Table, number, scores_table


def write_page(
    out_dir: Path,
    frame: pd.DataFrame,
    systems: Mapping[str, Path],
    clean_dir: Path,
    noisy_dir: Path | None = None,
    ref_dir: Path | None = None,
    max_items: int = 6,
    title: str = "Speech enhancement",
) -> Path:
    """Write `out_dir`/index.html, overview.png and copies of the sounds of a few files. Returns the page's path.

    `frame` comes from `scores.evaluate` with the same folders, which are named there beside the settings in each
    system's run.json.
    """
    named = {"clean": clean_dir, scores.NOISY: noisy_dir, "reference": ref_dir, **systems}
    folders = {name: folder for name, folder in named.items() if folder is not None}
    versions = {name: scores.match(clean_dir, folder, name) for name, folder in folders.items()}
    runs = {name: values for name, folder in systems.items() if (values := scores.run_settings(folder))}
    means = scores.summary(frame)
    with explain_failure(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        figures.draw_means(means, out_dir / "overview.png")
        items = [
            _write_item(out_dir, number, key, versions, frame)
            for number, key in enumerate(choose_items(_gains(frame), max_items), start=1)
        ]
    write_html(
        out_dir / "index.html",
        "page.html",
        title=title,
        num_files=frame["file"].nunique(),
        minutes=frame.drop_duplicates("file")["seconds"].sum() / 60,
        tables=_tables(frame, means),
        items=items,
        ranked_by=frame["system"].iloc[-1],
        folders=folders,
        runs=runs,
    )
    return out_dir / "index.html"


def write_html(path: Path, template: str, **values: Any) -> None:
    """Fill a template of the folder templates. What all pages need of our constants is known to it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("sgmse") / "evaluation" / "templates")),
        autoescape=True,
        trim_blocks=True,
    )
    shared = {"range_db": round(figures.RANGE_DB), "ranking": METRICS[FIRST].title}
    write_text(path, environment.get_template(template).render(shared | values))


def json_for_script(data: object) -> markupsafe.Markup:
    """`data` as the text of a script element, which nothing in it can end or open anew."""
    return markupsafe.Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


def choose_items(gains: pd.Series, max_items: int) -> list[str]:
    """Files spread evenly over the ranking by `gains` (indexed by file), the worst and the best among them."""
    ranked = gains.sort_values(kind="stable").index
    places = np.unique(np.linspace(0, len(ranked) - 1, min(max_items, len(ranked))).round().astype(int))
    return [str(ranked[place]) for place in places]


def scores_in_words(row: pd.Series) -> str:
    """`PESQ 2.123 · ESTOI …` of one file."""
    parts = [f"{METRICS[name].title.split()[0]} {number(row[name], METRICS[name].decimals)}" for name in MAIN]
    units = [METRICS[name].title.partition(" ")[2] for name in MAIN]
    return " · ".join(f"{part} {unit}".rstrip() for part, unit in zip(parts, units, strict=True))


def _gains(frame: pd.DataFrame) -> pd.Series:
    """Of the last system over the noisy files, by file, in the metric of rankings."""
    by_system = frame.pivot(index="file", columns="system", values=FIRST)
    gain = by_system[frame["system"].iloc[-1]]
    if scores.NOISY in by_system and frame["system"].nunique() > 1:
        gain = gain - by_system[scores.NOISY]
    return gain


def _tables(frame: pd.DataFrame, means: pd.DataFrame) -> list[Table]:
    """The means, then the differences to the noisy files."""
    systems = [name for name in frame["system"].unique() if name != scores.NOISY]
    tables = [scores_table(means, "means", "Mean over files")]
    if scores.NOISY in set(frame["system"]) and systems:
        gains = pd.concat([scores.paired(frame, name, scores.NOISY) for name in systems])
        tables.append(scores_table(gains, "gains", "Gain over the noisy files"))
    return tables


def _write_item(
    out_dir: Path, number: int, key: str, versions: Mapping[str, Mapping[str, Path]], frame: pd.DataFrame
) -> dict[str, Any]:
    """Draw and copy every version of one file; all pictures share the colour scale that the noisy file sets."""
    rate = audio.info(versions["clean"][key]).sample_rate
    spectra = {name: figures.spectrum_db(audio.read(files[key], rate), rate) for name, files in versions.items()}
    top = float(spectra[scores.NOISY if scores.NOISY in spectra else "clean"].max())
    panels = []
    for place, (name, paths) in enumerate(versions.items()):
        stem = f"{number:02d}_{place:02d}"  # names of systems may hold anything, and two may differ in one sign
        picture, sound = f"pictures/{stem}.png", f"audio/{stem}{paths[key].suffix.lower()}"
        figure = Figure(figsize=(3.4, 2.3), dpi=130, layout="constrained")
        figures.draw_spectrum(figure.add_subplot(), spectra[name], audio.info(paths[key]).seconds, rate, top)
        save_figure(figure, out_dir / picture)
        (out_dir / sound).parent.mkdir(exist_ok=True)
        shutil.copyfile(paths[key], out_dir / sound)
        row = frame[(frame["system"] == name) & (frame["file"] == key)]
        words = scores_in_words(row.iloc[0]) if len(row) else ""
        panels.append({"title": name, "picture": picture, "sound": sound, "scores": words})
    return {"name": key, "panels": panels}
