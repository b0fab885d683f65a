"""Audio in blocks [C, n], so that recordings of any length need little memory. Joined, they are what `audio` gives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr

from sgmse.common.files import temporary_file
from sgmse.data import audio

BLOCK = 65536  # samples that are in memory at once


def read(path: str | Path, sample_rate: int | None, mix: bool = False) -> Iterator[np.ndarray]:
    """`audio.read(path, sample_rate, mono=mix)` in blocks [C, n], one channel with `mix`; MP3 is decoded once."""
    info = audio.info(path)
    blocks = _mixed(_decoded(info.path)) if mix else _decoded(info.path)
    return resampled(blocks, 1 if mix else info.channels, info.sample_rate, sample_rate or info.sample_rate)


def check(path: str | Path) -> float:
    """Read a whole file and return its peak. Raises `UserError` where it is damaged, truncated, or holds NaN."""
    return max(float(np.abs(block).max(initial=0.0)) for block in _decoded(Path(path)))


@lru_cache(maxsize=2**17)
def level(path: Path, sample_rate: int) -> float:
    """RMS of a whole file at `sample_rate`, channels averaged. Kept, so that a file is decoded for it once."""
    energy, length = 0.0, 0
    for block in read(path, sample_rate, mix=True):
        energy += float(np.sum(np.square(block, dtype=np.float64)))
        length += block.shape[-1]
    return math.sqrt(energy / max(length, 1))


def resampled(blocks: Iterable[np.ndarray], channels: int, from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """`audio.resample` of consecutive blocks [C, n]."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")
    held: np.ndarray | None = None  # one block late, because the last one must be told
    for block in blocks:
        if held is not None:
            yield _step(stream, held, last=False)
        held = block
    if held is not None:
        yield _step(stream, held, last=True)


def write(
    path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int, channels: int, subtype: str | None = None
) -> float:
    """`audio.write` of consecutive blocks [C, n]. They wait on the disk until the peak of the whole is known."""
    path = Path(path)
    peak = 0.0
    with temporary_file(path) as raw:
        with raw.open("wb") as file:
            for block in blocks:
                peak = max(peak, audio.checked_peak(path, block))
                np.ascontiguousarray(block.T, dtype=np.float32).tofile(file)
        audio.save(path, _spooled(raw, channels), sample_rate, channels, peak, subtype)
    return peak


def _decoded(path: Path) -> Iterator[np.ndarray]:
    with audio.opened(path) as file:
        left = file.frames
        while left > 0:
            frames = audio.next_frames(file, path, min(BLOCK, left))
            if not len(frames):
                break
            left -= len(frames)
            yield frames.T
        audio.check_complete(file, path, left)


def _mixed(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (block.mean(axis=0, keepdims=True, dtype=np.float32) for block in blocks)


def _step(stream: soxr.ResampleStream, block: np.ndarray, last: bool) -> np.ndarray:
    frames = stream.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32), last=last)
    return frames.reshape(-1, len(block)).T


def _spooled(path: Path, channels: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(values := np.fromfile(file, np.float32, BLOCK * channels)):
            yield values.reshape(-1, channels).T
