"""A corpus of speech and of noise in three classes, and the command that makes a test set of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_corpora import save

RATE = 8000
KINDS = ("dog", "rain", "siren")


def white(seconds: float, *key: int) -> np.ndarray:
    return np.random.default_rng(key).standard_normal(round(seconds * RATE)).astype(np.float32) * np.float32(0.1)


def write_corpus(root: Path) -> Path:
    """Speech of 1 to 2 s; three classes of three recordings of 3 s, one in stereo at another rate, one short."""
    for number in range(6):
        save(root / f"speech/s{number}.flac", samples=white(1 + 0.2 * number, 0, number))
    for k, kind in enumerate(KINDS):
        for number in range(3):
            samples, rate = white(3, 1, k, number), RATE
            if (kind, number) == ("rain", 0):
                samples, rate = np.stack([white(6, 2), white(6, 3)], axis=1), 2 * RATE
            if (kind, number) == ("siren", 0):
                samples = samples[: round(0.7 * RATE)]
            save(root / f"noise/{kind}/{kind}{number}.wav", samples=samples, rate=rate)
    return root


def command(corpus: Path, out: Path, *more: object, name: str = "ood") -> list[str]:
    words = [name, "--speech_dir", corpus / "speech", "--noise_dir", corpus / "noise", "--out", out]
    return [str(word) for word in (*words, "--sample_rate", RATE, "--jobs", 1, *more)]
