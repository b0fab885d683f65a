"""Facts about noise references: they share nothing with the mixture, and silence is none."""

import time

import numpy as np
import pytest

from sgmse.data import references
from sgmse.data.references import disjoint, oracle, paired_crop, partners, residual_crop

RATE = 16000
GUARD = 160


def ramp(length: int) -> np.ndarray:
    """Samples that tell where they come from: 1, 2, ... (exact in float32), loud everywhere."""
    return np.arange(1, length + 1, dtype=np.float32)


def random_case(seed: int) -> tuple[int, int]:
    """Lengths of a clip and of a mixture, from 0.6 to 9 s and from 0.5 to 4 s."""
    rng = np.random.default_rng((99, seed))
    return int(rng.integers(0.6 * RATE, 9 * RATE)), int(rng.integers(0.5 * RATE, 4 * RATE))


@pytest.mark.parametrize("seed", range(60))
def test_the_mixture_does_not_depend_on_any_sample_of_its_reference_or_within_10_ms_of_it(seed: int) -> None:
    clip_length, mixture_length = random_case(seed)
    clip = ramp(clip_length)
    reference, mixture_noise = disjoint(clip, mixture_length, RATE, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.diff(reference), 1)  # contiguous
    start, length = int(reference[0]) - 1, len(reference)
    changed = clip.copy()
    changed[max(0, start - GUARD) : start + length + GUARD] *= -1  # same energy, so that the same cut is drawn
    other_reference, other_noise = disjoint(changed, mixture_length, RATE, np.random.default_rng(seed))
    np.testing.assert_array_equal(other_reference, -reference)
    np.testing.assert_array_equal(other_noise, mixture_noise)
    assert len(mixture_noise) == mixture_length


def test_references_last_between_their_limits_and_come_from_everywhere() -> None:
    drawn = [disjoint(ramp(10 * RATE), 2 * RATE, RATE, np.random.default_rng(seed))[0] for seed in range(150)]
    seconds = np.array([len(reference) for reference in drawn]) / RATE
    assert seconds.min() >= 0.25
    assert seconds.max() <= 2.0
    assert np.ptp(seconds) > 1.6
    centres = np.array([reference.mean() for reference in drawn]) / RATE
    assert np.histogram(centres, bins=5, range=(0, 10))[0].min() > 10


