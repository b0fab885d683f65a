"""Where noise references come from: the one list of protocols, and how references are changed."""

from __future__ import annotations

from functools import reduce
from typing import Literal, get_args

import numpy as np

from sgmse.data import references
from sgmse.data.mixing import crossfade, is_silent, rms

Protocol = Literal[
    "disjoint",  # SET/ref: the recording of the mixture's noise, no common sample
    "same_class",  # another recording of the same kind of noise
    "other_take",  # another take of the same noise
    "mismatched",  # noise of another kind
    "louder",  # the disjoint one, 6 dB up
    "softer",  # 6 dB down
    "shuffled",  # its segments of 50 ms in random order
    "estimated",  # made from the noisy file alone
    "dtln",  # what DTLN, a strong enhancer of others, takes away: the hardest rival of a recording
    "self",  # what a first pass without reference takes away
    "none",  # the null condition
    "oracle",  # overlaps the mixture's noise: it leaks
    "own_noise",  # all of the mixture's noise, noisy − clean: it leaks
    "file",  # one recording for all files
    "folder",  # a recording for each file
]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
CHANGED: tuple[Protocol, ...] = ("louder", "softer", "shuffled")  # made of the disjoint reference
SHIFT_DB = 6.0
GAINS: dict[str, np.float32] = {
    "louder": np.float32(10 ** (SHIFT_DB / 20)),
    "softer": np.float32(10 ** (-SHIFT_DB / 20)),
}
_SEGMENT_S = 0.05


def shuffle_segments(reference: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """`reference` [M] with its segments of about 50 ms in random order, joined by cross-fades. Returns [M].

    Level and spectrum stay; what changes over time, and how, is lost. One of a single segment stays as it is.
    """
    fade = round(0.02 * sample_rate)  # that of `crossfade`
    count = round((len(reference) - fade) / (_SEGMENT_S * sample_rate))
    if count < 2:
        return reference
    edges = np.linspace(0, len(reference) - fade, count + 1).round().astype(int)
    order = rng.permutation(count)
    while (order == np.arange(count)).all():
        order = rng.permutation(count)
    pieces = [reference[edges[i] : edges[i + 1] + fade] for i in order]
    return reduce(lambda first, second: crossfade(first, second, sample_rate), pieces)


def match_level(other: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`other` [M] with the RMS of `own` [M'], so that its kind alone differs; as it is where one of them is silent."""
    return other if is_silent(other) or is_silent(own) else other * np.float32(rms(own) / rms(other))


def cut_oracle(noise: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray | None:
    """A stretch of the mixture's own `noise` [N] of `length` samples; 0: of the usual lengths. None: nothing sounds."""
    limits = (length / sample_rate, length / sample_rate) if length else (references.MIN_S, references.MAX_S)
    found = references.oracle(noise, sample_rate, rng, *limits)
    return found if len(found) else None
