"""PANNs' Cnn14 against the library it comes from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_numbers import relative_error
from small_tower import TRANSFORM, recording, settings
from torch import Tensor, nn

from sgmse.encoders.panns import INSTALL, PANNsNoiseEncoder
from sgmse.encoders.pretrained import module_of

SAMPLES = 64000


@pytest.fixture(scope="module")
def library() -> nn.Module:
    torch.manual_seed(7)
    models = module_of("panns_inference", "", "models", INSTALL)
    cnn14: nn.Module = models.Cnn14(32000, 1024, 320, 64, 50, 14000, 527).eval()
    cnn14.bn0.running_mean += torch.linspace(-40, -20, 64)
    cnn14.bn0.running_var *= 300
    return cnn14


@pytest.fixture(scope="module")
def encoder(library, tmp_path_factory) -> PANNsNoiseEncoder:
    """A frozen encoder of recordings at 32 kHz with the library's weights; in training mode, so without its cache."""
    path = tmp_path_factory.mktemp("panns") / "published.pth"
    published = {"iteration": 600000, "model": library.state_dict(), "mAP": np.float64(0.431)}
    torch.save(published, path)
    given = settings(sample_rate=32000, encoder_checkpoint=str(path), cross_attention_resolutions=[16])
    encoder = PANNsNoiseEncoder.from_settings(given, TRANSFORM)
    path.unlink()
    assert isinstance(encoder, PANNsNoiseEncoder)
    return encoder.train()


def test_embeddings_are_the_librarys_for_short_and_long_recordings_in_one_batch(encoder, library):
    short, long = recording(23456, 0.9), recording(SAMPLES + 20001, 0.0)
    batch = torch.stack([F.pad(short, (0, len(long) - len(short))), long]) * 0.05
    results: list[tuple[Tensor, Tensor]] = []
    hook = encoder.tower.register_forward_hook(lambda module, arguments, output: results.append(output))
    condition = encoder(batch, torch.tensor([len(short), len(long)]))
    hook.remove()
    embedding, frames = results[0]
    start = 20001 // 2
    with torch.no_grad():
        for i, clip in enumerate((short.repeat(3)[:SAMPLES], long[start : start + SAMPLES])):
            expected = library(clip[None])["embedding"][0]
            assert relative_error(embedding[i], expected) < 1e-3
            # the library pools these frames over time, adds maximum and mean, and applies one layer
            pooled = frames[i].amax(dim=0) + frames[i].mean(dim=0)
            assert relative_error(F.relu(library.fc1(pooled)), expected) < 1e-3
    assert relative_error(embedding[0], embedding[1]) > 0.01  # the random network tells recordings apart
    assert condition.tokens.shape == (2, 6, 16)
    assert condition.mask.sum(dim=1).tolist() == [3, 6]  # 0.73 s of 2 s
