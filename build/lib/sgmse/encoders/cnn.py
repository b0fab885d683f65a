"""A small convolutional encoder, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.base import EncoderCard, NoiseEncoder
from sgmse.encoders.trunk import apply_convs, features, stride_two_convs

NUM_BANDS = 4


class CNNNoiseEncoder(NoiseEncoder):
    """Four stride-2 convolutions, a mean over time in a few frequency bands, two linear layers.

    It sees the log-magnitude beside real and imaginary parts and has no normalisation, so the level of the reference
    reaches the network. Frames beyond the end of a reference are masked after every layer: padding changes nothing.

    Args:
        transform: the model's spectrogram transform.
        dim: size of the vector.
        channels: channels of the first convolution; each further one doubles them.
    """

    card = EncoderCard(
        input_rate="the model's",
        embedding="512 (cond_dim), from 4 frequency bands averaged over time",
        parameters="1.2 M",
        weights="trained from scratch with the model",
        licence="MIT",
        good_for="the first choice: small, fast, keeps the level",
        gives_tokens=False,
        pretrained=False,
    )
    settings = frozenset({"encoder_channels"})

    def __init__(self, transform: SpectrogramTransform, dim: int, channels: int) -> None:
        super().__init__()
        self.transform, self.dim = transform, dim
        widths = [3, channels, 2 * channels, 4 * channels, 8 * channels]
        self.convs = stride_two_convs(widths)
        self.hidden, self.out = nn.Linear(widths[-1] * NUM_BANDS, dim), nn.Linear(dim, dim)

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], transform: SpectrogramTransform, load_pretrained: bool = True
    ) -> CNNNoiseEncoder:
        return cls(transform, settings["cond_dim"], settings["encoder_channels"])

    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Reference [B, M], length [B] → vector [B, dim]."""
        h, frames = apply_convs(self.convs, *features(self.transform, reference, length))
        total = F.adaptive_avg_pool2d(h, (NUM_BANDS, 1)).squeeze(-1) * h.shape[-1]  # zeros beyond the end: a sum
        mean = total / frames[:, None, None].to(total.dtype)
        return Condition(self.out(F.silu(self.hidden(mean.flatten(1)))))
