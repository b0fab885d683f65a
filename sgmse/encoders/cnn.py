"""A small convolutional encoder, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.conditioning import Condition
from sgmse.encoders.base import NoiseEncoder
from sgmse.transform import SpectrogramTransform

NUM_BANDS = 4
LOG_FLOOR = 1e-4  # of the compressed magnitude; far below the quietest noise of interest


class CNNNoiseEncoder(NoiseEncoder):
    """Four stride-2 convolutions, a mean over time in a few frequency bands, two linear layers.

    It sees the log-magnitude beside real and imaginary parts and has no normalisation, so the level of the reference
    reaches the network. Frames beyond the end of a reference are masked after every layer: padding changes nothing.

    Args:
        transform: the model's spectrogram transform.
        dim: size of the vector.
        channels: channels of the first convolution; each further one doubles them.
    """

    def __init__(self, transform: SpectrogramTransform, dim: int, channels: int) -> None:
        super().__init__()
        self.transform, self.dim = transform, dim
        widths = [3, channels, 2 * channels, 4 * channels, 8 * channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.hidden, self.out = nn.Linear(widths[-1] * NUM_BANDS, dim), nn.Linear(dim, dim)
        for layer in self.convs:
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], transform: SpectrogramTransform) -> CNNNoiseEncoder:
        return cls(transform, settings["cond_dim"], settings["encoder_channels"])

    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Reference [B, M], length [B] → vector [B, dim]."""
        shortfall = self.transform.n_fft - reference.shape[-1]
        spectrogram = self.transform(F.pad(reference, (0, max(shortfall, 0)))).squeeze(1)
        magnitude = (spectrogram.abs() + LOG_FLOOR).log()
        features = torch.stack([magnitude, spectrogram.real, spectrogram.imag], dim=1)
        # frames that lie wholly inside the reference: the others would see its padding
        frames = ((length - self.transform.n_fft // 2) // self.transform.hop_length + 1).clamp_min(1)
        h = features * _valid(frames, features)
        for layer in self.convs:
            frames = (frames + 1) // 2
            h = F.silu(layer(h))
            h = h * _valid(frames, h)
        total = F.adaptive_avg_pool2d(h, (NUM_BANDS, 1)).squeeze(-1) * h.shape[-1]  # zeros beyond the end: a sum
        mean = total / frames[:, None, None].to(total.dtype)
        return Condition(self.out(F.silu(self.hidden(mean.flatten(1)))))


def _valid(frames: Tensor, like: Tensor) -> Tensor:
    """[B, 1, 1, T] of `like` [B, C, F, T]: 1 up to the last frame of each item, 0 beyond."""
    return (torch.arange(like.shape[-1], device=like.device) < frames[:, None])[:, None, None, :].to(like.dtype)
