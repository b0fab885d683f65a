"""A corpus of pairs without fault, and what the doctor finds in it once it has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_corpora import save

from sgmse.doctor.examine import Request, examine

RATE = 16000


def white(seconds: float, *key: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(key).standard_normal(round(seconds * RATE))


def speech(seconds: float, *key: int) -> np.ndarray:
    """Noise in syllables, which no other signal resembles."""
    rng = np.random.default_rng((1, *key))
    envelope = np.repeat(rng.uniform(0, 1, round(seconds * 10)), RATE // 10)
    return envelope * white(seconds, 2, *key)[: len(envelope)]


def write_pairs(folder: Path) -> Path:
    for s, split in enumerate(("train", "valid", "test")):
        for number in range(4):
            clean = speech(1.5, s, number)
            save(folder / split / "clean" / f"{split}{number}.wav", samples=clean, rate=RATE)
            save(
                folder / split / "noisy" / f"{split}{number}.wav",
                samples=clean + 0.3 * white(1.5, s, number),
                rate=RATE,
            )
    return folder


def problems(**request: object) -> dict[str, bool]:
    """What is wrong, and whether it falsifies results."""
    return {problem.what: problem.falsifies for problem in examine(Request(**request)).problems}


def only(found: dict[str, bool], text: str, falsifies: bool = True) -> None:
    assert len(found) == 1, found
    assert text in next(iter(found))
    assert next(iter(found.values())) is falsifies
