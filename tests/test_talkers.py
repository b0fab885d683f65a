"""Facts about babble and competing talkers, with talkers that are tones: 300 Hz apart, each utterance 20 Hz higher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_corpora import RATE, SETTINGS, save

from sgmse.common.errors import UserError
from sgmse.data.corpora import split_files
from sgmse.data.mixing import rms
from sgmse.data.mixtures import DynamicMixing, Variation
from sgmse.data.noise import Cut, CutLengths
from sgmse.data.noise.talkers import Talkers, talker

LENGTHS = CutLengths(2 * RATE, 0.25, 1.0)


def save_tones(folder: Path, talkers: int, utterances: int, seconds: float = 3.0) -> Path:
    for who in range(talkers):
        for k in range(utterances):
            frequency = 300 * (who + 1) + 20 * k
            tone = 0.01 * (who + 1) * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
            save(folder / f"p{who}_{k}.wav", samples=tone)
    return folder


def source(folder: Path) -> Talkers:
    return Talkers(split_files([folder], "train", "speech"), RATE)


def find_tones(waveform: np.ndarray) -> set[tuple[int, int]]:
    """(talker, utterance) of every tone that is at most 20 dB below the strongest."""
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 8 * RATE))
    near = {
        (who, k): power[(300 * (who + 1) + 20 * k) * 8 + np.arange(-8, 9)].max() for who in range(12) for k in (0, 1)
    }
    return {name for name, value in near.items() if value > 0.1 * max(near.values())}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/p226_001.wav", "p226"),
        ("wav48/p226/p226_001_mic1.flac", "p226"),
        ("train-clean-100/19/198/19-198-0000.flac", "19"),
        ("DR1/FCJF0/SA1.wav", "FCJF0"),
        ("anna/take_3.wav", "anna"),
        ("train/espeak-en-gb-andy_112.flac", "espeak-en-gb-andy"),
    ],
)
def test_a_talker_is_known_by_name_or_folder(path: str, name: str) -> None:
    assert talker(Path(path)) == name


def test_babble_is_three_to_eight_other_talkers_and_its_reference_the_same_voices(tmp_path: Path) -> None:
    speech = source(save_tones(tmp_path, talkers=12, utterances=1, seconds=6.0))
    sizes = []
    for seed in range(40):
        cut = speech.babble("p4", LENGTHS, np.random.default_rng(seed))
        voices = find_tones(cut.noise)
        assert find_tones(cut.reference) == voices
        assert 4 not in {who for who, _ in voices}
        assert len(cut.noise) == 2 * RATE
        assert 0.25 * RATE <= len(cut.reference) <= RATE
        assert rms(cut.reference) == pytest.approx(rms(cut.noise), rel=0.05)
        assert not cut.looped
        sizes.append(len(voices))
    assert (min(sizes), max(sizes)) == (3, 8)


def test_reference_and_noise_of_babble_share_no_sample(tmp_path: Path) -> None:
    for who in range(4):
        save(tmp_path / f"p{who}_0.wav", 5.0)
    speech = source(tmp_path)
    for seed in range(10):
        cut = speech.babble("p0", LENGTHS, np.random.default_rng(seed))
        correlation = np.abs(np.correlate(cut.noise, cut.reference[: RATE // 4], mode="valid")).max()
        assert correlation < 0.3 * np.sum(cut.reference[: RATE // 4] ** 2)


def test_a_competing_talker_is_another_and_the_reference_another_utterance_at_the_same_level(tmp_path: Path) -> None:
    speech, drawn = source(save_tones(tmp_path, talkers=4, utterances=2)), set()
    for seed in range(30):
        cut = speech.competing("p2", LENGTHS, np.random.default_rng(seed))
        ((who, utterance),), ((same, other),) = find_tones(cut.noise), find_tones(cut.reference)
        assert same == who != 2
        assert other != utterance
        assert rms(cut.reference) == pytest.approx(rms(cut.noise), rel=0.02)
        drawn.add(who)
    assert drawn == {0, 1, 3}


def test_a_talker_with_one_file_never_competes(tmp_path: Path) -> None:
    save_tones(tmp_path, talkers=3, utterances=2)
    (tmp_path / "p1_1.wav").unlink()
    speech = source(tmp_path)
    for seed in range(10):
        assert {who for who, _ in find_tones(speech.competing("p0", LENGTHS, np.random.default_rng(seed)).noise)} == {2}


def test_short_utterances_are_joined_before_they_are_looped(tmp_path: Path) -> None:
    speech = source(save_tones(tmp_path, talkers=4, utterances=2, seconds=1.5))

    def competing() -> Cut:
        return speech.competing("p0", LENGTHS, np.random.default_rng(0))

    assert competing().looped, "one utterance is the reference, and 1.5 s of the other are left for 2 s"
    for who in range(4):
        save(tmp_path / f"p{who}_2.wav", 1.5)
    speech = source(tmp_path)
    assert not competing().looped


def peak_hz(waveform: np.ndarray) -> float:
    """The frequency of a tone."""
    return float(np.argmax(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 8 * RATE)))) / 8


def test_a_changed_voice_is_another_talker_in_noise_and_reference_alike(tmp_path: Path) -> None:
    for who in range(3):
        for k in range(2):
            save(tmp_path / f"p{who}_{k}.wav", samples=0.1 * np.sin(np.arange(3 * RATE) / RATE * 2 * np.pi * 1000))
    speech = split_files([tmp_path], "train", "speech")
    settings = replace(SETTINGS, with_reference=True)
    mixing = DynamicMixing(speech, speech, settings, 0, 0, Variation(talker_share=1.0, voice_speed=0.2))
    targets, others = [], []
    for key in range(20):
        item = mixing[key]
        waveforms = item["clean"], item["noisy"] - item["clean"], item["reference"]
        target, other, reference = (peak_hz(w.numpy()) for w in waveforms)
        assert reference == pytest.approx(other, rel=0.005)
        targets.append(target)
        others.append(other)
    for drawn in (targets, others):
        assert 800 <= min(drawn) < 900
        assert 1100 < max(drawn) <= 1200
    assert abs(np.corrcoef(targets, others)[0, 1]) < 0.5, "each talker has a speed of its own"


def test_a_changed_voice_fills_the_mixture_at_any_rate(tmp_path: Path) -> None:
    for who in range(3):
        for k in range(2):
            save(tmp_path / f"p{who}_{k}.wav", 3.0)
    speech, length = split_files([tmp_path], "train", "speech"), 32640
    talkers = Talkers(speech, 22050)
    for percent in range(80, 121):
        rng = np.random.default_rng(percent)
        cut = talkers.competing("p0", CutLengths(length, 0.3, 0.5), rng, percent / 100)
        assert len(cut.noise) == length


def test_too_few_talkers_are_told_in_a_sentence(tmp_path: Path) -> None:
    speech = source(save_tones(tmp_path, talkers=3, utterances=1))
    with pytest.raises(UserError, match=r"--babble_share needs 4 talkers or more, but .* 3 talkers, 0 of them"):
        speech.check(babble=True, competing=False)
    with pytest.raises(UserError, match=r"--talker_share needs two talkers with two files"):
        speech.check(babble=False, competing=True)
    speech.check(babble=False, competing=False)


def test_speech_too_short_for_a_reference_is_told_in_a_sentence(tmp_path: Path) -> None:
    speech = source(save_tones(tmp_path, talkers=5, utterances=2, seconds=0.2))
    with pytest.raises(UserError, match=r"--babble_share: .* too little speech for a reference of 0\.25 s"):
        speech.babble("p0", LENGTHS, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"--talker_share: .* no file of 0\.25 s"):
        speech.competing("p0", LENGTHS, np.random.default_rng(0))
