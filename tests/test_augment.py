"""Facts about augmentation: closed forms, and that a noise and its reference go through the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgmse.common.errors import UserError
from sgmse.data.mixing import rms
from sgmse.data.noise import Cut, CutLengths, augment
from sgmse.data.noise.augment import KINDS, Augmentation, Transform, parse

RATE = 8000
ALWAYS = Augmentation(1, 1, 1, 1, 1, 1)


def white(length: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def tone(frequency: float, length: int) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * frequency * np.arange(length) / RATE)).astype(np.float32)


def strongest_frequency(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 2**17)).argmax() * RATE / 2**17)


def test_probabilities_are_read_by_kind() -> None:
    assert parse([]) == Augmentation()
    assert parse(["mix=0.3", "gain=1"]) == Augmentation(mix=0.3, gain=1.0)
    assert KINDS == ("mix", "stretch", "pitch", "concatenate", "equalise", "gain")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("strech=0.3", "there is no kind 'strech'; did you mean stretch?"),
        ("0.3", "there is no kind '0.3'; use one of mix, stretch, pitch"),
        ("mix", "a probability from 0 to 1 is needed, as in mix=0.3"),
        ("mix=often", "a probability from 0 to 1 is needed"),
        ("mix=1.5", "a probability from 0 to 1 is needed"),
        ("mix=nan", "a probability from 0 to 1 is needed"),
        ("gain=0.5", "gain is given twice"),
    ],
)
def test_a_wrong_word_is_named(word: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse(["gain=0.1", word])
    assert f"--noise_augment {word}: " in str(error.value)
    assert sentence in str(error.value)


def test_transforms_are_drawn_as_often_as_their_probability_says() -> None:
    rng = np.random.default_rng(0)
    drawn = [augment.draw(Augmentation(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), rng) for _ in range(4000)]
    shares = [t.alpha is not None for t in drawn], [t.tempo != 1 for t in drawn], [t.semitones != 0 for t in drawn]
    shares += [len(t.shares) > 0 for t in drawn], [len(t.equaliser_db) > 0 for t in drawn]
    shares += ([t.swell is not None for t in drawn],)
    assert np.mean(shares, axis=1) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=0.03)
    assert {len(t.shares) for t in drawn} == {0, 2, 3}
    assert all(sum(t.shares) == pytest.approx(1) for t in drawn if t.shares)
    assert all(0.3 <= t.alpha <= 0.7 for t in drawn if t.alpha is not None)
    assert all(0.8 <= t.tempo <= 1.25 and abs(t.semitones) <= 4 for t in drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_switching_one_kind_off_leaves_the_draws_of_the_others(kind: str) -> None:
    for seed in range(5):
        whole, partial = (augment.draw(a, np.random.default_rng(seed)) for a in (ALWAYS, replace(ALWAYS, **{kind: 0})))
        differing = [name for name, value in vars(whole).items() if getattr(partial, name) != value]
        assert len(differing) == 1
        assert getattr(partial, differing[0]) == getattr(Transform(), differing[0])


def test_the_transform_that_changes_nothing_changes_nothing() -> None:
    cut, lengths = Cut(white(3000), white(8000, 1)), CutLengths(8000, 0.25, 2.0)
    same = Transform()(cut, 8000, RATE)
    np.testing.assert_array_equal(same.noise, cut.noise)
    np.testing.assert_array_equal(same.reference, cut.reference)
    assert Transform().source(lengths) == lengths


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_noise_keeps_its_length_and_level_and_the_reference_its_bounds(rate: int) -> None:
    for seed in range(12):
        transform = augment.draw(ALWAYS, np.random.default_rng(seed))
        source = transform.source(CutLengths(rate, 0.25, 0.8))
        for seconds in (source.min_s, source.max_s):
            cut = Cut(white(round(seconds * rate), 1), white(source.length, 2))
            changed = transform(cut, rate, rate)
            assert changed.noise.shape == (rate,)
            assert changed.noise.dtype == changed.reference.dtype == np.float32
            assert rms(changed.noise) == pytest.approx(rms(cut.noise), rel=1e-4)
            assert 0.25 * rate - 8 <= len(changed.reference) <= 0.8 * rate + 8
        assert len(transform(cut._replace(reference=white(0)), rate, rate).reference) == 0


def test_equal_waveforms_stay_equal_as_noise_and_as_reference() -> None:
    for seed in range(6):
        transform = augment.draw(ALWAYS, np.random.default_rng(seed))
        source = white(transform.source(CutLengths(RATE, 0.25, 1.0)).length)
        changed = transform(Cut(source, source), RATE, RATE)
        np.testing.assert_array_equal(changed.reference[:RATE], changed.noise)


@pytest.mark.parametrize(("tempo", "semitones"), [(1.25, 0.0), (0.8, 0.0), (1.0, 4.0), (1.0, -4.0), (0.9, 2.5)])
def test_tempo_changes_the_duration_and_semitones_the_pitch(tempo: float, semitones: float) -> None:
    changed = augment.retime(tone(500, 2 * RATE), RATE, tempo, semitones)
    assert len(changed) == pytest.approx(2 * RATE / tempo, abs=4)
    assert strongest_frequency(changed[500:-500]) == pytest.approx(500 * 2 ** (semitones / 12), rel=2e-3)


def test_the_equaliser_has_the_drawn_gains_at_its_frequencies() -> None:
    gains_db = (6.0, -5.0, 3.0, 8.0, -8.0, 2.0)
    impulse = np.zeros(4 * RATE, np.float32)
    impulse[2 * RATE] = 1
    response = augment.equalise(impulse, RATE, gains_db)
    assert np.abs(response).argmax() == 2 * RATE, "linear phase without delay"
    found = 20 * np.log10(np.abs(np.fft.rfft(response)))
    at = np.round(np.geomspace(60, RATE / 2, 6) * 4).astype(int)
    assert found[at[1:-1]] == pytest.approx(gains_db[1:-1], abs=1.0)


def test_a_swell_is_a_sine_of_the_level() -> None:
    noise, time = white(RATE), np.arange(RATE) / RATE
    level_db = 5 * np.sin(2 * np.pi * 0.4 * time + 1)
    np.testing.assert_allclose(augment.swell(noise, RATE, 5, 0.4, 1.0), noise * 10 ** (level_db / 20), rtol=1e-4)


def test_a_blend_weighs_two_noises_of_equal_level_and_their_references_alike() -> None:
    a, b = Cut(white(900, 1), white(5000, 2)), Cut(3 * white(900, 3), 3 * white(5000, 4), looped=True)
    blend, factor = augment.blend(a, b, 0.4), rms(a.noise) / rms(b.noise)
    np.testing.assert_allclose(blend.noise, 0.4 * a.noise + 0.6 * factor * b.noise, atol=1e-7)
    np.testing.assert_allclose(blend.reference, 0.4 * a.reference + 0.6 * factor * b.reference, atol=1e-7)
    assert blend.looped


def test_a_room_is_a_convolution_without_delay_at_the_level_of_the_speech() -> None:
    speech, response = white(RATE), np.zeros(600, np.float32)
    response[[100, 400]] = 0.8, 0.3
    wet = augment.reverberate(speech, response)
    expected = 0.8 * speech
    expected[300:] += 0.3 * speech[:-300]
    np.testing.assert_allclose(wet, expected * rms(speech) / rms(expected), atol=1e-6)
    np.testing.assert_allclose(augment.reverberate(speech, response[:300]), speech, atol=1e-6)
    np.testing.assert_array_equal(augment.reverberate(speech, np.zeros(9, np.float32)), speech)
