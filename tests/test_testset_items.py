"""Items of test sets: levels, disjoint cuts, noise that changes."""

import numpy as np
import pytest
from noise_classes import RATE, white

from sgmse.data import references
from sgmse.data.mixing import rms
from sgmse.data.testsets import items


def test_digital_silence_does_not_count_for_the_level():
    noise = white(1, 5)
    padded = np.concatenate([noise, np.zeros(5 * RATE, np.float32), noise])
    assert items.sounding_rms(padded, RATE) == pytest.approx(rms(noise), rel=1e-6)
    assert items.sounding_rms(np.zeros(100, np.float32), RATE) == 0


def test_the_ratio_of_a_mixture_is_the_stated_one_however_quiet_the_noise_was_recorded():
    clean, noise = white(2, 6), white(2, 7)
    noise[RATE // 2 : RATE] *= 10 ** (-45 / 20)  # faint, but of the recording
    for recorded in (1.0, 1e-3):
        speech, scaled, _ = items.mix(clean, np.float32(recorded) * noise, 5.0, RATE, noise[:100])
        for volume in (1.0, 1e-2):
            level = items.sounding_rms(np.float32(volume) * scaled, RATE) / volume
            assert 20 * np.log10(rms(speech) / level) == pytest.approx(5.0, abs=1e-3)


def test_noise_with_silence_inside_is_mixed_at_the_level_of_the_same_noise_without():
    clean, noise = white(2, 6), white(2, 7)
    gappy = noise.copy()
    gappy[RATE // 2 : 3 * RATE // 2] = 0
    _, whole, _ = items.mix(clean, noise, 5.0, RATE, noise)
    _, gated, _ = items.mix(clean, gappy, 5.0, RATE, noise)
    sounding = gappy != 0
    assert rms(gated[sounding]) == pytest.approx(rms(whole[sounding]), rel=0.02)


def test_a_cut_shares_no_sample_with_its_noise_and_says_where_both_begin():
    clip = np.arange(1, 3 * RATE + 1, dtype=np.float32)  # every sample is unique
    for seed in range(20):
        cut = items.cut(clip, RATE, RATE, np.random.default_rng(seed), 0.25, 1.0)
        unit = cut.noise[0] / clip[cut.noise_start]
        np.testing.assert_allclose(cut.noise, unit * clip[cut.noise_start :][:RATE], rtol=1e-5)
        np.testing.assert_allclose(cut.reference, unit * clip[cut.reference_start :][: len(cut.reference)], rtol=1e-5)
        first = min((cut.reference_start, len(cut.reference)), (cut.noise_start, RATE))
        gap = max(cut.reference_start, cut.noise_start) - sum(first)
        assert gap == round(references.GUARD_S * RATE)
        assert items.sounding_rms(cut.noise, RATE) == pytest.approx(1, rel=1e-4)


def test_noise_shorter_than_the_speech_is_looped_and_counted():
    cut = items.cut(white(1, 8), 2 * RATE, RATE, np.random.default_rng(0), 0.25, 0.3)
    assert cut.looped
    assert len(cut.noise) == 2 * RATE


def test_a_clip_with_one_sound_leaves_no_reference():
    clip = np.zeros(2 * RATE, np.float32)
    clip[:200] = 0.5
    assert items.cut(clip, RATE, RATE, np.random.default_rng(0), 0.25, 1.0) is None


def test_rumble_is_removed_and_the_audible_stays():
    time = np.arange(2 * RATE) / RATE
    audible = np.sin(2 * np.pi * 300 * time).astype(np.float32)
    cleaned = items.without_rumble(audible + 3 * np.sin(2 * np.pi * 3 * time).astype(np.float32) + 1, RATE)
    middle = slice(RATE // 2, -RATE // 2)
    assert rms(cleaned[middle] - audible[middle]) < 0.05 * rms(audible)


def test_concat_changes_its_noise_at_the_time_of_its_timeline():
    rng = np.random.default_rng(0)
    first, second = items.concat_lengths(2 * RATE, RATE, rng)
    noise, timeline = items.concat([np.ones(first, np.float32), np.full(second, 3, np.float32)], ["a", "b"], RATE)
    assert len(noise) == 2 * RATE
    one, two = timeline.split(";")
    switch = float(one.split()[0].split("-")[1])
    assert 0.35 <= switch / 2 <= 0.65
    assert two == f"{switch:.2f}-2.00 b"
    around = round(0.02 * RATE)
    assert set(noise[: round(switch * RATE) - around]) == {1}
    assert set(noise[round(switch * RATE) + around :]) == {3}


def test_ramp_moves_the_level_by_15_db():
    noise, timeline = items.ramp(np.ones(2 * RATE, np.float32), "a", RATE, np.random.default_rng(0))
    assert abs(20 * np.log10(noise[-1] / noise[0])) == pytest.approx(15, abs=1e-3)
    assert timeline.endswith(" dB")


def test_events_stand_10_db_above_the_bed_at_the_times_of_the_timeline():
    rng = np.random.default_rng(1)
    lengths = items.event_lengths(3 * RATE, RATE, rng)
    bed = np.full(3 * RATE, 0.1, np.float32)
    noise, timeline = items.events(bed, white(sum(lengths) / RATE, 9), lengths, ["rain", "dog"], RATE, rng)
    spans = [tuple(map(float, span.split()[0].split("-"))) for span in timeline.split(";")]
    assert spans[0] == (0, 3)
    assert len(spans) == 1 + len(lengths)
    burst = noise - bed
    for start, end in spans[1:]:
        inside = burst[round(start * RATE) + 80 : round(end * RATE) - 80]
        assert 20 * np.log10(rms(inside) / 0.1) == pytest.approx(10, abs=0.6)
    outside = np.ones(len(bed), bool)
    for start, end in spans[1:]:
        outside[round(start * RATE) - 80 : round(end * RATE) + 80] = False
    assert not burst[outside].any()


def test_pauses_of_the_speech_count_as_everywhere():
    clean, noise = white(2, 20), white(2, 21)
    clean[RATE // 2 : RATE] = 0
    clean, noise, _ = items.mix(clean, noise, 5.0, RATE, noise)
    assert 20 * np.log10(rms(clean) / rms(noise)) == pytest.approx(5, abs=0.01)
