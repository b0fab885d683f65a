"""The listening page: utterances from the best to the worst, each clean, noisy, with its reference, and as enhanced."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from sgmse.data import audio
from sgmse.data.testsets.build import folder_of
from sgmse.evaluation import figures
from sgmse.evaluation.metrics import FIRST
from sgmse.evaluation.page import choose_items, scores_in_words
from sgmse.experiments.page.run import Run

_COLUMNS, _ROWS = 400, 128  # of a picture: more do not show in a column this narrow
_COLOURS = 64
_MAP = "magma"
_FIXED = ("clean", "noisy")


class _Signal(NamedTuple):
    """One column of a row: the file that is heard, and the scores that are written above it."""

    file: Path
    scores: str = ""
    pesq: float | None = None


class _Row(NamedTuple):
    """One utterance: its results of the noisy file, and its signals by column ("clean", …, an experiment's ID)."""

    set: str
    row: pd.Series
    signals: dict[str, _Signal]


def write(run: Run, seed: int, out: Path, max_items: int) -> dict[str, Any]:
    """Draw and copy the sounds of at most `max_items` utterances per set into `out`/media.

    Returns what the page's script reads; without "items" nothing enhanced was found.
    """
    shown = run.enhanced[run.enhanced["seed"] == seed]
    experiments = [name for name in run.experiments if name in set(shown["experiment"])]
    if not experiments:
        return {"items": []}
    conditioned = [name for name in experiments if run.experiments[name].baseline]
    default = (conditioned or experiments)[0]
    rows = []
    for name in shown["set"].drop_duplicates():
        own = shown[shown["set"] == name]
        ranked_by = next(e for e in (default, *conditioned, *experiments) if e in set(own["experiment"]))
        for file in choose_items(_gains(run, own, ranked_by).dropna(), max_items):
            rows.append(_row(run, own[own["file"] == file], name, seed))
    items = [
        _item(row, f"media/{row.set}/{place:03d}", out)
        for place, row in enumerate(tqdm(rows, desc="spectrograms", unit="row", disable=None))
        if all(column in row.signals for column in _FIXED)
    ]
    data = {"default": default, "seed": seed, "experiments": _choices(run, experiments, seed), "items": items}
    return data | {"page": f"votes-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]}"}


def colours() -> list[str]:
    """The colours of the scale from its lower end to its upper one, as CSS writes them."""
    return [matplotlib.colors.to_hex(matplotlib.colormaps[_MAP](place)) for place in np.linspace(0, 1, 9)]


def _gains(run: Run, rows: pd.DataFrame, experiment: str) -> pd.Series:
    """The score of an experiment minus that of its baseline, or of the noisy files where that was not run; by file."""
    before = rows[rows["experiment"] == run.experiments[experiment].baseline]
    if before.empty:
        before = run.noisy[run.noisy["set"] == rows["set"].iloc[0]]
    own, other = (some.set_index("file")[FIRST] for some in (rows[rows["experiment"] == experiment], before))
    return own - other


def _row(run: Run, rows: pd.DataFrame, set_name: str, seed: int) -> _Row:
    """Everything there is of one file; `rows` are its scores, one per experiment."""
    file, folder = rows["file"].iloc[0], run.set_folder(set_name)
    noisy = run.noisy[(run.noisy["set"] == set_name) & (run.noisy["file"] == file)]
    found = {"clean": folder / "clean", "noisy": folder / "noisy"}
    found |= {name: folder / folder_of(name.removeprefix("reference ")) for name in map(reference, rows["reference"])}
    found |= {name: run.folder / "enhanced" / name / f"seed{seed}" / set_name for name in rows["experiment"]}
    scores = {"noisy": noisy, **{name: own for name, own in rows.groupby("experiment")}}
    signals = {}
    for name, where in found.items():
        path = next((p for s in audio.AUDIO_SUFFIXES if (p := where / f"{file}{s}").is_file()), None)
        if path is not None:
            row = scores[name].iloc[0] if name in scores and len(scores[name]) else None
            signals[name] = _Signal(path) if row is None else _Signal(path, scores_in_words(row), _finite(row[FIRST]))
    return _Row(set_name, (noisy if len(noisy) else rows).iloc[0], signals)


def reference(protocol: object) -> str:
    """The column of the references under a protocol; those made from the noisy file itself have no folder."""
    return f"reference {protocol}"


def _item(row: _Row, stem: str, out: Path) -> dict[str, Any]:
    """Write the pictures and sounds of a row; all share the colour scale that the noisy file sets."""
    rate = audio.info(row.signals["clean"].file).sample_rate
    waveforms = {name: audio.read(signal.file, rate) for name, signal in row.signals.items()}
    spectra = {name: figures.spectrum_db(waveform, rate) for name, waveform in waveforms.items()}
    top = float(spectra["noisy"].max())
    panels = {}
    for name, signal in row.signals.items():
        place = f"{stem}_{name.replace(' ', '_')}"
        sound = f"{place}{signal.file.suffix.lower()}"
        (out / sound).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(signal.file, out / sound)
        draw(spectra[name], top, out / f"{place}.png")
        panels[name] = {
            "picture": f"{place}.png",
            "sound": sound,
            "seconds": round(len(waveforms[name]) / rate, 4),
            "scores": signal.scores,
            "pesq": signal.pesq,
        }
    kind, snr = row.row["kind"], _finite(row.row["snr_db"])
    facts = {"kind": "" if pd.isna(kind) else str(kind), "snr": snr, "khz": rate / 2000}
    return {"set": row.set, "file": str(row.row["file"]), **facts, "panels": panels}


def draw(spectrum: np.ndarray, top_db: float, path: Path) -> None:
    """Picture of a power spectrogram in dB [F, T] and nothing else: low frequencies below, a palette, few colours."""
    pooled = _pooled(_pooled(spectrum, _ROWS).T, _COLUMNS).T[::-1]
    levels = np.clip((pooled - top_db) / figures.RANGE_DB + 1, 0, 1) * (_COLOURS - 1)
    image = Image.frombytes("P", (levels.shape[1], levels.shape[0]), levels.round().astype(np.uint8).tobytes())
    palette = 255 * matplotlib.colormaps[_MAP](np.linspace(0, 1, _COLOURS))[:, :3]
    image.putpalette(palette.round().astype(np.uint8).tobytes())
    image.save(path, optimize=True)


def _pooled(values: np.ndarray, limit: int) -> np.ndarray:
    """`values` [R, C] averaged over neighbouring rows, so that at most `limit` rows are left."""
    starts = np.unique(np.linspace(0, len(values), limit, endpoint=False).astype(int))
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(values, starts, axis=0) / counts[:, None]


def _choices(run: Run, experiments: list[str], seed: int) -> list[dict[str, Any]]:
    """The experiments that can be chosen on the page, each with its baseline and what is to be known of it."""
    pesq = {name: run.choices[name, seed]["pesq"] for name in experiments if (name, seed) in run.choices}
    best = max((name for name in pesq if run.experiments[name].baseline), key=lambda name: pesq[name], default=None)
    found = []
    for name in experiments:
        own = run.enhanced[run.enhanced["experiment"] == name]
        baseline = run.experiments[name].baseline
        remarks = ["best on validation"] * (name == best) + ["smoke: random encoder"] * bool(own["smoke"].any())
        label = f"{name} against {baseline}" if baseline else f"{name}, no reference"
        label += f" ({'; '.join(remarks)})" if remarks else ""
        column = reference(own["reference"].iloc[0])
        found.append({"id": name, "baseline": baseline, "reference": column, "label": label})
    return found


def _finite(value: Any) -> float | None:
    """`value` as JSON can hold it."""
    return None if value is None or not math.isfinite(value) else float(value)
