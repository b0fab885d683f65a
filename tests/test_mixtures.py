"""Facts about varied mixtures: what each option does to which items, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from small_corpora import CROP, RATE, SETTINGS, save, small_mixing
from torch.utils.data import DataLoader

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora import split_files
from sgmse.data.dataset import Item, mixing_report
from sgmse.data.loaders import collate
from sgmse.data.mixing import rms
from sgmse.data.mixtures import DynamicMixing, Variation
from sgmse.data.noise import CutLengths, cut_clip, read_clip
from sgmse.data.noise.augment import Augmentation
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig
from sgmse.training.datamodule import build_datamodule

EVERYTHING = Variation(
    Augmentation(0.5, 0.3, 0.3, 0.3, 0.5, 0.5),
    synthetic_share=0.2,
    babble_share=0.2,
    talker_share=0.2,
    mismatched_share=0.2,
    reference_gain_db=3.0,
    rir_share=0.3,
)
KEYS = range(60)
PINNED = {  # key: noisy [0, 1000, -1], sums of |clean| and |reference|, reference_length
    0: ([-0.044621, -0.616003, -0.03254], 1591.0224, 113.5265, 2044),
    4: ([-0.403433, -0.196711, 0.175631], 1524.6801, 489.2592, 6920),
    11: ([-0.06979, 0.125053, 0.084012], 655.6824, 693.4711, 14619),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five talkers with two utterances each; six noises, tones of 500 Hz to 3 kHz that are 6 s long; a room."""
    folder = tmp_path_factory.mktemp("corpus")
    for who in range(5):
        for k in range(2):
            save(folder / f"speech/p{who}_{k}.wav", 2.5)
    for n in range(6):
        tone = 0.02 * (n + 1) * np.sin(2 * np.pi * 500 * (n + 1) * np.arange(6 * RATE) / RATE)
        save(folder / f"noise/tone{n}.wav", samples=tone)
    echo = np.zeros(2000)
    echo[[0, 1200]] = 0.5, 0.4
    save(folder / "rir/echo.wav", samples=echo)
    return {kind: folder / kind for kind in ("speech", "noise", "rir")}


def mixing(corpus: dict[str, Path], variation: Variation | None = None) -> DynamicMixing:
    speech, noise = (split_files([corpus[kind]], "train", kind) for kind in ("speech", "noise"))
    if variation is not None and variation.rir_share:
        variation = replace(variation, rirs=tuple(split_files([corpus["rir"]], "train", "room impulse response")))
    return DynamicMixing(speech, noise, SETTINGS, variation=variation)


def noise_of(item: Item) -> np.ndarray:
    return item.noisy - item.clean


def snr_db(item: Item) -> float:
    return 20 * np.log10(rms(item.clean) / rms(noise_of(item)))


def test_the_ratio_holds_for_the_whole_utterance_and_not_for_the_crop(tmp_path: Path) -> None:
    """Speech that is 20 dB louder in its second half: its crops differ by that, under noise of one level."""
    loud = 0.1 * np.random.default_rng(0).standard_normal(4 * CROP)
    loud[: 2 * CROP] *= 0.1
    speech = [audio.info(save(tmp_path / "speech.wav", samples=loud, rate=RATE))]
    noise = [audio.info(save(tmp_path / "noise.wav", samples=np.random.default_rng(1).standard_normal(9 * RATE) / 10))]
    dataset = DynamicMixing(speech, noise, SETTINGS, snr_db_low=0.0, snr_db_high=0.0)
    items = [dataset.item(key) for key in range(30)]
    levels = [20 * np.log10(rms(noise_of(item)) / rms(loud)) for item in items]
    assert levels == pytest.approx([0.0] * len(items), abs=0.05)
    ratios = [snr_db(item) for item in items]
    assert min(ratios) == pytest.approx(-17.0, abs=0.5)
    assert max(ratios) == pytest.approx(3.0, abs=0.5)
    assert snr_db(dataset.utterance(0, 60.0)) == pytest.approx(0.0, abs=0.05)


def tones(waveform: np.ndarray) -> set[int]:
    """Numbers of the noise files that are heard, at most 20 dB below the strongest."""
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 2 * RATE))
    near = [power[1000 * (n + 1) - 10 : 1000 * (n + 1) + 11].max() for n in range(6)]
    return {n for n in range(6) if near[n] > 0.1 * max(near)}


def same(a: Item, b: Item) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("clean", "noisy", "reference"))


