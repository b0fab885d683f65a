"""The voice encoder: Resemblyzer's numbers without its package, and talkers told apart."""

import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny import tiny

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora
from sgmse.encoders import weights
from sgmse.encoders.voice import DVectorTower, VoiceEncoder
from sgmse.settings.config import ModelConfig

SPEECH = corpora.embedded_dir() / "speech/train"
LEVEL = 10 ** (-30 / 20)


def talk(talker: str, seconds: float = 4.0) -> np.ndarray:
    """Speech of one talker, file after file, at the level that the network knows."""
    speech = np.concatenate([audio.read(path, 16000) for path in sorted(SPEECH.glob(f"{talker}_*"))])
    speech = speech[: round(seconds * 16000)]
    return speech * np.float32(LEVEL / np.sqrt(np.mean(speech**2)))


@pytest.fixture(scope="module")
def tower() -> DVectorTower:
    made = DVectorTower()
    made.load_state_dict(made.published_state(weights.read(weights.VOICE.default_path())))
    return made.eval()


@pytest.fixture
def package(monkeypatch) -> ModuleType:
    """The network of the package itself, whose imports that it needs for other things are replaced."""
    pytest.importorskip("librosa")
    folder = ModuleType("resemblyzer")
    folder.__path__ = [str(weights.VOICE.default_path().parent)]
    detector, dilation = ModuleType("webrtcvad"), ModuleType("scipy.ndimage.morphology")
    dilation.binary_dilation = None
    for module in (folder, detector, dilation):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield import_module("resemblyzer.voice_encoder")
    for name in [name for name in sys.modules if name.startswith("resemblyzer.")]:
        del sys.modules[name]


def test_its_numbers_are_those_of_the_package(tower, package):
    theirs = package.VoiceEncoder("cpu", verbose=False)
    for talker in ("flite-awb", "espeak-en-gb-andy"):
        speech = talk(talker)
        assert len(speech) == tower.clip_samples
        expected, partials, _ = theirs.embed_utterance(speech, return_partials=True)
        embedding, frames = tower(torch.from_numpy(speech)[None])
        assert np.abs(embedding[0].detach().numpy() - expected).max() < 1e-3
        assert np.abs(frames[0].detach().numpy() - partials).max() < 1e-3


def test_the_level_of_a_recording_does_not_change_its_d_vector(tower):
    speech = torch.from_numpy(talk("flite-rms"))[None]
    assert torch.allclose(tower(speech)[0], tower(100 * speech)[0], atol=1e-4)


def test_utterances_of_a_talker_are_nearer_than_those_of_others(tower):
    talkers = ("flite-awb", "flite-rms", "espeak-en-us-f1", "espeak-en-us-m4")
    halves = torch.stack([torch.from_numpy(talk(talker, 9.0)).unflatten(0, (3, -1)) for talker in talkers])
    with torch.no_grad():
        vectors = tower(halves.flatten(0, 1))[0]
    cosine = (vectors @ vectors.T).unflatten(0, (4, 3)).unflatten(2, (4, 3))
    own = torch.stack([cosine[i, :, i][~torch.eye(3, dtype=torch.bool)] for i in range(4)])
    others = torch.stack([cosine[i, :, j].flatten() for i in range(4) for j in range(4) if i != j])
    assert own.mean() > others.mean() + 0.15


def built(**changes) -> VoiceEncoder:
    settings = asdict(ModelConfig(encoder="voice")) | changes
    return VoiceEncoder.from_settings(settings, tiny().transform)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps resemblyzer"):
        built()


def test_other_weights_are_refused(tmp_path):
    torch.save({"model_state": {"lstm": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt"):
        built(encoder_checkpoint=str(tmp_path / "other.pt"))


def test_its_weights_are_the_published_ones():
    path = weights.VOICE.default_path()
    assert path.stat().st_size == weights.VOICE.size
    assert "sha256:" + weights.file_digest(Path(path)) == weights.VOICE.digest
