"""Facts about items: levels, references, and that seed and key decide everything."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_corpora import CROP, RATE, SETTINGS, save, small_mixing, small_pairs
from torch.utils.data import DataLoader

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora import paired_files, split_files
from sgmse.data.dataset import ItemSettings, Paired, ValidationSet, draw_index, mixing_report
from sgmse.data.loaders import collate
from sgmse.data.mixtures import DynamicMixing
from sgmse.data.noise import read_clip


@pytest.fixture
def mixing(tmp_path: Path) -> DynamicMixing:
    return small_mixing(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Paired:
    return Paired(paired_files(small_pairs(tmp_path), "train"), SETTINGS)


def power(waveform: torch.Tensor) -> float:
    return float(waveform.square().mean())


@pytest.mark.parametrize("source", ["mixing", "pairs"])
def test_items_have_the_shape_level_and_type_of_the_contract(source: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(source)
    for key in range(20):
        item = dataset[key]
        assert item["clean"].shape == item["noisy"].shape == (CROP,)
        assert item["noisy"].abs().max() == 1
        assert {item[name].dtype for name in ("clean", "noisy", "reference")} == {torch.float32}
        assert item["reference_length"].dtype == torch.int64
        assert item["reference_length"] == len(item["reference"]) > 0


def test_the_noise_has_the_drawn_ratio_and_the_reference_the_level_of_the_noise(mixing: DynamicMixing) -> None:
    ratios = []
    for key in range(60):
        item = mixing[key]
        noise = item["noisy"] - item["clean"]
        ratios.append(float(20 * torch.log10(item["clean"].norm() / noise.norm())))
        assert power(item["reference"]) == pytest.approx(power(noise), rel=0.2)  # steady noise
    assert -5 <= min(ratios) < 0
    assert 10 < max(ratios) <= 15


def test_a_mixture_holds_a_part_of_its_noise_file_apart_from_the_reference(tmp_path: Path) -> None:
    ramp = np.arange(1, 5 * RATE + 1) / (5 * RATE)
    save(tmp_path / "speech/s.wav", 3.0)
    save(tmp_path / "noise/n.wav", samples=ramp)
    speech, noise = (split_files([tmp_path / kind], "train", kind) for kind in ("speech", "noise"))
    dataset = DynamicMixing(speech, noise, SETTINGS)
    for key in range(10):
        item = dataset[key]
        gain = float(item["reference"].diff().mean())  # one step of the ramp, scaled
        inside = (item["noisy"] - item["clean"]) / gain
        outside = item["reference"] / gain
        assert inside.max() < outside.min() - 0.009 * RATE or inside.min() > outside.max() + 0.009 * RATE


def test_a_paired_reference_is_the_residual_outside_the_crop(pairs: Paired) -> None:
    for key in range(8):
        item = pairs[key]
        residual = (item["noisy"] - item["clean"]).numpy()
        assert power(item["reference"]) == pytest.approx(residual[residual != 0].var(), rel=0.2)
        assert np.abs(np.correlate(residual, item["reference"].numpy()[:200])).max() < 0.6 * float(
            item["reference"][:200].square().sum()
        )


def test_short_speech_lies_between_zeros_under_noise_of_full_length(mixing: DynamicMixing) -> None:
    short = [mixing[key] for key in range(40) if draw_index(key, 5, 3, 1) == 0]
    assert len(short) == 8
    starts = set()
    for item in short:
        speech = torch.nonzero(item["clean"])
        starts.add(int(speech[0]))
        assert int(speech[-1] - speech[0]) == pytest.approx(0.4 * RATE, rel=0.02)
        assert (item["noisy"] - item["clean"])[:400].abs().max() > 0
        assert (item["noisy"] - item["clean"])[-400:].abs().max() > 0
    assert len(starts) > 5


def test_an_item_depends_on_seed_and_key_alone(mixing: DynamicMixing) -> None:
    first = {key: mixing[key] for key in (0, 7, 11)}
    fresh = DynamicMixing(mixing.speech, mixing.noise, SETTINGS)
    np.random.seed(5)
    torch.manual_seed(5)
    for key in (11, 0, 7):
        assert all(torch.equal(first[key][name], fresh[key][name]) for name in first[key])
    other = DynamicMixing(mixing.speech, mixing.noise, ItemSettings(RATE, CROP, seed=4))
    assert not torch.equal(first[0]["noisy"], other[0]["noisy"])
    assert not torch.equal(first[0]["noisy"], mixing[5]["noisy"])


@pytest.mark.parametrize("source", ["mixing", "pairs"])
def test_items_are_the_same_for_any_number_of_workers(source: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(source)
    batches = [
        list(DataLoader(dataset, 3, sampler=range(9), num_workers=workers, collate_fn=collate)) for workers in (0, 2)
    ]
    assert len(batches[0]) == 3
    for one, two in zip(*batches, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_references_the_mixtures_stay_the_same(mixing: DynamicMixing) -> None:
    without = DynamicMixing(mixing.speech, mixing.noise, ItemSettings(RATE, CROP, seed=3, with_reference=False))
    for key in range(6):
        assert torch.equal(mixing[key]["noisy"], without[key]["noisy"])
        assert without[key]["reference_length"] == 0 == len(without[key]["reference"])
    assert mixing_report(without, 5).null_share == 0


def test_pairs_without_references_keep_their_whole_crop(pairs: Paired) -> None:
    without = Paired(pairs.pairs, ItemSettings(RATE, CROP, seed=3, with_reference=False))
    lengths = {
        without.pairs[draw_index(key, 4, 3, 1)].name: int((without[key]["clean"] != 0).sum()) for key in range(4)
    }
    assert lengths == {"a/p0": pytest.approx(0.9 * RATE, rel=0.01)} | {
        f"a/p{index}": pytest.approx(CROP, rel=0.01) for index in (1, 2, 3)
    }


def test_an_epoch_visits_every_file_once_in_a_new_order() -> None:
    epochs = [[draw_index(key, 7, 0, 1) for key in range(7 * epoch, 7 * epoch + 7)] for epoch in range(40)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 30


@pytest.mark.parametrize("length", [2, 3, 4])
def test_no_noise_comes_twice_in_a_row(length: int) -> None:
    indices = [draw_index(key, length, 0, 2) for key in range(50 * length)]
    assert all(before != after for before, after in pairwise(indices))


def test_a_silent_noise_file_is_replaced_and_reported_once(
    mixing: DynamicMixing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "noise/silent.wav", samples=np.zeros(2 * RATE))
    dataset = DynamicMixing(mixing.speech, split_files([tmp_path / "noise"], "train", "noise"), SETTINGS)
    with caplog.at_level(logging.WARNING):
        assert mixing_report(dataset, 12).null_share == 0
    assert caplog.text.count("silent.wav: is silent") == 1


def test_a_corpus_of_silence_is_an_error(mixing: DynamicMixing, tmp_path: Path) -> None:
    save(tmp_path / "quiet/silent.wav", samples=np.zeros(2 * RATE))
    quiet = split_files([tmp_path / "quiet"], "train", "noise")
    with pytest.raises(UserError, match=r"silent\.wav: is silent.*noise corpus"):
        DynamicMixing(mixing.speech, quiet, SETTINGS)[0]
    with pytest.raises(UserError, match=r"silent\.wav: is silent.*speech corpus"):
        DynamicMixing(quiet, mixing.noise, SETTINGS)[0]


def test_a_speech_file_that_is_mostly_silent_gives_crops_with_speech(mixing: DynamicMixing, tmp_path: Path) -> None:
    samples = np.zeros(5 * RATE)
    samples[2 * RATE : 3 * RATE] = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    path = save(tmp_path / "gaps/g.wav", samples=samples)
    dataset = DynamicMixing(split_files([path.parent], "train", "speech"), mixing.noise, SETTINGS)
    assert all(dataset[key]["clean"].abs().max() > 0 for key in range(15))


def test_null_references_are_counted(mixing: DynamicMixing, tmp_path: Path) -> None:
    save(tmp_path / "noise/click.wav", 0.3)  # too short to share: one noise of four
    dataset = DynamicMixing(mixing.speech, split_files([tmp_path / "noise"], "train", "noise"), SETTINGS)
    assert mixing_report(dataset, 40).null_share == pytest.approx(0.25)


def test_a_short_file_is_decoded_once_and_cannot_be_changed(tmp_path: Path) -> None:
    path, rng = save(tmp_path / "x.wav", 1.0), np.random.default_rng(0)
    first = read_clip(audio.info(path), RATE, RATE, rng)
    assert read_clip(audio.info(path), RATE, RATE, rng) is first
    np.testing.assert_array_equal(first, soundfile.read(path, dtype="float32")[0])
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


@pytest.mark.parametrize("source", ["mixing", "pairs"])
def test_validation_files_are_fixed_whole_and_different(source: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(source)
    files = ValidationSet(dataset, num_files=100, max_s=2.5)
    items = list(files)
    assert len(items) == len(files) == len(dataset)
    assert len({item["name"].partition("_")[2] for item in items}) == len(items)
    for item, again in zip(items, files, strict=True):
        assert torch.equal(item["noisy"], again["noisy"])
        assert len(item["clean"]) == len(item["noisy"]) <= 2.5 * RATE
        assert item["noisy"].abs().max() == 1
        assert len(item["reference"]) > 0
    seconds = sorted(len(item["clean"]) / RATE for item in items)
    if source == "mixing":
        assert seconds == pytest.approx([0.4, 1.5, 2.0, 2.5, 2.5])
    else:
        assert all(got >= 0.59 * whole for got, whole in zip(seconds, (0.9, 1.5, 2.0, 2.5), strict=True))