def test_a_short_clip_gives_a_shorter_reference_and_a_very_short_one_none() -> None:
    for seed in range(30):
        reference, mixture_noise = disjoint(ramp(round(0.6 * RATE)), 2 * RATE, RATE, np.random.default_rng(seed))
        assert 0.25 <= len(reference) / RATE <= references.MAX_SHARE * 0.6
        assert len(mixture_noise) == 2 * RATE
        reference, mixture_noise = disjoint(ramp(RATE // 2), 2 * RATE, RATE, np.random.default_rng(seed))
        assert len(reference) == 0
        assert mixture_noise.min() >= 1


def test_neither_reference_nor_mixture_is_taken_from_a_silent_stretch() -> None:
    clip = np.zeros(6 * RATE, np.float32)
    clip[RATE : 4 * RATE] = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    found = 0
    for seed in range(40):
        reference, mixture_noise = disjoint(clip, RATE, RATE, np.random.default_rng(seed))
        assert references.has_energy(mixture_noise, 0.07, references.MIXTURE_FLOOR_DB)
        assert len(reference) == 0 or references.has_energy(reference, 0.07)
        found += len(reference) > 0
    assert found >= 39


def test_a_single_bang_in_silence_leaves_no_reference_and_stays_in_the_mixture() -> None:
    clip = np.zeros(5 * RATE, np.float32)
    clip[2 * RATE : 2 * RATE + 200] = 0.5
    clip += 1e-4 * np.random.default_rng(0).standard_normal(len(clip)).astype(np.float32)
    with_bang = 0
    for seed in range(20):
        reference, mixture_noise = disjoint(clip, 2 * RATE, RATE, np.random.default_rng(seed))
        assert len(reference) == 0
        with_bang += np.abs(mixture_noise).max() > 0.4
    assert with_bang >= 19


@pytest.mark.parametrize("length", [0, 100, RATE, 5 * RATE])
def test_pure_silence_gives_a_silent_mixture_and_no_reference(length: int) -> None:
    reference, mixture_noise = disjoint(np.zeros(length, np.float32), RATE, RATE, np.random.default_rng(0))
    assert len(reference) == 0
    assert mixture_noise.shape == (RATE,)
    assert not mixture_noise.any()


def test_the_oracle_is_a_part_of_the_mixture() -> None:
    for seed in range(20):
        reference = oracle(ramp(3 * RATE), RATE, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.diff(reference), 1)
        assert 0.25 * RATE <= len(reference) <= 2 * RATE
    assert len(oracle(ramp(100), RATE, np.random.default_rng(0))) == 100
    assert len(oracle(np.zeros(RATE, np.float32), RATE, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("seed", range(60))
def test_crop_and_reference_lie_in_the_file_and_10_ms_apart(seed: int) -> None:
    rng = np.random.default_rng((7, seed))
    num_samples, wanted = int(rng.integers(0.1 * RATE, 6 * RATE)), int(rng.integers(0.6 * RATE, 3 * RATE))
    crop, reference = paired_crop(num_samples, wanted, RATE, rng)
    crop_length, reference_length = crop.stop - crop.start, reference.stop - reference.start
    assert 0 <= crop.start < crop.stop <= num_samples
    assert crop_length <= wanted
    if reference_length == 0:
        assert crop_length == min(wanted, num_samples)
        assert num_samples < wanted + 0.26 * RATE
        return
    assert 0 <= reference.start < reference.stop <= num_samples
    assert 0.25 * RATE <= reference_length <= 2 * RATE
    assert crop_length >= min(wanted, 0.5 * RATE, 0.6 * num_samples - 1)
    assert max(reference.start - crop.stop, crop.start - reference.stop) >= GUARD


def test_the_crop_shrinks_to_60_percent_of_a_short_file_but_not_of_a_long_one() -> None:
    rng = np.random.default_rng(0)
    short = [paired_crop(2 * RATE, 2 * RATE, RATE, rng) for _ in range(200)]
    assert min(crop.stop - crop.start for crop, _ in short) == pytest.approx(1.2 * RATE, rel=0.02)
    assert all(reference.stop > reference.start for _, reference in short)
    long = [paired_crop(5 * RATE, 2 * RATE, RATE, rng) for _ in range(200)]
    assert {crop.stop - crop.start for crop, _ in long} == {2 * RATE}
    assert {crop.start < reference.start for crop, reference in long} == {True, False}


def test_the_residual_reference_is_the_noise_outside_the_crop() -> None:
    clean, noise = np.full(3 * RATE, 0.5, np.float32), ramp(3 * RATE)
    for seed in range(20):
        crop_clean, crop_noisy, reference = residual_crop(noise + clean, clean, RATE, RATE, np.random.default_rng(seed))
        assert len(crop_clean) == len(crop_noisy) == RATE
        np.testing.assert_array_equal(np.diff(reference), 1)
        assert not set(reference) & set(crop_noisy - crop_clean)


def test_a_pair_without_noise_gives_a_crop_and_no_reference() -> None:
    clean = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    crop_clean, crop_noisy, reference = residual_crop(clean, clean, RATE, RATE, np.random.default_rng(0))
    assert len(reference) == 0
    np.testing.assert_array_equal(crop_clean, crop_noisy)
    assert len(crop_clean) == RATE


KINDS = ["dog", "dog", "dog", "rain", "rain", "rain"]
SOURCES = ["a", "a", "b", "c", "d", "e"]


def test_a_partner_of_the_same_class_is_never_of_the_same_source() -> None:
    for seed in range(10):
        chosen = partners(KINDS, SOURCES, "same_class", seed)
        for item, other in enumerate(chosen):
            assert other is not None
            assert KINDS[item] == KINDS[other]
            assert SOURCES[item] != SOURCES[other]


def test_a_mismatched_partner_is_of_another_kind_and_each_is_used_equally_often() -> None:
    kinds = [f"kind {i % 4}" for i in range(48)]
    chosen = partners(kinds, [str(i) for i in range(48)], "mismatched", 0)
    assert all(other is not None and kinds[item] != kinds[other] for item, other in enumerate(chosen))
    assert max(chosen.count(i) for i in range(48)) <= 2
    assert chosen == partners(kinds, [str(i) for i in range(48)], "mismatched", 0)
    assert chosen != partners(kinds, [str(i) for i in range(48)], "mismatched", 1)


def test_partners_of_forty_thousand_items_are_drawn_in_a_moment() -> None:
    kinds, sources = [f"kind {i % 20}" for i in range(40_000)], [str(i // 5) for i in range(40_000)]
    start = time.process_time()
    assert None not in partners(kinds, sources, "mismatched", 0)
    assert time.process_time() - start < 6, "more than 10 s where each item looks at all others"


def test_another_take_is_of_the_same_source_and_who_has_none_gets_none() -> None:
    assert partners(KINDS, SOURCES, "other_take", 0) == [1, 0, None, None, None, None]
    assert partners(["dog", "rain"], ["a", "b"], "same_class", 0) == [None, None]


def test_a_mixture_of_two_noises_shares_neither_with_a_mismatched_partner() -> None:
    kinds, sources = ["dog+rain", "rain", "bell"], ["a+b", "c", "d"]
    assert partners(kinds, sources, "mismatched", 0)[0] == 2
    assert partners(kinds, ["a+b", "c", "b"], "mismatched", 0)[0] is None


def test_a_reference_that_was_cut_from_the_item_itself_is_not_its_partner() -> None:
    """As in VoiceBank-DEMAND, where the reference of one file is the noise of another."""
    names = ["x", "y", "z"]
    for seed in range(10):
        chosen = partners(["bus"] * 3, names, "same_class", seed, reference_sources=["y", "z", "x"])
        assert chosen == [1, 2, 0]
