"""Small corpora of white noise, for the tests of the data rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from sgmse.data.corpora import split_files
from sgmse.data.dataset import ItemSettings
from sgmse.data.mixtures import DynamicMixing

RATE = 8000
CROP = 8000
SETTINGS = ItemSettings(sample_rate=RATE, crop_length=CROP, seed=3)


def save(path: Path, seconds: float = 2.0, rate: int = RATE, samples: np.ndarray | None = None) -> Path:
    """Write white noise, another one for each file name, or the given samples [N]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if samples is None:
        samples = 0.1 * np.random.default_rng(sum(path.name.encode())).standard_normal(round(seconds * rate))
    soundfile.write(path, samples, rate, subtype="PCM_24")
    return path


def samples(path: Path) -> np.ndarray:
    """The samples of a file, [N] or [N, C]."""
    return soundfile.read(path, dtype="float32")[0]


def small_mixing(folder: Path) -> DynamicMixing:
    """Five utterances, one shorter than the crop and at another rate; three noises: short, middling, long."""
    for index, seconds in enumerate((0.4, 1.5, 2.0, 2.5, 3.0)):
        save(folder / f"speech/train/s{index}.flac", seconds, rate=RATE if index else 2 * RATE)
    for index, seconds in enumerate((0.7, 4.0, 20.0)):
        save(folder / f"noise/n{index}.wav", seconds)
    speech, noise = (split_files([folder / kind], "train", kind) for kind in ("speech", "noise"))
    return DynamicMixing(speech, noise, SETTINGS)


def small_pairs(folder: Path) -> Path:
    """Four pairs below `folder`/train, clean as WAV and noisy as FLAC."""
    for index, seconds in enumerate((0.9, 1.5, 2.0, 4.0)):
        clean, noise = (np.random.default_rng((index, k)).standard_normal(round(seconds * RATE)) for k in (0, 1))
        save(folder / f"train/clean/a/p{index}.wav", samples=0.1 * clean)
        save(folder / f"train/noisy/a/p{index}.flac", samples=0.1 * clean + 0.02 * noise)
    return folder
