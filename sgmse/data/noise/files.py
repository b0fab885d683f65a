"""Where the noise of a mixture comes from, if not from talkers: files of the noise folders, or a procedure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import clips, references
from sgmse.data.audio import AudioInfo
from sgmse.data.clips import Clips, Cut, Wanted
from sgmse.data.mixing import FADE_S, crossfade, is_silent, rms
from sgmse.data.noise.synthetic import SYNTHETIC_NOISES

_TRIES = 20
_log = logging.getLogger(__name__)


class NoiseFiles:
    """Cuts from the files of the noise folders. Silent files are replaced by others, each is reported once."""

    def __init__(self, files: Sequence[AudioInfo], source: Clips) -> None:
        self.files = list(files)
        self._clips = source
        self._reported: set[Path] = set()

    def __len__(self) -> int:
        return len(self.files)

    def cut(self, index: int, wanted: Wanted, rng: np.random.Generator) -> Cut:
        """Reference and noise from file number `index`, or from another one where it is silent."""
        rate = self._clips.sample_rate
        for _ in range(_TRIES):
            info = self.files[index]
            clip = self._clips.read(info, wanted.clip_length(rate), rng)
            found = clips.cut(clip, wanted, rate, rng)
            if not is_silent(found.noise):
                return found
            if info.path not in self._reported:
                _log.warning("%s: is silent, in whole or in part; another noise is drawn instead", info.path)
                self._reported.add(info.path)
            index = int(rng.integers(len(self.files)))
        raise UserError(f"{info.path}: is silent, and so are the other noise files drawn; check the noise corpus")

    def another(self, index: int, wanted: Wanted, rng: np.random.Generator) -> Cut:
        """A cut from a random file other than `index`, if possible one that has room for a reference."""
        for _ in range(_TRIES):
            other = (index + 1 + int(rng.integers(len(self.files) - 1))) % len(self.files)
            found = self.cut(other, wanted, rng)
            if len(found.reference):
                break
        return found

    def joined(self, index: int, shares: Sequence[float], wanted: Wanted, rng: np.random.Generator) -> Cut:
        """Parts of several files, `index` first, of equal level, one after another over cross-fades.

        shares: the part of each file in the whole. The reference joins disjoint parts of the same files in the same
        order and proportions; where one of them has no room for its part, the cut is from file `index` alone.
        """
        rate = self._clips.sample_rate
        length = int(rng.integers(round(wanted.min_s * rate), round(wanted.max_s * rate) + 1))
        parts = []
        for k, share in enumerate(shares):
            reference_s = _with_fades(length, len(shares), rate) * share / rate
            part = Wanted(round(_with_fades(wanted.length, len(shares), rate) * share) + 1, reference_s, reference_s)
            parts.append(self.cut(index, part, rng) if k == 0 else self.another(index, part, rng))
            if len(parts[-1].reference) == 0:
                return self.cut(index, wanted, rng)
        gains = [np.float32(rms(parts[0].noise) / rms(part.noise)) for part in parts]
        reference, noise = (
            reduce(lambda a, b: crossfade(a, b, rate), [g * waveform for g, waveform in zip(gains, row, strict=True)])
            for row in ([part.reference for part in parts], [part.noise for part in parts])
        )
        return Cut(reference[:length], noise[: wanted.length], any(part.looped for part in parts))


def _with_fades(length: int, parts: int, sample_rate: int) -> int:
    """Samples that `parts` parts need in all to give `length` once they overlap."""
    return length + (parts - 1) * round(FADE_S * sample_rate)


def synthetic(wanted: Wanted, sample_rate: int, rng: np.random.Generator) -> Cut:
    """A new instance of a random kind of synthetic noise, long enough for noise and reference without a loop."""
    kinds = tuple(SYNTHETIC_NOISES.values())
    clip = kinds[rng.integers(len(kinds))](wanted.clip_length(sample_rate), sample_rate, rng)
    return clips.cut(clip, wanted, sample_rate, rng)


def same_level(reference: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`reference` [M], of other origin than `noise` [N], at the level of that noise; an empty one stays empty."""
    level = rms(reference)
    return reference * np.float32(rms(noise) / level) if level > 0 else references.NO_REFERENCE
