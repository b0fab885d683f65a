"""A reference from the noisy recording alone: speech-free stretches, or the spectral minimum."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import welch

from sgmse.data import audio, corpora, listing
from sgmse.data.mixing import rms
from sgmse.data.noise import synthetic
from sgmse.data.references.estimated import estimate_noise, find_speech, join_gaps, minimum_statistics, shape_noise

ROOT = Path(__file__).parent.parent

RATE = 16000
TEST_SET = corpora.embedded_dir() / "test"
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


def speech_between_pauses() -> np.ndarray:
    """One utterance of the embedded corpus between a second of silence before and one after."""
    clean = audio.read(listing.find(TEST_SET / "clean")[0], RATE)
    return np.concatenate([np.zeros(RATE, np.float32), clean, np.zeros(RATE, np.float32)])


def test_the_gaps_of_noisy_speech_hold_the_noise_and_no_speech() -> None:
    clean = speech_between_pauses()
    noise = synthetic.pink(len(clean), RATE, np.random.default_rng(0))
    estimate = estimate_noise(clean + noise, RATE, seed=0)
    assert estimate.way == "gaps"
    assert 1.5 * RATE <= len(estimate.reference) <= 4 * RATE
    assert rms(estimate.reference) == pytest.approx(rms(noise), rel=0.1)


def test_speech_is_found_where_it_is_at_other_rates_too() -> None:
    clean = speech_between_pauses()
    noisy = clean + 0.1 * synthetic.pink(len(clean), RATE, np.random.default_rng(0))
    for rate in (8000, RATE, 44100):
        stretches = find_speech(audio.resample(noisy, RATE, rate), rate)
        assert stretches[0][0] / rate == pytest.approx(1.0, abs=0.2)
        assert stretches[-1][1] / rate == pytest.approx(len(clean) / RATE - 1.0, abs=0.3)


def test_gaps_are_joined_by_cross_fades_short_and_silent_ones_left_out() -> None:
    noisy = np.ones(10 * RATE, np.float32)
    noisy[8 * RATE :] = 0
    spoken = [(RATE, 2 * RATE), (2 * RATE + 1000, 3 * RATE), (4 * RATE, 8 * RATE)]
    reference = join_gaps(noisy, spoken, RATE)  # gaps: 1 s, 1000 samples, 1 s, 2 s of silence
    assert len(reference) == 2 * RATE - 320
    assert reference.min() == 1
    assert len(join_gaps(np.ones(10 * RATE, np.float32), [], RATE)) == 4 * RATE
    assert len(join_gaps(noisy, [(0, len(noisy))], RATE)) == 0


@pytest.mark.parametrize("name", ["white", "pink", "resonances"])
def test_the_spectrum_of_steady_noise_is_met_within_1_db(name: str) -> None:
    noise = synthetic.SYNTHETIC_NOISES[name](4 * RATE, RATE, np.random.default_rng(1))
    made = shape_noise(minimum_statistics(noise, RATE), 4 * RATE, np.random.default_rng(0))
    expected, found = (welch(x, RATE, nperseg=512)[1][4:].reshape(11, 23).mean(axis=1) for x in (noise, made))
    np.testing.assert_allclose(10 * np.log10(found / expected), 0, atol=1.0)


def test_minimum_statistics_look_below_the_speech() -> None:
    """Speech without any pause, on average 5 dB above the noise, raises the estimate by less than 3 dB."""
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal(4 * RATE).astype(np.float32)
    syllables = np.sin(2 * np.pi * 2 * np.arange(4 * RATE) / RATE).clip(0) ** 2
    talk = 0.02 * 10 ** (5 / 20) * syllables * rng.standard_normal(4 * RATE) / rms(syllables)
    estimate = shape_noise(minimum_statistics((noise + talk).astype(np.float32), RATE), RATE, rng)
    assert 0 <= 20 * np.log10(rms(estimate) / rms(noise)) < 3


def test_without_gaps_noise_of_the_estimated_spectrum_is_drawn_from_the_seed() -> None:
    clean = speech_between_pauses()
    begin, end = find_speech(clean, RATE)[0]
    noisy = clean[begin + 1600 : end - 1600] + 0.003 * np.random.default_rng(0).standard_normal(end - begin - 3200)
    first, again, other = (estimate_noise(noisy.astype(np.float32), RATE, seed) for seed in (0, 0, 1))
    assert first.way == "minimum"
    assert first.reference.shape == (RATE,)
    np.testing.assert_array_equal(first.reference, again.reference)
    assert (first.reference != other.reference).any()
    assert rms(first.reference) < 0.3 * rms(noisy)


@pytest.mark.parametrize("length", [1, 300, 4000])
def test_silent_recordings_give_none_and_very_short_ones_a_finite_reference(length: int) -> None:
    assert len(estimate_noise(np.zeros(length, np.float32), RATE, 0).reference) == 0
    noisy = 0.1 * np.random.default_rng(0).standard_normal(length).astype(np.float32)
    reference = estimate_noise(noisy, RATE, 0).reference
    assert len(reference) >= RATE // 4
    assert np.isfinite(reference).all()


def test_the_detector_touches_no_network_and_leaves_the_settings_of_torch_alone() -> None:
    code = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import numpy as np, torch
torch.set_num_threads(2)
from sgmse.data.references.estimated import find_speech
assert find_speech(np.zeros(16000, np.float32), 16000) == []
assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == (2, True, torch.float32)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
