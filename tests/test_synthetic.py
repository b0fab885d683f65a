"""Facts about synthetic noise; slopes and levels are looked at beside the embedded corpus, which is made of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import correlate

from sgmse.data import noise
from sgmse.data.noise.synthetic import SYNTHETIC_NOISES, drone, hum, pulse_train, pulses, siren, vibrato, warble

RATE = 16000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def spread_of_the_strongest_line(noise: np.ndarray) -> float:
    """Of the strongest frequency above 500 Hz: the part of the energy within 10 Hz that is farther than 1.5 Hz off."""
    power = np.abs(np.fft.rfft(noise * np.hanning(len(noise)))) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    power[frequencies < 500] = 0
    distance = np.abs(frequencies - frequencies[power.argmax()])
    return float(power[(distance > 1.5) & (distance < 10)].sum() / power[distance < 10].sum())


def regularity(noise: np.ndarray) -> float:
    """The largest autocorrelation of the envelope [per 2 ms] at lags of 15 to 520 ms; 1 for a strict repetition."""
    envelope = np.square(noise[: len(noise) // 32 * 32]).reshape(-1, 32).mean(axis=1)
    envelope -= envelope.mean()
    return float(correlate(envelope, envelope)[len(envelope) - 1 :][8:260].max() / np.sum(envelope**2))


def test_vibrato_moves_the_pitch_by_at_most_one_and_a_half_semitones_three_to_nine_times_a_second() -> None:
    for seed in range(20):
        semitones = 12 * np.log2(vibrato(4 * RATE, RATE, rng(seed)))
        assert 0.19 < np.abs(semitones).max() <= 1.5
        upward = np.sum((semitones[:-1] < 0) & (semitones[1:] >= 0))
        assert 4 * 3 - 1 <= upward <= 4 * 9 + 1


def test_a_drone_wavers_and_a_hum_does_not() -> None:
    for seed in range(6):
        plain, wavering = (spread_of_the_strongest_line(kind(4 * RATE, RATE, rng(seed))) for kind in (hum, drone))
        assert plain < 0.02
        assert wavering > 10 * plain


def test_a_warble_is_a_siren_whose_pitch_also_moves_fast() -> None:
    def fast_movement(noise: np.ndarray) -> float:
        """Standard deviation in semitones of the strongest pitch in frames of 32 ms, against neighbouring frames."""
        frames = noise[: len(noise) // 512 * 512].reshape(-1, 512) * np.hanning(512)
        pitch = 12 * np.log2(np.abs(np.fft.rfft(frames, 8192)).argmax(axis=1))
        return float(np.median(np.abs(pitch[2:] - 2 * pitch[1:-1] + pitch[:-2])))

    plain = [fast_movement(siren(4 * RATE, RATE, rng(seed))) for seed in range(8)]
    wavering = [fast_movement(warble(4 * RATE, RATE, rng(seed))) for seed in range(8)]
    assert np.mean(wavering) > 2 * np.mean(plain)


def test_the_pulses_of_a_train_come_at_equal_times_and_clicks_do_not() -> None:
    trains = [regularity(pulse_train(6 * RATE, RATE, rng(seed))) for seed in range(8)]
    clicks = [regularity(pulses(6 * RATE, RATE, rng(seed))) for seed in range(8)]
    assert min(trains) > 0.35
    assert np.median(trains) > 0.6 > 2 * np.median(clicks)


def test_a_short_pulse_train_is_never_silent() -> None:
    assert all(np.abs(pulse_train(50, RATE, rng(seed))).max() > 0 for seed in range(30))


@pytest.mark.parametrize("kind", SYNTHETIC_NOISES)
def test_every_kind_is_long_enough_for_a_disjoint_reference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "SYNTHETIC_NOISES", {kind: SYNTHETIC_NOISES[kind]})
    for seed in range(3):
        cut = noise.draw_synthetic(noise.CutLengths(2 * RATE, 0.25, 2.0), RATE, rng(seed))
        assert len(cut.noise) == 2 * RATE
        assert 0.25 * RATE <= len(cut.reference) <= 2 * RATE
        assert not cut.looped


def test_noise_and_reference_of_a_procedure_are_two_stretches_of_one_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    def ramp(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(1, num_samples + 1, dtype=np.float32)

    monkeypatch.setattr(noise, "SYNTHETIC_NOISES", {"ramp": ramp})
    for seed in range(20):
        cut = noise.draw_synthetic(noise.CutLengths(RATE, 0.25, 1.0), RATE, rng(seed))
        inside, outside = set(cut.noise.tolist()), set(cut.reference.tolist())
        assert not inside & outside
        assert all(b - a == 1 for a, b in pairwise(cut.reference.tolist()))
