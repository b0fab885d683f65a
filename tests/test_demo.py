"""The page to play with: what its button does, and what it says of what cannot be."""

import sys
from pathlib import Path

import numpy as np
import pytest
from commands import refusal
from tiny import tiny

import sgmse
from sgmse.commands import demo
from sgmse.common.errors import UserError
from sgmse.data import audio

TEST_SET = Path(sgmse.__file__).parent / "data" / "embedded" / "test"
NOISY, NOISE = (TEST_SET / part / "000.flac" for part in ("noisy", "ref"))


@pytest.fixture(scope="module")
def model():
    return tiny().eval()


def test_what_was_removed_is_noisy_minus_enhanced_and_both_keep_their_level_in_files(model, tmp_path):
    trial = demo.try_out(model, NOISY, NOISE, scale=1.0, steps=3)
    waveforms = trial.waveforms
    np.testing.assert_allclose(waveforms["enhanced"] + waveforms["removed"], waveforms["noisy"], atol=1e-6)
    expected = model.enhance(audio.read(NOISY, None), 16000, str(NOISE))
    assert model.sampler.N == 2, "the steps of a trial are its own"
    assert not np.allclose(waveforms["enhanced"], expected)
    assert "recording of the noise" in trial.words
    enhanced, removed, picture = demo.write_trial(trial, tmp_path)
    for path, name in ((enhanced, "enhanced"), (removed, "removed")):
        np.testing.assert_allclose(audio.read(path, None, mono=False), waveforms[name], atol=1e-6)
    assert Path(picture).stat().st_size > 10_000


def test_without_a_recording_of_the_noise_it_is_estimated_and_channels_and_rate_are_kept(model, tmp_path):
    waveform = audio.read(NOISY, 48000)
    audio.write(tmp_path / "stereo.wav", np.stack([waveform, 0.5 * waveform]), 48000)
    trial = demo.try_out(model, tmp_path / "stereo.wav", None, scale=1.0, steps=1)
    assert trial.rate == 48000
    assert trial.waveforms["enhanced"].shape == (2, len(waveform))
    assert "estimated" in trial.words


def test_a_model_without_encoder_needs_neither_noise_nor_scale(tmp_path):
    trial = demo.try_out(tiny(encoder="none").eval(), NOISY, NOISE, scale=3.0, steps=1)
    assert "takes none" in trial.words


def test_the_page_has_its_inputs_its_results_and_examples(tmp_path):
    page = demo.make_page({"one": "a.ckpt", "other": "b.ckpt"}, "cpu", tmp_path)
    assert page.analytics_enabled is False
    found = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert {"noisy", "noise", "enhance", "enhanced", "removed", "picture", "words"} <= found.keys()


def test_what_cannot_be_is_said_in_a_sentence(capsys, monkeypatch, tmp_path):
    assert "nowhere.ckpt" in refusal(demo.main, capsys, "nowhere.ckpt")
    assert "--port" in refusal(demo.main, capsys, "--port", "0")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install gradio"):
        demo.make_page({}, "cpu", tmp_path)
