"""Noise references, one function per protocol. A reference of length 0 means: there is none, use the null condition.

`disjoint` and `oracle` cut a reference from the item's own noise, `estimated` finds one in a recording.
`partners` chooses another item whose reference serves: of the same class, another take, or mismatched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np

from sgmse.data.mixing import crossfade, is_silent, loop_crossfade, rms

MIN_S, MAX_S = 0.25, 2.0
HEAD_S = 120.0  # a reference that is, or is made of, a long recording is so much of its beginning
GUARD_S = 0.01  # between reference and mixture, so that they share no room tail, codec frame or filter state
MAX_SHARE = 0.45  # of a short clip that its reference may take
REFERENCE_FLOOR_DB = -40.0  # relative to the clip: a pause between two barks says nothing about the barks
MIXTURE_FLOOR_DB = -20.0  # a fainter stretch, once raised to its SNR, would raise the reference out of all bounds
MIN_CROP_SHARE = 0.6  # of a short paired file that stays for training when its reference is cut
MIN_CROP_S = 0.5
_TRIES = 20

NO_REFERENCE = np.zeros(0, dtype=np.float32)

BorrowProtocol = Literal["same_class", "other_take", "mismatched"]


def partners(
    kinds: Sequence[str],
    sources: Sequence[str],
    protocol: BorrowProtocol,
    seed: int,
    reference_sources: Sequence[str] | None = None,
) -> list[int | None]:
    """For each item the number of the item whose reference it is given, each used about equally often; None: no fit.

    same_class: noise of the same kinds from other recordings; mismatched: of other kinds, from other recordings;
    other_take: the same recordings, of which the caller knows that the items are different takes.
    `sources` tell what the items' noises were cut from and `reference_sources` their references, by default the same.
    Several are joined by "+", as in "dog+rain".
    """
    kind_sets, source_sets, reference_sets = (
        [frozenset(text.split("+")) for text in names] for names in (kinds, sources, reference_sources or sources)
    )
    # Sets of items are the bits of a number: a test set of 10,000 items is drawn in a moment.
    with_kind, equal_kinds = _bits_by_label(kind_sets), _bits_by_label([[kind_set] for kind_set in kind_sets])
    with_source = _bits_by_label([a | b for a, b in zip(source_sets, reference_sets, strict=True)])
    takes = _bits_by_label([[a] if a == b else [] for a, b in zip(source_sets, reference_sets, strict=True)])
    everything = (1 << len(kinds)) - 1
    rng, used = np.random.default_rng(seed), {0: everything}  # of each number of uses: the items that are used so often
    chosen: list[int | None] = [None] * len(kinds)
    for item in map(int, rng.permutation(len(kinds))):
        if protocol == "other_take":
            fits = takes.get(source_sets[item], 0)
        else:
            fits = equal_kinds[kind_sets[item]] if protocol == "same_class" else everything
            for kind in kind_sets[item] if protocol == "mismatched" else ():
                fits &= ~with_kind[kind]
            for source in source_sets[item]:
                fits &= ~with_source[source]
        fits &= ~(1 << item)
        times = next((times for times in sorted(used) if fits & used[times]), None)
        if times is not None:
            fitting = fits & used[times]
            other = _find_bit(fitting, int(rng.integers(fitting.bit_count())))
            chosen[item] = other
            used[times + 1] = used.get(times + 1, 0) | 1 << other
            used[times] ^= 1 << other
            if not used[times]:
                del used[times]
    return chosen


def _bits_by_label(labels: Sequence[Iterable[Hashable]]) -> dict[Hashable, int]:
    """For each label a number whose bits are the items that hold it."""
    found: dict[Hashable, int] = {}
    for number, held in enumerate(labels):
        for label in held:
            found[label] = found.get(label, 0) | 1 << number
    return found


def _find_bit(bits: int, rank: int) -> int:
    """The place of the set bit of `bits` that has `rank` set bits below it."""
    place, width = 0, bits.bit_length()
    while width > 1:
        half = width // 2
        lower = bits & ((1 << half) - 1)
        below = lower.bit_count()
        if rank < below:
            bits, width = lower, half
        else:
            bits, width, place, rank = bits >> half, width - half, place + half, rank - below
    return place


def has_energy(segment: np.ndarray, clip_rms: float, floor_db: float = REFERENCE_FLOOR_DB) -> bool:
    """Whether `segment` [M] is neither digital silence nor fainter than its clip by more than `floor_db`."""
    return not is_silent(segment) and rms(segment) >= clip_rms * 10 ** (floor_db / 20)


def disjoint(
    noise: np.ndarray,
    mixture_length: int,
    sample_rate: int,
    rng: np.random.Generator,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a reference from `noise` [K] first, then the mixture's noise from what remains.

    Returns (reference [M], noise [mixture_length]). The two share no sample and keep 10 ms apart; a remainder that is
    too short is looped. M is 0 when the clip is too short or no split leaves sound on both sides. The noise itself is
    silent only where the clip holds hardly anything else: the caller has to draw another clip then.
    """
    clip_rms = rms(noise)
    shortest, longest = round(min_s * sample_rate), round(min(max_s * sample_rate, MAX_SHARE * len(noise)))
    for _ in range(_TRIES if longest >= shortest > 0 else 0):
        length = int(rng.integers(shortest, longest + 1))
        start = int(rng.integers(len(noise) - length + 1))
        reference = noise[start : start + length]
        if not has_energy(reference, clip_rms):
            continue
        mixture_noise = _outside(noise, start, length, mixture_length, sample_rate, rng)
        if has_energy(mixture_noise, clip_rms, MIXTURE_FLOOR_DB):
            return reference, mixture_noise
    return NO_REFERENCE, sounding_segment(noise, mixture_length, sample_rate, rng)


