"""References as the protocols make them: shuffled, or lent by another item."""

import numpy as np
import pytest

from sgmse.data.mixing import rms
from sgmse.enhancement.protocols import match_level, shuffle_segments

RATE = 16000


def test_shuffling_permutes_segments_and_keeps_length_and_level():
    rng = np.random.default_rng(0)
    steps = np.repeat(np.arange(1, 11, dtype=np.float32), RATE // 20)  # ten segments of 50 ms
    reference = np.concatenate([steps, np.full(RATE // 50, 10, np.float32)])
    mixed = shuffle_segments(reference, RATE, rng)
    assert mixed.shape == reference.shape
    centres = mixed[RATE // 50 + RATE // 200 :: RATE // 20][:10]  # behind the cross-fade of each segment
    assert sorted(centres.round(3)) == list(range(1, 11))
    assert list(centres.round(3)) != list(range(1, 11))
    noise = rng.standard_normal(RATE).astype(np.float32)
    again, other = (shuffle_segments(noise, RATE, np.random.default_rng(seed)) for seed in (1, 2))
    assert rms(again) == pytest.approx(rms(noise), rel=0.05)
    assert np.array_equal(again, shuffle_segments(noise, RATE, np.random.default_rng(1)))
    assert not np.array_equal(again, other)
    assert np.array_equal(shuffle_segments(noise[:1000], RATE, rng), noise[:1000]), "too short to hold two segments"


def test_a_lent_reference_gets_the_level_of_the_own_one():
    noise = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    assert rms(match_level(noise, 0.1 * noise[:900])) == pytest.approx(rms(0.1 * noise[:900]), rel=1e-5)
    assert np.array_equal(match_level(noise, np.zeros(10, np.float32)), noise)
