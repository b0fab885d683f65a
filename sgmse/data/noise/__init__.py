"""Where the noise of a mixture comes from, if not from talkers: files of the noise folders, or a procedure."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.mixing import FADE_S, crossfade, is_silent, rms, trim_silence
from sgmse.data.noise.synthetic import SYNTHETIC_NOISES

_WHOLE_FILE_S = 12.0  # up to here a file is decoded whole and kept; of a longer one a window is read
_KEPT_FILES = 64  # per loader process: at most 50 MB at 16 kHz
_TRIES = 20
_log = logging.getLogger(__name__)


class Cut(NamedTuple):
    """A reference [M] (M = 0: none) and a mixture's noise [N] that share no sample, at one level.

    looped: the clip without its reference is shorter than the mixture, so that the noise repeats itself. The starts say
    where in the clip both begin, in samples, where somebody needs to know. files: the numbers of the noise files in it.
    """

    reference: np.ndarray
    noise: np.ndarray
    looped: bool = False
    reference_start: int = 0
    noise_start: int = 0
    files: tuple[int, ...] = ()


@dataclass(frozen=True)
class CutLengths:
    """What is to be cut: `length` samples of noise and a reference of `min_s` to `max_s` seconds."""

    length: int
    min_s: float
    max_s: float

    def clip_length(self, sample_rate: int) -> int:
        """Samples of a clip that has room for the noise and for the longest reference."""
        room = round((self.max_s + references.GUARD_S) * sample_rate)
        return max(self.length + room, round(self.max_s / references.MAX_SHARE * sample_rate))

    def scale(self, factor: float) -> CutLengths:
        """What to cut if it is made `factor` times shorter afterwards."""
        return CutLengths(math.ceil(self.length * factor), self.min_s * factor, self.max_s * factor)


def cut_clip(clip: np.ndarray, lengths: CutLengths, sample_rate: int, rng: np.random.Generator) -> Cut:
    """`references.disjoint` on `clip` [K]: reference [M] and noise [lengths.length]."""
    reference, noise = references.disjoint(clip, lengths.length, sample_rate, rng, lengths.min_s, lengths.max_s)
    return Cut(reference, noise, len(clip) - len(reference) < lengths.length)


def read_clip(info: AudioInfo, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A clip [K] without digital silence at its ends: a short file as a whole, read-only, or a random window [length].

    Memory does not grow with the corpus: a few short files are kept, the ones used longest ago go first.
    """
    if info.seconds <= max(_WHOLE_FILE_S, length / sample_rate):
        return _read_short(info.path, sample_rate)
    start_s, duration_s = info.draw_window(length, sample_rate, rng)
    return trim_silence(audio.read(info.path, sample_rate, start_s, duration_s))


@lru_cache(_KEPT_FILES)
def _read_short(path: Path, sample_rate: int) -> np.ndarray:
    waveform = trim_silence(audio.read(path, sample_rate)).copy()
    waveform.flags.writeable = False
    return waveform


class NoiseFiles:
    """Cuts from the files of the noise folders. Silent files are replaced by others, each is reported once."""

    def __init__(self, files: Sequence[AudioInfo], sample_rate: int) -> None:
        self.files = list(files)
        self.sample_rate = sample_rate
        self._reported: set[Path] = set()

    def cut(self, index: int, lengths: CutLengths, rng: np.random.Generator) -> Cut:
        """Reference and noise from file number `index`, or from another one where it is silent."""
        for _ in range(_TRIES):
            drawn, found = index, self._cut_file(index, lengths, rng)
            if found is not None:
                return found
            index = int(rng.integers(len(self.files)))
        path = self.files[drawn].path
        raise UserError(f"{path}: is silent, and so are the other noise files drawn; check the noise corpus")

    def _cut_file(self, index: int, lengths: CutLengths, rng: np.random.Generator) -> Cut | None:
        """Reference and noise from file number `index`; None where it is silent."""
        info, rate = self.files[index], self.sample_rate
        found = cut_clip(read_clip(info, lengths.clip_length(rate), rate, rng), lengths, rate, rng)
        if not is_silent(found.noise):
            return found._replace(files=(index,))
        if info.path not in self._reported:
            _log.warning("%s: is silent, in whole or in part; another noise is drawn instead", info.path)
            self._reported.add(info.path)
        return None

    def cut_other(self, taken: Sequence[int], lengths: CutLengths, rng: np.random.Generator) -> Cut | None:
        """A cut from a random file that is not `taken`, if possible one that has room for a reference.

        Two cuts of one file may share samples, the reference of one with the noise of the other. None: no other file
        was found that sounds.
        """
        found: Cut | None = None
        for _ in range(_TRIES):
            other = (taken[0] + 1 + int(rng.integers(len(self.files) - 1))) % len(self.files)
            cut = None if other in taken else self._cut_file(other, lengths, rng)
            if cut is not None:
                found = cut
                if len(cut.reference):
                    break
        return found

    def cut_several(self, index: int, shares: Sequence[float], lengths: CutLengths, rng: np.random.Generator) -> Cut:
        """Parts of several files, `index` first, of equal level, one after another over cross-fades.

        shares: the part of each file in the whole; with fewer files there are fewer parts. The reference joins disjoint
        parts of the same files in the same order and proportions; where one of them has no room for its part, the cut
        is from file `index` alone.
        """
        rate = self.sample_rate
        if len(shares) > len(self.files):
            whole = sum(shares[: len(self.files)])
            shares = [share / whole for share in shares[: len(self.files)]]
        length = int(rng.integers(round(lengths.min_s * rate), round(lengths.max_s * rate) + 1))
        overlap = (len(shares) - 1) * round(FADE_S * rate)  # of the parts: so much more is needed in all
        parts, files = list[Cut](), list[int]()
        for share in shares:
            reference_s = (length + overlap) * share / rate
            part = CutLengths(round((lengths.length + overlap) * share) + 1, reference_s, reference_s)
            found = self.cut_other(files, part, rng) if parts else self.cut(index, part, rng)
            if found is None or len(found.reference) == 0:
                return self.cut(index, lengths, rng)
            parts.append(found)
            files += found.files
        gains = [np.float32(rms(parts[0].noise) / rms(part.noise)) for part in parts]
        reference, noise = (
            reduce(lambda a, b: crossfade(a, b, rate), [g * waveform for g, waveform in zip(gains, row, strict=True)])
            for row in ([part.reference for part in parts], [part.noise for part in parts])
        )
        looped = any(part.looped for part in parts)
        return Cut(reference[:length], noise[: lengths.length], looped, files=tuple(files))


def draw_synthetic(lengths: CutLengths, sample_rate: int, rng: np.random.Generator) -> Cut:
    """A new instance of a random kind of synthetic noise, long enough for noise and reference without a loop."""
    kinds = tuple(SYNTHETIC_NOISES.values())
    clip = kinds[rng.integers(len(kinds))](lengths.clip_length(sample_rate), sample_rate, rng)
    return cut_clip(clip, lengths, sample_rate, rng)


def match_level(reference: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`reference` [M], of other origin than `noise` [N], at the level of that noise; an empty one stays empty."""
    level = rms(reference)
    return reference * np.float32(rms(noise) / level) if level > 0 else references.NO_REFERENCE
