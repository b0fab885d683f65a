"""Recordings to look at and listen to: an excerpt of every version of a file, at one moment, level and colour scale.

What a page shows of a file is an item: a dictionary that the script of the page reads (`write_versions`). Which systems
it compares is a view (`make_views`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from sgmse.data import audio
from sgmse.evaluation import figures
from sgmse.evaluation.metrics import METRICS
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.scores import REMOVED
from sgmse.evaluation.tables import NOTHING, number

CLEAN, REFERENCE = "clean", "reference"
EXCERPT_S = 5.0  # of a file, so that a page of many systems stays light
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_COMPRESSION = 0.83  # of Opus: about 50 kbit/s, at which it is hard to tell from the file itself
_PEAK = 0.99
_MOST_PAIRED = 6  # systems, of which every pair can be chosen
_STEP_S = 0.25  # between excerpts among which the one with the most energy is taken


def has_opus() -> bool:
    """Whether the installed libsndfile writes Opus; otherwise sounds are FLAC, ten times as heavy."""
    return bool(soundfile.check_format("OGG", "OPUS"))


def estimate_bytes(seconds: float) -> float:
    """What an excerpt and its picture weigh, about; measured on 16 kHz speech."""
    return (7_000 if has_opus() else 20_000) * seconds + 9_000


def choose_items(gains: pd.Series, max_items: int) -> list[str]:
    """Files spread evenly over the ranking by `gains` (indexed by file), the worst and the best among them."""
    ranked = gains.sort_values(kind="stable").index
    places = np.unique(np.linspace(0, len(ranked) - 1, min(max_items, len(ranked))).round().astype(int))
    return [str(ranked[place]) for place in places]


def make_views(systems: Sequence[str], has_noisy: bool) -> list[dict[str, Any]]:
    """What can be compared: all systems, each with each (the later against the earlier), each with the noisy files.

    A view holds its label, the `systems` in its columns, and `against`, which the gain of the last one is over.
    """
    if not systems:
        systems, has_noisy = [NOISY], False
    pairs = list(combinations(systems, 2))
    if len(systems) > _MOST_PAIRED:
        pairs = pairs[: len(systems) - 1]  # those with the first one
    noisy = NOISY if has_noisy else None
    views = []
    if len(systems) != 2:  # of two, the pair is all
        label = f"all {len(systems)} systems" if len(systems) > 1 else systems[0]
        views.append({"label": label, "systems": list(systems), "against": noisy})
    views += [{"label": f"{b} against {a}", "systems": [a, b], "against": a} for a, b in pairs]
    views += [{"label": f"{s} against {NOISY}", "systems": [NOISY, s], "against": NOISY} for s in systems if has_noisy]
    return [{"id": str(place), "reference": REFERENCE, **view} for place, view in enumerate(views)]


def write_versions(
    out: Path, stem: str, sounds: Mapping[str, Path], excerpt_s: float = EXCERPT_S, removed_by: Sequence[str] = ()
) -> dict[str, Any]:
    """Write picture and sound of every version of a file below `out`, and return the item without its facts.

    Versions as long as the noisy file (else the clean one) are cut at the same moment, `excerpt_s` with the most
    energy; others, such as references, from their start. Their levels among each other are kept, and all pictures
    share the colour scale whose top is the loudest point of the noisy file.

    Args:
        stem: of the names of the files, e.g. "media/000".
        sounds: the files, by the name of the version; "noisy" or "clean" is among them.
        removed_by: systems of which what they removed, noisy − enhanced, is written as well.

    Returns:
        khz: upper end of the pictures. seconds: length of the excerpt. excerpt: where it lies, in words, where it is
        not the whole. panels: by version its picture, sound, seconds, and `removed`, a panel as well.
    """
    anchor = NOISY if NOISY in sounds else CLEAN
    headers = {name: audio.info(path) for name, path in sounds.items()}
    rate, total = headers[anchor].sample_rate, headers[anchor].seconds
    start = _find_excerpt(sounds[anchor], rate, excerpt_s)
    waveforms = {}
    for name, path in sounds.items():
        begin = start if abs(headers[name].seconds - total) < 0.01 else 0.0
        waveforms[name] = audio.read(path, rate, begin, excerpt_s)
    noises = {f"{NOISY} − {name}": waveforms[NOISY] - waveforms[name] for name in removed_by}
    every = waveforms | noises
    peak = max(float(np.abs(waveform).max()) for waveform in every.values())
    gain = min(1.0, _PEAK / peak) if peak else 1.0
    top_db = float(figures.spectrum_db(waveforms[anchor], rate).max())
    panels = {
        name: _write_panel(out, f"{stem}_{place:02d}", waveform, gain, rate, top_db)
        for place, (name, waveform) in enumerate(every.items())
    }
    for name in removed_by:
        panels[name]["removed"] = panels.pop(f"{NOISY} − {name}")
    end = min(start + excerpt_s, total)
    words = "" if total <= excerpt_s else f"{start:.2f}–{end:.2f} s of {total:.1f} s"
    return {"khz": rate / 2000, "seconds": round(end - start, 3), "excerpt": words, "panels": panels}


def describe_scores(row: pd.Series | None, shown: Sequence[str], ranking: str) -> dict[str, Any]:
    """The scores of a version of a file in words, and the one it is ranked by, as the script of the page reads them."""
    if row is None:
        return {"scores": [], "value": None}
    words = []
    for name, unit, text in [(*heading(one)[:2], number(row[one], heading(one)[2])) for one in shown]:
        words += [f"{name} {text} {unit}".strip()] if text != NOTHING else []
    value = row[ranking]
    return {"scores": words, "value": float(value) if pd.notna(value) and np.isfinite(value) else None}


def heading(metric: str) -> tuple[str, str, int]:
    """Name, unit and decimals of a column of scores."""
    if metric == REMOVED:
        return "removed", "% of the energy", 1
    title = METRICS[metric].title
    unit = "dB" if title.endswith(" dB") else ""
    return title.removesuffix(" dB"), unit, METRICS[metric].decimals


def describe_rank(metric: str, is_difference: bool) -> dict[str, Any]:
    """The number by which files are ranked, as the script reads it: see `page.listening_data`."""
    name, unit, decimals = heading(metric)
    higher_is_better = metric == REMOVED or METRICS[metric].higher_is_better
    rank = {"title": f"{unit} {name}".strip(), "decimals": decimals, "is_difference": is_difference}
    return rank | {"higher_is_better": higher_is_better}


def _find_excerpt(path: Path, rate: int, seconds: float) -> float:
    """Where the stretch of so many seconds with the most energy begins, in seconds."""
    if audio.info(path).seconds <= seconds:
        return 0.0
    step = round(_STEP_S * rate)
    waveform = audio.read(path, rate)
    energy = np.add.reduceat(waveform.astype(np.float64) ** 2, np.arange(0, len(waveform), step))
    sums = np.convolve(energy, np.ones(max(1, round(seconds / _STEP_S))), "valid")
    latest = max(0.0, len(waveform) / rate - seconds)
    return min(float(sums.argmax()) * _STEP_S, latest)


def _write_panel(out: Path, stem: str, waveform: np.ndarray, gain: float, rate: int, top_db: float) -> dict[str, Any]:
    picture, sound = f"{stem}.webp", f"{stem}{'.opus' if has_opus() else '.flac'}"
    figures.save_spectrum(figures.spectrum_db(waveform, rate), top_db, out / picture)
    playable = rate if rate in _OPUS_RATES or not has_opus() else 48000
    resampled = audio.resample(gain * waveform, rate, playable)
    audio.write(out / sound, resampled, playable, compression=_COMPRESSION if has_opus() else None)
    return {"picture": picture, "sound": sound, "seconds": round(len(waveform) / rate, 4)}
