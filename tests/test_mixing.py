"""Facts about mixing: the ratio of energies, loops without clicks, crops."""

import numpy as np
import pytest

from sgmse.data.mixing import crop_or_pad, crossfade, is_silent, loop_crossfade, rms, snr_gain, trim_silence

RATE = 16000


def white(length: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 12.5])
def test_the_mixture_has_the_requested_ratio_of_energies(snr_db: float) -> None:
    clean, noise = white(RATE, 1, 0.3), white(RATE, 2, 0.01)
    scaled = noise * snr_gain(rms(clean), rms(noise), snr_db)
    assert 10 * np.log10(np.sum(clean**2.0) / np.sum(scaled**2.0)) == pytest.approx(snr_db, abs=1e-3)


def test_silence_has_no_signal_to_noise_ratio() -> None:
    silence = np.zeros(RATE, np.float32)
    for clean, noise in ((silence, white(RATE)), (white(RATE), silence)):
        with pytest.raises(ValueError, match="silence"):
            snr_gain(rms(clean), rms(noise), 0.0)


def test_the_rounding_of_a_16_bit_file_counts_as_silence_and_a_faint_recording_does_not() -> None:
    rounding = np.random.default_rng(0).integers(-1, 2, RATE).astype(np.float32) / 2**15
    assert is_silent(rounding)
    assert is_silent(np.zeros(0, np.float32))
    assert not is_silent(white(RATE, level=1e-3))


def test_trimming_removes_zeros_at_the_ends_only() -> None:
    padded = np.concatenate([np.zeros(50), [0.5, 0, 0, -0.5], np.zeros(70)]).astype(np.float32)
    np.testing.assert_array_equal(trim_silence(padded), np.array([0.5, 0, 0, -0.5], np.float32))
    assert trim_silence(np.zeros(10, np.float32)).size == 0


def test_a_looped_tone_has_no_click_at_the_seam() -> None:
    tone = np.sin(2 * np.pi * 100.3 * np.arange(8000) / RATE).astype(np.float32)
    assert abs(tone[0] - tone[-1]) > 0.15, "a plain repetition must click for this test to mean something"
    steps = np.abs(np.diff(loop_crossfade(tone, 3 * RATE, RATE)))
    assert steps.max() < 1.5 * np.abs(np.diff(tone)).max()


def test_a_looped_noise_keeps_its_level_at_the_seams() -> None:
    length, fade = 4000, 320
    energies = []
    for seed in range(400):
        looped = loop_crossfade(white(length, seed, 1.0), 3 * length, RATE)
        energies.append(
            [rms(looped[start : start + fade]) ** 2 for start in (1000, length - fade, 2 * (length - fade))]
        )
    plain, first_seam, second_seam = np.mean(energies, axis=0)
    assert first_seam == pytest.approx(plain, rel=0.03)
    assert second_seam == pytest.approx(plain, rel=0.03)


@pytest.mark.parametrize(("source", "wanted"), [(1, 100), (2, 7), (15, 1000), (700, 16000), (700, 710), (9000, 100)])
def test_a_loop_has_the_wanted_length_and_starts_with_the_noise_itself(source: int, wanted: int) -> None:
    noise = white(source)
    looped = loop_crossfade(noise, wanted, RATE)
    assert looped.shape == (wanted,)
    assert looped.dtype == np.float32
    untouched = min(wanted, source - min(320, source // 2))
    np.testing.assert_array_equal(looped[:untouched], noise[:untouched])


def test_a_crossfade_keeps_both_outer_parts() -> None:
    first, second = white(1000, 1), white(900, 2)
    joined = crossfade(first, second, RATE)
    assert len(joined) == 1900 - 320
    np.testing.assert_array_equal(joined[:680], first[:680])
    np.testing.assert_array_equal(joined[1000:], second[320:])
    np.testing.assert_array_equal(crossfade(first, first[:0], RATE), first)


def test_a_crop_is_contiguous_and_padding_keeps_everything() -> None:
    ramp = np.arange(1, 101, dtype=np.float32)
    starts = set()
    for seed in range(50):
        crop = crop_or_pad(ramp, 30, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.diff(crop), np.ones(29))
        padded = crop_or_pad(ramp, 130, np.random.default_rng(seed))
        np.testing.assert_array_equal(padded[padded > 0], ramp)
        assert len(padded) == 130
        starts |= {int(crop[0]), -int(np.argmax(padded))}
    assert len(starts) > 30
