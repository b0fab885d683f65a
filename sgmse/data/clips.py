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


class Clips:
    """Reads clips without digital silence at their ends: a short file as a whole, of a long one a random window.

    Short files are decoded once and kept while they fit into `max_bytes`; the ones used longest ago go first.
    """

    def __init__(self, sample_rate: int, max_bytes: int = _CACHE_BYTES) -> None:
        self.sample_rate = sample_rate
        self.max_bytes = max_bytes
        self._held: OrderedDict[Path, np.ndarray] = OrderedDict()

    def read(self, info: AudioInfo, length: int, rng: np.random.Generator) -> np.ndarray:
        """A clip [K]: the whole file, read-only, or `length` samples of a long one."""
        if info.seconds > max(_WHOLE_FILE_S, length / self.sample_rate):
            start_s, duration_s = window(info, length, self.sample_rate, rng)
            return trim_silence(audio.read(info.path, self.sample_rate, start_s, duration_s))
        if info.path in self._held:
            self._held.move_to_end(info.path)
            return self._held[info.path]
        waveform = trim_silence(audio.read(info.path, self.sample_rate)).copy()
        waveform.flags.writeable = False
        self._held[info.path] = waveform
        while self.held_bytes > self.max_bytes:
            self._held.popitem(last=False)
        return waveform

    @property
    def held_bytes(self) -> int:
        return sum(waveform.nbytes for waveform in self._held.values())


def window(info: AudioInfo, length: int, sample_rate: int, rng: np.random.Generator) -> tuple[float, float]:
    """Start and duration in seconds of a random window of `length` samples, or of the whole file if shorter."""
    spare = max(0, num_samples(info, sample_rate) - length)
    return int(rng.integers(spare + 1)) / sample_rate, length / sample_rate


def num_samples(info: AudioInfo, sample_rate: int) -> int:
    """The length of a file once resampled, rounded down."""
    return info.num_frames * sample_rate // info.sample_rate
