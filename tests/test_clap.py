"""CLAP against the library it comes from: `get_audio_features`, tower, projection, L2 norm."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import torch
import torch.nn.functional as F
from golden_numbers import relative_error
from library_features import get_audio_features
from small_tower import TRANSFORM, recording, settings
from torch import Tensor, nn

from sgmse.encoders.clap import INSTALL, CLAPNoiseEncoder
from sgmse.encoders.pretrained import module_of, package_folder

SAMPLES = 480000


class Library:
    """What laion_clap's CLAP does with audio: its `get_audio_embedding`, without the half that reads text."""

    def __init__(self) -> None:
        configs = package_folder("laion_clap", INSTALL) / "clap_module" / "model_configs"
        self.config = json.loads((configs / "HTSAT-tiny.json").read_text())["audio_cfg"]
        htsat = module_of("laion_clap", "clap_module", "htsat", INSTALL)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            self.tower = htsat.create_htsat_model(SimpleNamespace(**self.config)).eval()
        self.projection = nn.Sequential(nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 512))
        self.tower.bn0.running_mean += torch.linspace(-40, -20, 64)
        self.tower.bn0.running_var *= 300
        self.features = get_audio_features()

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> dict[str, Tensor]:
        sample = self.features({}, waveform, SAMPLES, "rand_trunc", "repeatpad", self.config)
        heard = self.tower({"waveform": sample["waveform"][None]})
        return heard | {"embedding": F.normalize(self.projection(heard["embedding"]), dim=-1)}

    def published(self) -> dict[str, object]:
        """In the layout of 630k-audioset-best.pt, with a numpy scalar as there."""
        state = {f"module.audio_branch.{name}": t for name, t in self.tower.state_dict().items()}
        state |= {f"module.audio_projection.{name}": t for name, t in self.projection.state_dict().items()}
        state |= {"module.text_branch.embeddings.position_ids": torch.arange(4)[None], "module.logit_scale_a": 1.0}
        return {"epoch": 45, "name": "clap", "state_dict": state, "best": np.float64(0.7)}


@pytest.fixture(scope="module")
def library() -> Library:
    torch.manual_seed(7)
    return Library()


@pytest.fixture(scope="module")
def encoder(library, tmp_path_factory) -> CLAPNoiseEncoder:
    """A frozen encoder of recordings at 48 kHz with the library's weights; in training mode, so without its cache."""
    path = tmp_path_factory.mktemp("clap") / "published.pt"
    torch.save(library.published(), path)
    given = settings(sample_rate=48000, encoder_checkpoint=str(path), cross_attention_resolutions=[16])
    encoder = CLAPNoiseEncoder.from_settings(given, TRANSFORM)
    path.unlink()
    assert isinstance(encoder, CLAPNoiseEncoder)
    return encoder.train()


def heard(encoder: CLAPNoiseEncoder, reference: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding and frames that the tower makes of references."""
    results: list[tuple[Tensor, Tensor]] = []
    hook = encoder.tower.register_forward_hook(lambda module, arguments, output: results.append(output))
    encoder(reference, length)
    hook.remove()
    return results[0]


def test_embeddings_are_the_librarys_for_short_and_long_recordings_in_one_batch(encoder, library):
    short, long = recording(34567, 0.9), recording(SAMPLES + 30001, 0.0)
    batch = torch.stack([F.pad(short, (0, len(long) - len(short))), long]) * 0.05
    embedding, frames = heard(encoder, batch, torch.tensor([len(short), len(long)]))
    start = 30001 // 2
    for i, waveform in enumerate((short, long[start : start + SAMPLES])):
        expected = library(waveform)
        assert relative_error(embedding[i], expected["embedding"][0]) < 1e-3
        # the library gives each of 32 frames 32 times
        fine = expected["fine_grained_embedding"].unflatten(1, (32, 32))
        assert torch.equal(fine, fine[:, :, :1].expand_as(fine))
        assert relative_error(frames[i], fine[0, :, 0]) < 1e-3
    assert relative_error(embedding[0], embedding[1]) > 0.01  # the random network tells recordings apart


def test_references_of_16_khz_are_resampled_as_well_as_the_library_does_it(encoder, library):
    at_16_khz = recording(16000, 0.9)
    at_48_khz = torch.from_numpy(soxr.resample(at_16_khz.numpy(), 16000, 48000))
    low_rate = CLAPNoiseEncoder(encoder.tower, 16000, 8, frozen=False, with_tokens=False, identity=None)
    embedding, _ = heard(low_rate, at_16_khz[None], torch.tensor([16000]))
    # a filter that leaves more above 8 kHz than silence costs 0.2
    assert relative_error(embedding[0], library(at_48_khz)["embedding"][0]) < 0.03