def oracle(
    mixture_noise: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> np.ndarray:
    """A reference [M] cut from the very noise [N] of the mixture: it leaks the answer and serves as an upper bound."""
    longest = min(round(max_s * sample_rate), len(mixture_noise))
    shortest = min(round(min_s * sample_rate), longest)
    clip_rms = rms(mixture_noise)
    for _ in range(_TRIES):
        length = int(rng.integers(shortest, longest + 1))
        start = int(rng.integers(len(mixture_noise) - length + 1))
        if has_energy(mixture_noise[start : start + length], clip_rms):
            return mixture_noise[start : start + length]
    return NO_REFERENCE


def paired_crop(
    num_samples: int,
    crop_length: int,
    sample_rate: int,
    rng: np.random.Generator,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> tuple[slice, slice]:
    """Place a training crop and a reference side by side, 10 ms apart, in a file of `num_samples`.

    In a short file the crop gives way to the reference, down to 60 % of the file and never below 0.5 s; where even
    that leaves no room, the reference is empty.
    """
    guard, shortest = round(GUARD_S * sample_rate), round(min_s * sample_rate)
    smallest_crop = min(crop_length, max(round(MIN_CROP_SHARE * num_samples), round(MIN_CROP_S * sample_rate)))
    longest = min(round(max_s * sample_rate), num_samples - guard - smallest_crop)
    if longest < shortest:
        crop_length = min(crop_length, num_samples)
        start = int(rng.integers(num_samples - crop_length + 1))
        return slice(start, start + crop_length), slice(0, 0)
    reference_length = int(rng.integers(shortest, longest + 1))
    crop_length = min(crop_length, num_samples - guard - reference_length)
    spare = num_samples - guard - reference_length - crop_length
    before, until = map(int, np.sort(rng.integers(spare + 1, size=2)))
    if rng.random() < 0.5:
        second = until + crop_length + guard
        return slice(before, before + crop_length), slice(second, second + reference_length)
    second = until + reference_length + guard
    return slice(second, second + crop_length), slice(before, before + reference_length)


def residual_crop(
    noisy: np.ndarray,
    clean: np.ndarray,
    crop_length: int,
    sample_rate: int,
    rng: np.random.Generator,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a training crop from a pair [K], and a reference from noisy - clean outside that crop.

    Returns (clean [n], noisy [n], reference [M]) with n <= crop_length, see `paired_crop`.
    """
    residual = noisy - clean
    residual_rms = rms(residual)
    for _ in range(_TRIES):
        crop, place = paired_crop(len(noisy), crop_length, sample_rate, rng, min_s, max_s)
        reference = residual[place]
        if not is_silent(noisy[crop]) and (len(reference) == 0 or has_energy(reference, residual_rms)):
            return clean[crop], noisy[crop], reference
    start = int(rng.integers(max(0, len(noisy) - crop_length) + 1))
    crop = slice(start, start + crop_length)
    return clean[crop], noisy[crop], NO_REFERENCE


def sounding_segment(noise: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A random stretch [length] of `noise` [K], looped if short; redrawn while it is silent or far too faint."""
    clip_rms = rms(noise)
    segment = np.zeros(length, dtype=np.float32)
    for _ in range(_TRIES if len(noise) else 0):
        segment = _segment(noise, length, sample_rate, rng)
        if has_energy(segment, clip_rms, MIXTURE_FLOOR_DB):
            break
    return segment


def _outside(
    noise: np.ndarray, start: int, length: int, mixture_length: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """A stretch [mixture_length] of `noise` [K] without [start, start + length) and a guard around it."""
    guard = round(GUARD_S * sample_rate)
    left, right = noise[: max(0, start - guard)], noise[start + length + guard :]
    sides = [side for side in (left, right) if len(side) >= mixture_length]
    if sides:
        return _segment(sides[rng.integers(len(sides))], mixture_length, sample_rate, rng)
    return _segment(crossfade(right, left, sample_rate), mixture_length, sample_rate, rng)


def _segment(noise: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A random stretch [length] of `noise` [K > 0]; a short noise is looped from a random place on."""
    spare = len(noise) - length
    start = int(rng.integers(spare + 1 if spare >= 0 else len(noise)))
    return loop_crossfade(noise, start + length, sample_rate)[start:]
