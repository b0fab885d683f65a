"""Batches, parts, channels, the band above the model's, several samples: files as people have them."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from commands import RATE
from small_corpora import samples, save

from sgmse.diffusion.sde import per_item
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.enhancement import folder, recordings
from sgmse.evaluation import scores as evaluation
from sgmse.model.enhancer import Enhancer

pytest_plugins = ("enhancing",)
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")
DRAWS = ("--sampler", "bridge_sde", "--N", 2)


def stereo(path, rate=RATE, seconds=0.4):
    values = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), 2)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, subtype="FLOAT")
    return values


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


# ---- parts ----


@pytest.fixture
def local(monkeypatch):
    """A network that looks at single frames and at the condition, so that parts can equal the whole."""

    def predict(self, x_t, y, t, condition):
        return y * per_item(0.5 + 0.2 * condition.vector.mean(dim=1).tanh(), y)

    monkeypatch.setattr(Enhancer, "predict", predict)


@pytest.mark.parametrize("protocol", ["none", "estimated", "self", "oracle", "file"])
def test_a_long_file_in_parts_equals_the_whole_under_every_protocol(local, enhance, tmp_path, protocol):
    long = save(tmp_path / "noisy" / "long.flac", 6.0, RATE)
    save(tmp_path / "clean" / "long.flac", samples=0.5 * samples(long), rate=RATE)
    save(tmp_path / "ref.wav", 0.7, RATE)
    of_files = {"oracle": ("--oracle_noise", "--clean_dir", tmp_path / "clean")}
    of_files["file"] = ("--noise_ref", tmp_path / "ref.wav")
    chosen = of_files.get(protocol, ("--reference", protocol))
    enhance(tmp_path / "noisy", *chosen, out="whole")
    enhance(tmp_path / "noisy", *chosen, "--chunk_s", 2.5, "--overlap_s", 0.5, out="parts")
    whole, parts = (samples(tmp_path / out / "long.flac") for out in ("whole", "parts"))
    assert len(parts) == len(whole)
    assert np.sum((whole - parts) ** 2) < 1e-3 * np.sum(whole**2)
    told = {name: run_json(tmp_path / name) for name in ("whole", "parts")}
    assert told["parts"]["passes"] == told["whole"]["passes"]
    assert (told["parts"]["chunk_s"], told["parts"]["overlap_s"]) == (2.5, 0.5)


def test_a_recording_above_30_s_is_enhanced_in_parts_by_itself(enhance, tmp_path, monkeypatch):
    save(tmp_path / "noisy" / "long.wav", 31.0, RATE)
    longest, work = [], Enhancer.enhance_batch
    monkeypatch.setattr(
        Enhancer,
        "enhance_batch",
        lambda self, noisy, *rest: [longest.append(noisy.shape[-1]), work(self, noisy, *rest)][1],
    )
    enhance(tmp_path / "noisy", "--reference", "none")
    assert len(longest) == 2
    assert max(longest) < 31 * RATE
    assert len(samples(tmp_path / "out" / "long.wav")) == 31 * RATE


def test_what_spoils_the_level_of_a_recording_is_said(enhance, tmp_path):
    noise = 0.02 * np.random.default_rng(0).standard_normal(RATE)
    clicking, folder = noise.copy(), tmp_path / "noisy"
    clicking[5000] = 0.99
    for name, values, subtype in (
        ("click.wav", clicking, "FLOAT"),
        ("offset.wav", noise + 0.6, "FLOAT"),
        ("coarse.wav", 10 * noise, "PCM_U8"),
        ("loud.wav", 400 * noise, "DOUBLE"),
        ("good.wav", noise, "PCM_16"),
    ):
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / name, values, RATE, subtype=subtype)
    lines = enhance(folder, "--reference", "none").splitlines()
    for name, words in (("click", "click far above"), ("offset", "constant offset"), ("coarse", "8 bits")):
        [line] = [line for line in lines if words in line]
        assert line.startswith("warning: 1 of 5 files")
        assert f"{name}.wav" in line
    assert next(line for line in lines if "loud.wav reached" in line).endswith("beyond ±1")
    assert not any("good.wav" in line for line in lines)


def test_a_file_no_longer_than_a_part_is_enhanced_as_a_whole(enhance, testset, tmp_path):
    enhance(testset, *DRAWS, out="whole")
    enhance(testset, *DRAWS, "--chunk_s", 2.5, out="parts")
    assert (samples(tmp_path / "whole" / "1.wav") == samples(tmp_path / "parts" / "1.wav")).all()


def test_parts_keep_channels_rate_length_and_band(local, enhance, tmp_path):
    original = stereo(tmp_path / "noisy" / "a.wav", 44100, 5.0)
    flags = ("--reference", "none", "--keep_highband")
    enhance(tmp_path / "noisy", *flags, out="whole")
    enhance(tmp_path / "noisy", *flags, "--chunk_s", 2.5, out="parts")
    whole, parts = (samples(tmp_path / out / "a.wav") for out in ("whole", "parts"))
    assert parts.shape == original.shape
    assert np.sum((whole - parts) ** 2) < 1e-3 * np.sum(whole**2)
    assert np.sum(above(whole - parts, 44100) ** 2) < 1e-6 * np.sum(above(original, 44100) ** 2)


def above(waveform: np.ndarray, rate: int, cutoff: float = 9000.0) -> np.ndarray:
    """Spectrum [F, C] above `cutoff`; the resampling filter falls between 7.3 and 8 kHz."""
    spectrum = np.fft.rfft(waveform, axis=0)
    return np.abs(spectrum[np.fft.rfftfreq(len(waveform), 1 / rate) > cutoff])


# ---- channels and bandwidth ----


def test_mixed_channels_are_the_enhanced_average(enhance, tmp_path):
    values = stereo(tmp_path / "noisy" / "a.wav")
    soundfile.write(save(tmp_path / "mono" / "a.wav"), values.mean(axis=1), RATE, subtype="FLOAT")
    enhance(tmp_path / "noisy", "--channels", "mix", *DRAWS, out="mixed")
    enhance(tmp_path / "mono", *DRAWS, out="mono_out")
    assert samples(tmp_path / "mixed" / "a.wav").ndim == 1
    assert np.allclose(samples(tmp_path / "mixed" / "a.wav"), samples(tmp_path / "mono_out" / "a.wav"), atol=1e-6)


def test_what_lies_above_the_models_band_is_passed_on_where_asked_and_else_said_to_go(enhance, tmp_path):
    values = stereo(tmp_path / "noisy" / "a.wav", 48000)
    said = enhance(tmp_path / "noisy", out="without")
    assert "1 files are above 16000 Hz: their sound above 8 kHz is removed (keep it with --keep_highband)" in said
    said = enhance(tmp_path / "noisy", "--keep_highband", out="with")
    assert "is passed on unchanged" in said
    original = above(values, 48000)
    kept, removed = (above(samples(tmp_path / out / "a.wav"), 48000) for out in ("with", "without"))
    assert np.sum((kept - original) ** 2) < 1e-4 * np.sum(original**2)
    assert np.sum(removed**2) < 1e-3 * np.sum(original**2)
    save(tmp_path / "low" / "a.wav", 0.3, RATE)
    assert "files are above" not in enhance(tmp_path / "low", "--keep_highband", out="low_with")
    enhance(tmp_path / "low", out="low_without")
    assert (samples(tmp_path / "low_with" / "a.wav") == samples(tmp_path / "low_without" / "a.wav")).all()


# ---- several samples ----


def test_several_samples_give_their_mean_and_how_far_they_disagree(enhance, testset, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "HIGH_DISAGREEMENT", 0.0)
    said = enhance(testset, "--num_samples", 3, "--batch_size", 4, *DRAWS)
    content = run_json(tmp_path / "out")
    assert content["disagreement"].keys() == {"0.wav", "1.wav", "2.wav"}
    assert all(value > 0 for value in content["disagreement"].values())
    assert (content["num_samples"], content["nfe"], content["passes"]) == (3, 6, 6)
    assert "the samples of 1.wav disagree by" in said
    assert (tmp_path / "out" / "disagreement" / "0.wav.png").stat().st_size > 0
    frame = pd.DataFrame({"system": ["noisy", "out", "out"], "file": ["1", "1", "none"]})
    found = evaluation.with_settings(frame, {"out": tmp_path / "out"})["disagreement"]
    assert found[1] == content["disagreement"]["1.wav"]
    assert np.isnan([found[0], found[2]]).all()


def test_the_first_of_several_samples_is_the_only_one_of_one(enhance, testset, tmp_path):
    """The mean of two minus half of the first is half of the second; no sample equals another."""
    enhance(testset, *DRAWS, out="one")
    enhance(testset, "--num_samples", 2, *DRAWS, out="two")
    enhance(testset, "--num_samples", 3, *DRAWS, out="three")
    one, two, three = (samples(tmp_path / out / "0.wav") for out in ("one", "two", "three"))
    second, third = 2 * two - one, 3 * three - 2 * two
    assert min(np.abs(a - b).max() for a, b in ((one, second), (one, third), (second, third))) > 1e-4


def test_parts_have_samples_too(enhance, tmp_path):
    save(tmp_path / "noisy" / "long.wav", 4.0, RATE)
    flags = ("--reference", "none", "--num_samples", 2, *DRAWS)
    enhance(tmp_path / "noisy", *flags, out="whole")
    enhance(tmp_path / "noisy", *flags, "--chunk_s", 2.5, out="parts")
    whole, parts = (run_json(tmp_path / out)["disagreement"]["long.wav"] for out in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=0.1)


def test_disagreement_of_equal_samples_is_zero_and_of_known_ones_known():
    transform, base = SpectrogramTransform(510, 128, 0.15, 1.0), torch.randn(1, 1, 8000)
    different = torch.cat([0.5 * base, 1.5 * base])  # mean 1, deviation √½
    for drawn, expected in ((base.expand(3, 1, -1), 0), (different, 0.5**0.5), (torch.zeros(2, 1, 8000), 0)):
        sums = recordings.compare_samples(transform, drawn)[1]
        assert recordings.disagreement(2 * sums) == pytest.approx(expected, rel=1e-4, abs=1e-5)
