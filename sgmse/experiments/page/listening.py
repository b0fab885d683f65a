"""The listening page: utterances from the best to the worst, each clean, noisy, with its reference, and as enhanced."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from sgmse.common.progress import track
from sgmse.data import audio, containers
from sgmse.data.testsets.build import folder_of
from sgmse.evaluation import figures
from sgmse.evaluation.metrics import FIRST
from sgmse.evaluation.page import choose_items, scores_in_words
from sgmse.experiments.results import Run

_COLUMNS, _ROWS = 400, 128  # of a picture: more do not show in a column this narrow
_COLOURS = 64
_MAP = "magma"


def write_items(run: Run, seed: int, out: Path, max_items: int) -> dict[str, Any]:
    """Draw and copy the sounds of at most `max_items` utterances per set into `out`/media.

    Returns what the page's script reads; without "items" nothing enhanced was found.
    """
    shown = run.enhanced[run.enhanced["seed"] == seed]
    experiments = list(shown["experiment"].drop_duplicates())
    if not experiments:
        return {"items": []}
    conditioned = [name for name in experiments if run.plan.experiments[name].baseline]
    default = (conditioned or experiments)[0]
    chosen = []
    for name in shown["set"].drop_duplicates():
        own = shown[shown["set"] == name]
        ranked_by = next(e for e in (default, *conditioned, *experiments) if e in set(own["experiment"]))
        files = choose_items(_gains(run, own, ranked_by).dropna(), max_items)
        chosen += [(str(name), place, own[own["file"] == file]) for place, file in enumerate(files)]
    items = []
    for name, place, rows in track(chosen, len(chosen), "spectrograms", "row"):
        item = _write_item(run, rows, name, seed, out, f"media/{name}/{place:03d}")
        items += [item] if item else []
    data = {"default": default, "seed": seed, "experiments": _list_choices(run, experiments, seed), "items": items}
    return data | {"page": f"votes-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]}"}


def colours() -> list[str]:
    """The colours of the scale from its lower end to its upper one, as CSS writes them."""
    return [matplotlib.colors.to_hex(matplotlib.colormaps[_MAP](place)) for place in np.linspace(0, 1, 9)]


def _gains(run: Run, rows: pd.DataFrame, experiment: str) -> pd.Series:
    """The score of an experiment minus that of its baseline, or of the noisy files where that was not run; by file."""
    before = rows[rows["experiment"] == run.plan.experiments[experiment].baseline]
    if before.empty:
        before = run.noisy[run.noisy["set"] == rows["set"].iloc[0]]
    own, other = (some.set_index("file")[FIRST] for some in (rows[rows["experiment"] == experiment], before))
    return own - other


def _write_item(run: Run, rows: pd.DataFrame, set_name: str, seed: int, out: Path, stem: str) -> dict[str, Any] | None:
    """Write the pictures and sounds of a file; all share the colour scale that the noisy one sets.

    `rows`: its scores, one per experiment. None where its clean or its noisy sound is not there.
    """
    file, folder = rows["file"].iloc[0], run.folder / "sets" / set_name
    noisy = run.noisy[(run.noisy["set"] == set_name) & (run.noisy["file"] == file)]
    folders = {"clean": folder / "clean", "noisy": folder / "noisy"}
    folders |= {_reference(protocol): folder / folder_of(protocol) for protocol in rows["reference"]}
    folders |= {name: run.folder / "enhanced" / name / f"seed{seed}" / set_name for name in rows["experiment"]}
    sounds = {
        name: path
        for name, where in folders.items()
        for path in [where / f"{file}{suffix}" for suffix in containers.FORMATS]
        if path.is_file()
    }
    if not {"clean", "noisy"} <= sounds.keys():
        return None
    scores = {row["experiment"]: row for _, row in pd.concat([noisy, rows]).iterrows()}
    rate = audio.info(sounds["clean"]).sample_rate
    waveforms = {name: audio.read(path, rate) for name, path in sounds.items()}
    spectra = {name: figures.spectrum_db(waveform, rate) for name, waveform in waveforms.items()}
    panels = {}
    for name, path in sounds.items():
        place, row = f"{stem}_{name.replace(' ', '_')}", scores.get(name)
        sound, picture = f"{place}{path.suffix.lower()}", f"{place}.png"
        (out / sound).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / sound)
        draw(spectra[name], float(spectra["noisy"].max()), out / picture)
        length = {"picture": picture, "sound": sound, "seconds": round(len(waveforms[name]) / rate, 4)}
        known = {
            "scores": "" if row is None else scores_in_words(row),
            "pesq": None if row is None else _finite(row[FIRST]),
        }
        panels[name] = length | known
    facts = (noisy if len(noisy) else rows).iloc[0]
    kind = "" if pd.isna(facts["kind"]) else str(facts["kind"])
    shown = {"kind": kind, "snr": _finite(facts["snr_db"]), "khz": rate / 2000, "panels": panels}
    return {"set": set_name, "file": str(file), **shown}


def _reference(protocol: object) -> str:
    """The column of the references under a protocol; those made from the noisy file itself have no folder."""
    return f"reference {protocol}"


def draw(spectrum: np.ndarray, top_db: float, path: Path) -> None:
    """Picture of a power spectrogram in dB [F, T] and nothing else: low frequencies below, a palette, few colours."""
    size = min(spectrum.shape[1], _COLUMNS), min(spectrum.shape[0], _ROWS)
    pooled = np.asarray(Image.fromarray(spectrum[::-1].astype(np.float32)).resize(size, Image.Resampling.BOX))
    levels = np.clip((pooled - top_db) / figures.RANGE_DB + 1, 0, 1) * (_COLOURS - 1)
    image = Image.frombytes("P", (levels.shape[1], levels.shape[0]), levels.round().astype(np.uint8).tobytes())
    palette = 255 * matplotlib.colormaps[_MAP](np.linspace(0, 1, _COLOURS))[:, :3]
    image.putpalette(palette.round().astype(np.uint8).tobytes())
    image.save(path, optimize=True)


def _list_choices(run: Run, experiments: list[str], seed: int) -> list[dict[str, Any]]:
    """The experiments that can be chosen on the page, each with its baseline and what is to be known of it."""
    pesq = {name: run.choices[name, seed]["pesq"] for name in experiments if (name, seed) in run.choices}
    best = max((name for name in pesq if run.plan.experiments[name].baseline), key=pesq.__getitem__, default=None)
    found = []
    for name in experiments:
        baseline = run.plan.experiments[name].baseline
        remarks = ["best on validation"] if name == best else []
        remarks += ["smoke: random encoder"] if name in run.smoke else []
        label = f"{name} against {baseline}" if baseline else f"{name}, no reference"
        label += f" ({'; '.join(remarks)})" if remarks else ""
        column = _reference(run.enhanced.loc[run.enhanced["experiment"] == name, "reference"].iloc[0])
        found.append({"id": name, "baseline": baseline, "reference": column, "label": label})
    return found


def _finite(value: Any) -> float | None:
    """`value` as JSON can hold it."""
    return None if pd.isna(value) or not math.isfinite(value) else float(value)
