"""A pretrained encoder around a network of a few weights, for what does not depend on which network it is."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.pretrained import PretrainedNoiseEncoder, Tower
from sgmse.encoders.weights import PublishedWeights

TRANSFORM = SpectrogramTransform(510, 128, 0.15, 0.5)


class SmallTower(Tower):
    rate = 8000
    clip_samples = 4000
    whole_repeats = True
    embedding_size = 4
    frame_size = 6
    num_frames = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 500, stride=500)
        self.norm, self.dropout, self.head = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.dropout(self.norm(self.conv(clip[:, None])))
        return self.head(frames.mean(dim=-1)), frames.transpose(1, 2)

    @staticmethod
    def published_state(content: dict[str, Any]) -> dict[str, Tensor]:
        return dict(content["state_dict"])


class SmallEncoder(PretrainedNoiseEncoder):
    published = PublishedWeights("small", "small.pt", "https://example.org/small.pt")
    tower_class = SmallTower


def settings(**changes: Any) -> dict[str, Any]:
    """The model's settings that a pretrained encoder reads."""
    given: dict[str, Any] = {"cond_dim": 16, "sample_rate": 16000, "encoder_checkpoint": "random"}
    return given | {"freeze_encoder": True, "cross_attention_resolutions": []} | changes


def small_encoder(**changes: Any) -> SmallEncoder:
    encoder = SmallEncoder.from_settings(settings(**changes), TRANSFORM)
    assert isinstance(encoder, SmallEncoder)
    return encoder


def recording(samples: int, pole: float) -> Tensor:
    """Noise through 1 / (1 - pole z⁻¹), with its peak at 1: [samples]."""
    white = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    taps = pole ** torch.arange(64.0).flip(0)
    coloured = nn.functional.conv1d(nn.functional.pad(white, (63, 0))[None, None], taps[None, None])[0, 0]
    return coloured / coloured.abs().max()


def save_weights(path: Path, seed: int = 1, **more: object) -> SmallTower:
    """A weight file of the small tower; returns the tower."""
    torch.manual_seed(seed)
    tower = SmallTower()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": tower.state_dict(), **more}, path)
    return tower
