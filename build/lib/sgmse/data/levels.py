"""How loud recordings are, and what in their level spoils what is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sgmse.data.audio import AudioInfo

_POWERS = 512  # more than the powers of two that float32 spans
_DC_SHARE = 0.1  # of the RMS
_DC_FLOOR = 1e-3
_CLICK_S = 1e-3  # of sound near the peak
_EIGHT_BITS = ("PCM_S8", "PCM_U8", "ULAW", "ALAW")


class Level(NamedTuple):
    """How loud a recording is: peak, RMS and mean of its samples. near_peak: how many come within a quarter of the
    peak (up to a half, by powers of two)."""

    peak: float
    rms: float
    mean: float
    near_peak: int


def measure_level(blocks: Iterable[np.ndarray]) -> Level:
    """The level of consecutive blocks [C, n], all channels together."""
    peak, total, energy, count = 0.0, 0.0, 0.0, 0
    powers = np.zeros(_POWERS, dtype=int)  # how many samples lie in [2^(k-1), 2^k)
    for block in blocks:
        size = np.abs(block)
        peak = max(peak, float(size.max(initial=0.0)))
        total, energy = total + float(block.sum(dtype=float)), energy + float(np.square(block, dtype=float).sum())
        count += block.size
        powers += np.bincount(np.frexp(size[size > 0])[1] + _POWERS // 2, minlength=_POWERS)
    highest = int(powers.nonzero()[0].max(initial=1))
    near_peak = int(powers[highest - 1 :].sum())
    return Level(peak, math.sqrt(energy / max(count, 1)), total / max(count, 1), near_peak)


class Fault(NamedTuple):
    """What is wrong with files, as the rest of a sentence about them, and what to do."""

    what: str
    remedy: str


OFFSET = Fault(
    f"have a constant offset of more than {_DC_SHARE:.0%} of their RMS",
    "subtract the mean of each file, or high-pass it: levels and SNRs count the offset as sound",
)
CLICK = Fault(
    "hold a click far above all other sound, and are normalised by its peak",
    "remove the click in an editor: everything else is processed as far too quiet",
)
COARSE = Fault(
    "have samples of 8 bits, and so have results in their format, whose own noise caps every score",
    "convert them first, as in `ffmpeg -i IN -c:a pcm_s16le OUT.wav`",
)


def find_faults(info: AudioInfo, level: Level) -> list[Fault]:
    """What is wrong with the level of a recording that is not silent."""
    found = {
        OFFSET: abs(level.mean) > max(_DC_FLOOR, _DC_SHARE * level.rms),
        CLICK: level.near_peak < _CLICK_S * info.sample_rate * info.channels,
        COARSE: info.subtype in _EIGHT_BITS,
    }
    return [fault for fault, is_there in found.items() if is_there]
