"""The leak score finds shared samples, and tells them from sounds that only repeat."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from sgmse.data import audio
from sgmse.data.mixing import rms, snr_gain
from sgmse.data.noise import synthetic
from sgmse.data.references import disjoint, leak, oracle

RATE = 16000


def rounded(waveform: np.ndarray) -> np.ndarray:
    """As a 16-bit file holds it."""
    return np.round(waveform * 2**15).astype(np.float32) / 2**15


def in_mixture(noise: np.ndarray, snr_db: float = 5.0) -> np.ndarray:
    """noisy - clean of 16-bit files."""
    clean = 0.05 * np.random.default_rng(9).standard_normal(len(noise)).astype(np.float32)
    return rounded(clean + noise * np.float32(snr_gain(rms(clean), rms(noise), snr_db))) - rounded(clean)


def bell(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """The same stroke over and over, as an alarm clock does, over a faint noise of its own."""
    stroke = np.arange(RATE // 4) / RATE
    stroke = sum(np.exp(-12 * stroke) * np.sin(2 * np.pi * f * stroke) for f in (620, 1430, 2310, 3790, 5100))
    struck = np.resize(0.1 * stroke, round(seconds * RATE))
    return (struck + 1e-3 * rng.standard_normal(len(struck))).astype(np.float32)


def noises() -> dict[str, np.ndarray]:
    made = {name: f(5 * RATE, RATE, np.random.default_rng(1)) for name, f in synthetic.SYNTHETIC_NOISES.items()}
    return made | {"bell": bell(5, np.random.default_rng(1))}


STEADY = ("white", "pink", "brown", "resonances", "modulated", "pulses", "chirps", "hum", "bell")


def reference_peak(reference: np.ndarray, noise: np.ndarray, min_overlap: int) -> tuple[float, int]:
    """Lag by lag."""
    best = (0.0, 0)
    for lag in range(1 - len(reference), len(noise)):
        first, last = max(lag, 0), min(lag + len(reference), len(noise))
        if last - first >= min_overlap:
            a, b = noise[first:last], reference[first - lag : last - lag]
            value = abs(float(a @ b)) / float(np.linalg.norm(a) * np.linalg.norm(b))
            best = max(best, (value, lag))
    return best


def test_the_peak_is_the_largest_normalised_correlation_of_all_lags() -> None:
    rng = np.random.default_rng(0)
    for reference_length, noise_length in ((300, 900), (900, 300), (400, 400)):
        noise = lfilter([1], [1, -0.9], rng.standard_normal(noise_length))
        reference = np.concatenate([rng.standard_normal(reference_length // 2), -noise[: reference_length // 2]])
        expected = reference_peak(reference, noise, 100)
        peak, lag = leak.correlation_peak(reference, noise, 100)
        assert lag == expected[1]
        assert peak == pytest.approx(expected[0], abs=1e-9)


@pytest.mark.parametrize("name", [*synthetic.SYNTHETIC_NOISES, "bell"])
def test_disjoint_references_never_count_as_shared_also_of_repeating_and_of_looped_noise(name: str) -> None:
    for seed, seconds in ((0, 3), (1, 6)):
        reference, noise = disjoint(noises()[name], seconds * RATE, RATE, np.random.default_rng(seed))
        assert not leak.score(rounded(reference), in_mixture(noise), RATE).shared


@pytest.mark.parametrize("name", STEADY)
def test_overlapping_references_are_found_with_their_place_at_any_level_and_sign(name: str) -> None:
    noise = noises()[name][: 3 * RATE]
    for gain in (1.0, -0.3):
        reference = oracle(noise, RATE, np.random.default_rng(3), 0.5)
        start = next(i for i in range(len(noise)) if np.array_equal(noise[i : i + len(reference)], reference))
        found = leak.score(rounded(gain * reference), in_mixture(noise), RATE)
        assert found.shared
        assert found.peak > 0.98
        assert found.lag_s == pytest.approx(start / RATE)


@pytest.mark.parametrize("name", STEADY)
def test_a_fifth_of_a_reference_is_enough_to_be_found(name: str) -> None:
    reference, noise = disjoint(noises()[name], 3 * RATE, RATE, np.random.default_rng(2), 1.0)
    reference = reference.copy()
    reference[2000 : 2000 + RATE // 5] = noise[20000 : 20000 + RATE // 5]
    found = leak.score(rounded(reference), in_mixture(noise), RATE)
    assert found.shared
    assert found.lag_s == pytest.approx(18000 / RATE)


def test_a_sound_that_repeats_over_noise_of_its_own_is_not_shared() -> None:
    """Blocks of it agree in phase as far as its sound is above that noise: the threshold lies close to 1."""
    rng = np.random.default_rng(0)
    stroke = 0.1 * rng.standard_normal(RATE // 4)
    noise = np.resize(stroke, 4 * RATE) + 0.03 * rng.standard_normal(4 * RATE)
    agrees, audible = leak.agreement(noise[:2400], noise[RATE // 4 : RATE // 4 + 2400], RATE)
    assert 0.8 < agrees < leak.AGREEMENT
    assert audible > leak.AUDIBLE_SHARE
    assert not leak.score(rounded(noise[:RATE]), in_mixture(noise[2 * RATE :]), RATE).shared


def test_a_shift_by_half_a_sample_hides_nothing() -> None:
    noise = noises()["pink"][: 3 * RATE]
    shifted = audio.resample(audio.resample(noise, RATE, 2 * RATE)[1:], 2 * RATE, RATE)
    assert leak.score(rounded(shifted[RATE : 2 * RATE]), in_mixture(noise), RATE).shared


def test_a_recording_with_pasted_copies_counts_as_shared() -> None:
    pasted = np.tile(noises()["modulated"][:RATE], 4)
    assert leak.score(pasted[:RATE], pasted[2 * RATE :], RATE).shared


def test_other_rates_are_served_too() -> None:
    for rate in (8000, 48000):
        noise = synthetic.pink(3 * rate, rate, np.random.default_rng(0))
        other = synthetic.pink(rate, rate, np.random.default_rng(1))
        assert leak.score(noise[rate : 2 * rate], noise, rate).shared
        assert not leak.score(other, noise, rate).shared


@pytest.mark.parametrize("length", [0, 1, 100, 520, RATE])
def test_short_and_silent_references_give_a_finite_score(length: int) -> None:
    noise = noises()["white"]
    for reference in (noise[:length], np.zeros(length, np.float32)):
        for pair in ((reference, noise), (noise, reference)):
            found = leak.score(*pair, RATE)
            assert 0 <= found.peak <= 1
            assert found.shared == (length >= 520 and reference.any())


def test_of_a_long_reference_what_enhancement_uses_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    clean, noise, before = (0.1 * rng.standard_normal(n * RATE).astype(np.float32) for n in (2, 2, 2))
    signals = {"clean": clean, "noisy": clean + noise, "ref": np.concatenate([before, noise])}
    paths = {name: tmp_path / f"{name}.wav" for name in signals}
    for name, path in paths.items():
        audio.write(path, signals[name], RATE)
    for seconds, shared in ((4.0, True), (2.0, False)):
        monkeypatch.setattr(leak, "HEAD_S", seconds)
        assert leak.score_files(paths["ref"], paths["noisy"], paths["clean"]).shared == shared