def test_items_without_variation_are_always_the_same(tmp_path: Path) -> None:
    """Numbers computed when the ratio came to hold for the whole utterance; draws are those of the first version."""
    dataset = small_mixing(tmp_path)
    for key, (noisy, clean, reference, length) in PINNED.items():
        item = dataset[key]
        assert item["noisy"][[0, 1000, -1]].tolist() == pytest.approx(noisy, abs=1e-5)
        assert float(item["clean"].double().abs().sum()) == pytest.approx(clean, rel=1e-5)
        assert float(item["reference"].double().abs().sum()) == pytest.approx(reference, rel=1e-5)
        assert item["reference_length"] == length


OPTIONS = {
    "synthetic": Variation(synthetic_share=0.4),
    "babble": Variation(babble_share=0.4),
    "talker": Variation(talker_share=0.4),
    "mismatched": Variation(mismatched_share=0.4),
    "rir": Variation(rir_share=0.4),
    **{kind: Variation(Augmentation(**{kind: 0.4})) for kind in ("mix", "stretch", "pitch", "concatenate", "equalise")},
    "gain": Variation(Augmentation(gain=0.4)),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_its_share_of_the_items_and_neither_speech_nor_ratio(
    corpus: dict[str, Path], option: str
) -> None:
    plain, varied = mixing(corpus), mixing(corpus, OPTIONS[option])
    pairs = [(plain.item(key), varied.item(key)) for key in KEYS]
    changed = [(a, b) for a, b in pairs if not same(a, b)]
    assert len(changed) / len(pairs) == pytest.approx(0.4, abs=0.17)
    for a, b in changed:
        assert snr_db(b) == pytest.approx(snr_db(a), abs=0.01)
        assert b.clean.shape == b.noisy.shape == (CROP,)
        assert b.noisy.dtype == b.reference.dtype == np.float32
        assert (option == "rir") != np.array_equal(a.clean, b.clean)
        assert (option == "mismatched") == np.array_equal(a.noisy, b.noisy)
        assert len(b.reference) >= 0.25 * RATE - 2


def test_a_larger_share_keeps_the_items_of_a_smaller_one(corpus: dict[str, Path]) -> None:
    plain, few, many = (mixing(corpus, Variation(synthetic_share=share)) for share in (0.0, 0.2, 0.5))
    for key in KEYS:
        if not same(plain.item(key), few.item(key)):
            assert same(few.item(key), many.item(key))


def test_a_mixed_noise_and_its_reference_hold_the_same_two_files(corpus: dict[str, Path]) -> None:
    plain, varied = mixing(corpus), mixing(corpus, Variation(Augmentation(mix=1.0)))
    for key in range(15):
        files = tones(noise_of(varied.item(key)))
        assert len(files) == 2
        assert tones(varied.item(key).reference) == files > tones(plain.item(key).reference)


def test_concatenated_noise_and_reference_hold_the_same_files_in_the_same_order(corpus: dict[str, Path]) -> None:
    plain, varied = mixing(corpus), mixing(corpus, Variation(Augmentation(concatenate=1.0)))
    lengths = set()
    for key in range(15):
        item = varied.item(key)
        (own,) = tones(plain.item(key).reference)
        orders = [[tones(part) for part in np.array_split(w, 24)] for w in (noise_of(item), item.reference)]
        found = [[n for n in range(6) if {n} in order] for order in orders]
        assert found[0] == found[1]
        for order in orders:
            assert order[0] == {own}, "the file that neighbouring keys do not have comes first"
        assert orders[0][-1] == orders[1][-1] != {own}
        first, *_, last = np.array_split(noise_of(item), 24)
        assert rms(first) == pytest.approx(rms(last), rel=0.05), "files of other levels are brought to one"
        lengths.add(len(found[0]))
    assert lengths == {2, 3}


def test_a_mismatched_reference_is_another_noise_at_the_level_of_the_right_one(corpus: dict[str, Path]) -> None:
    plain, varied = mixing(corpus), mixing(corpus, Variation(mismatched_share=1.0))
    for key in range(15):
        item = varied.item(key)
        assert not tones(item.reference) & tones(noise_of(item))
        assert rms(item.reference) == pytest.approx(rms(plain.item(key).reference), rel=1e-3)


def shares_samples(reference: np.ndarray, noise: np.ndarray) -> bool:
    """Whether 0.1 s of a reference of white noise stand anywhere in a noise."""
    for start in range(0, len(reference) - RATE // 10 + 1, RATE // 10):
        found = fftconvolve(noise, reference[start : start + RATE // 10][::-1], "valid")
        if np.abs(found).max() > 9 * rms(found):
            return True
    return False


@pytest.mark.parametrize("mismatched_share", [0.0, 1.0])
@pytest.mark.parametrize("files", [2, 5])
def test_a_noise_of_several_files_and_its_reference_share_no_sample(
    tmp_path: Path, files: int, mismatched_share: float
) -> None:
    speech = split_files([save(tmp_path / "speech/s.wav", 3.0).parent], "train", "speech")
    for number in range(files):
        save(tmp_path / f"noise/n{number}.wav", 5.0)
    noise = split_files([tmp_path / "noise"], "train", "noise")
    variation = Variation(Augmentation(mix=1.0, concatenate=1.0), mismatched_share=mismatched_share)
    mixing = DynamicMixing(speech, noise, SETTINGS, variation=variation)
    items = [mixing.item(key) for key in range(40)]
    assert sum(len(item.reference) > 0 for item in items) > 30
    assert not any(shares_samples(item.reference, noise_of(item)) for item in items)
    assert shares_samples(noise_of(items[0])[2000:4000], noise_of(items[0]))


@pytest.mark.parametrize("files", [2, 3, 5])
def test_a_silent_file_beside_those_that_are_taken_is_left_out(tmp_path: Path, files: int) -> None:
    speech = split_files([save(tmp_path / "speech/s.wav", 3.0).parent], "train", "speech")
    for number in range(files):
        save(tmp_path / f"noise/n{number}.wav", samples=None if number else np.zeros(5 * RATE), seconds=5.0)
    noise = split_files([tmp_path / "noise"], "train", "noise")
    variation = Variation(Augmentation(mix=0.7, concatenate=0.7), mismatched_share=0.3)
    mixing = DynamicMixing(speech, noise, SETTINGS, variation=variation)
    assert all(rms(noise_of(mixing.item(key))) > 0 for key in range(30))


def test_the_reference_gain_is_even_between_its_bounds_and_touches_the_reference_only(corpus: dict[str, Path]) -> None:
    plain, varied = mixing(corpus), mixing(corpus, Variation(reference_gain_db=3.0))
    gains = []
    for key in KEYS:
        a, b = plain.item(key), varied.item(key)
        np.testing.assert_array_equal(a.noisy, b.noisy)
        gains.append(20 * np.log10(rms(b.reference) / rms(a.reference)))
    assert -3 <= min(gains) < -2.4
    assert 2.4 < max(gains) <= 3
    assert np.mean(gains) == pytest.approx(0, abs=0.7)


def test_the_target_of_reverberant_speech_is_the_reverberant_speech(corpus: dict[str, Path], tmp_path: Path) -> None:
    plain, varied = mixing(corpus), mixing(corpus, Variation(rir_share=1.0))
    for key in range(5):
        dry, wet = plain.item(key).clean, varied.item(key).clean
        expected = 0.5 * dry
        expected[1200:] += 0.4 * dry[:-1200]
        np.testing.assert_allclose(wet, expected * rms(dry) / rms(expected), atol=1e-5)
    silent = save(tmp_path / "rir/room.wav", samples=np.zeros(RATE))
    with pytest.raises(UserError, match=r"room\.wav: is silent.*--rir_dir"):
        mixing(corpus | {"rir": silent.parent}, Variation(rir_share=1.0)).item(0)


def test_varied_items_are_the_same_for_any_number_of_workers_and_without_references(corpus: dict[str, Path]) -> None:
    dataset = mixing(corpus, EVERYTHING)
    batches = [
        list(DataLoader(dataset, 5, sampler=range(30), num_workers=workers, collate_fn=collate)) for workers in (0, 2)
    ]
    for one, two in zip(*batches, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    settings = replace(SETTINGS, with_reference=False)
    without = DynamicMixing(dataset.speech, dataset.noise, settings, variation=dataset.variation)
    for key in range(30):
        np.testing.assert_array_equal(dataset.item(key).noisy, without.item(key).noisy)
        assert len(without.item(key).reference) == 0


def test_noise_of_any_rate_with_any_channels_and_shorter_than_the_mixture_is_looped_and_counted(tmp_path: Path) -> None:
    save(tmp_path / "speech/s.wav", 3.0)
    for index, (rate, channels, seconds) in enumerate([(44100, 2, 0.8), (48000, 6, 9.0), (11025, 1, 30.0)]):
        samples = 0.1 * np.random.default_rng(index).standard_normal((round(seconds * rate), channels))
        save(tmp_path / f"noise/n{index}.wav", rate=rate, samples=samples)
    speech, noise = (split_files([tmp_path / kind], "train", kind) for kind in ("speech", "noise"))
    report = mixing_report(DynamicMixing(speech, noise, SETTINGS), 30)
    assert report.looped_share == pytest.approx(1 / 3)
    assert report.null_share == 0


@pytest.mark.parametrize(("seconds", "looped"), [(0.9, True), (1.4, True), (1.9, False)])
def test_a_clip_too_short_for_the_mixture_beside_its_reference_counts_as_looped(seconds: float, looped: bool) -> None:
    clip = np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    reference_s = 0.6 if seconds > 1.3 else 0.3
    cut = cut_clip(clip, CutLengths(RATE, reference_s, reference_s), RATE, np.random.default_rng(1))
    assert len(cut.reference) == round(reference_s * RATE)
    assert cut.looped == looped


def test_of_a_long_file_a_window_is_read(tmp_path: Path) -> None:
    info = audio.info(save(tmp_path / "long.wav", 20.0))
    windows = [read_clip(info, RATE, RATE, np.random.default_rng(seed)) for seed in range(4)]
    assert {len(window) for window in windows} == {RATE}
    assert not np.array_equal(windows[0], windows[1])


def test_options_that_need_more_than_the_corpus_holds_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "speech/p1_1.wav", 3.0)
    save(tmp_path / "noise/n.wav", 3.0)
    speech, noise = (split_files([tmp_path / kind], "train", kind) for kind in ("speech", "noise"))
    for variation, flag in (
        (Variation(Augmentation(mix=0.1)), "--noise_augment mix"),
        (Variation(Augmentation(concatenate=0.1)), "--noise_augment concatenate"),
        (Variation(mismatched_share=0.1), "--mismatched_share"),
    ):
        with pytest.raises(UserError, match=f"{flag} needs a second noise file"):
            DynamicMixing(speech, noise, SETTINGS, variation=variation)
    with pytest.raises(UserError, match="--babble_share needs 4 talkers"):
        DynamicMixing(speech, noise, SETTINGS, variation=Variation(babble_share=0.1))
    with pytest.raises(UserError, match="--talker_share needs two talkers"):
        DynamicMixing(speech, noise, SETTINGS, variation=Variation(talker_share=0.1))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"synthetic_share": 0.5, "babble_share": 0.3, "talker_share": 0.3}, "add up to 1.1; they must not exceed 1"),
        ({"babble_share": 1.5}, "--babble_share 1.5 is out of range"),
        ({"rir_share": 0.5}, "needs both --rir_dir and a --rir_share"),
        ({"rir_dir": ["rooms"]}, "needs both --rir_dir and a --rir_share"),
        ({"mix_snr_db": [-5.0, 90.0]}, "--mix_snr_db -5 90: one of the two would be inaudible; stay within ±60 dB"),
        ({"noise_augment": ["echo=1"]}, "--noise_augment echo=1: there is no kind 'echo'"),
        ({"base_dir": "pairs", "noise_augment": ["mix=0.5"]}, "--noise_augment is for dynamic mixing, but --base_dir"),
        ({"base_dir": "pairs", "mix_snr_db": [20.0, 30.0]}, "--mix_snr_db is for dynamic mixing, but --base_dir"),
        ({"base_dir": "pairs", "mismatched_share": 0.5}, "--mismatched_share is for dynamic mixing, but --base_dir"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=r"^--|^reverberant") as error:
        check_data(DataConfig(**settings), ModelConfig())
    assert sentence in str(error.value)


def test_settings_reach_training_and_leave_validation_alone(corpus: dict[str, Path]) -> None:
    varied = DataConfig(noise_augment=["mix=1"], babble_share=0.5, rir_dir=[str(corpus["rir"])], rir_share=0.5)
    check_data(varied, ModelConfig())
    modules = [build_datamodule(data, ModelConfig(), seed=0) for data in (DataConfig(), varied)]
    plain, other = (module.valid for module in modules)
    assert all(same(plain.item(key), other.item(key)) for key in range(4))
    assert not any(same(modules[0].train.item(key), modules[1].train.item(key)) for key in range(4))


@pytest.mark.parametrize("words", [["mix=0.3", "gain=1"], ["mix=0.3", "--noise_augment=gain=1"]])
def test_the_probabilities_are_typed_as_words(words: list[str]) -> None:
    layers = cli.parse(cli.make_parser((DataConfig,), ""), ["--noise_augment", *words, "--batch_size", "2"])
    assert layers[-1].values["noise_augment"] == ["mix=0.3", "gain=1"]
