"""Clips of audio files for mixing, and what is cut from them. Memory does not grow with the corpus."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.mixing import trim_silence

_WHOLE_FILE_S = 12.0  # up to here a file is decoded whole and kept; of a longer one a window is read
_CACHE_BYTES = 64 * 2**20  # per loader process


class Cut(NamedTuple):
    """A reference [M] (M = 0: none) and a mixture's noise [N] that share no sample, at one level.

    looped: the clip without its reference is shorter than the mixture, so that the noise repeats itself.
    """

    reference: np.ndarray
    noise: np.ndarray
    looped: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is to be cut: `length` samples of noise and a reference of `min_s` to `max_s` seconds."""

    length: int
    min_s: float
    max_s: float

    def clip_length(self, sample_rate: int) -> int:
        """Samples of a clip that has room for the noise and for the longest reference."""
        room = round((self.max_s + references.GUARD_S) * sample_rate)
        return max(self.length + room, round(self.max_s / references.MAX_SHARE * sample_rate))

    def scaled(self, factor: float) -> Wanted:
        """What to cut if it is made `factor` times shorter afterwards."""
        return Wanted(math.ceil(self.length * factor), self.min_s * factor, self.max_s * factor)


def cut(clip: np.ndarray, wanted: Wanted, sample_rate: int, rng: np.random.Generator) -> Cut:
    """`references.disjoint` on `clip` [K]: reference [M] and noise [wanted.length]."""
    reference, noise = references.disjoint(clip, wanted.length, sample_rate, rng, wanted.min_s, wanted.max_s)
    return Cut(reference, noise, len(clip) - len(reference) < wanted.length)


class DecodedFiles:
    """Whole files decoded once and kept while they fit into `max_bytes`; the ones used longest ago go first."""

    def __init__(self, sample_rate: int, max_bytes: int) -> None:
        self.sample_rate = sample_rate
        self.max_bytes = max_bytes
        self._held: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._bytes = 0

    def read(self, path: Path) -> np.ndarray:
        """The file [K] without digital silence at its ends; read-only."""
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        waveform = trim_silence(audio.read(path, self.sample_rate)).copy()
        waveform.flags.writeable = False
        self._held[path] = waveform
        self._bytes += waveform.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return waveform


class Clips:
    """Reads clips: a short file as a whole, kept for the next time; of a long one a random window."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._short_files = DecodedFiles(sample_rate, _CACHE_BYTES)

    def read(self, info: AudioInfo, length: int, rng: np.random.Generator) -> np.ndarray:
        """A clip [K] without digital silence at its ends: the whole file, or `length` samples of a long one."""
        if info.seconds <= max(_WHOLE_FILE_S, length / self.sample_rate):
            return self._short_files.read(info.path)
        start_s, duration_s = window(info, length, self.sample_rate, rng)
        return trim_silence(audio.read(info.path, self.sample_rate, start_s, duration_s))


def window(info: AudioInfo, length: int, sample_rate: int, rng: np.random.Generator) -> tuple[float, float]:
    """Start and duration in seconds of a random window of `length` samples, or of the whole file if shorter."""
    spare = max(0, num_samples(info, sample_rate) - length)
    return int(rng.integers(spare + 1)) / sample_rate, length / sample_rate


def num_samples(info: AudioInfo, sample_rate: int) -> int:
    """The length of a file once resampled, rounded down."""
    return info.num_frames * sample_rate // info.sample_rate
