"""A convolutional encoder that keeps time, and frequency if wanted, in tokens for cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import POSITION_SPAN, Condition, centres, sinusoids
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.base import EncoderCard, NoiseEncoder
from sgmse.encoders.trunk import apply_convs, features, stride_two_convs

NUM_BANDS = 4  # of a token that holds the whole spectrum
HALVINGS = 4  # of both axes


class SequenceNoiseEncoder(NoiseEncoder):
    """Four stride-2 convolutions, then tokens laid out over time and frequency bands, with their positions added.

    A frame after the convolutions is 16 STFT frames. A reference of n such frames gets min(n, num_tokens) time steps:
    one per frame, or `num_tokens` stretches of equal length, averaged. Positions are relative to the extent of the
    reference and of the spectrum, as those of the queries in `CrossAttention`, and have half of a token's values each.
    The vector is made of the mean of the tokens over time, their bands side by side: it serves a network without
    attention as well.

    Args:
        transform: the model's spectrogram transform.
        dim: size of the vector and of each token.
        channels: channels of the first convolution; two more double them, the last one has `dim`.
        num_tokens: most time steps of the tokens.
        token_bands: tokens per time step, one for each of as many frequency bands. With 1 a token holds the whole
            spectrum: four bands, flattened.

    Raises:
        ValueError: more bands than rows left by the convolutions.
    """

    card = EncoderCard(
        input_rate="the model's",
        embedding="16 tokens of 512 over time (num_tokens, token_bands, cond_dim), and a vector of 512",
        parameters="2.3 M",
        weights="trained from scratch with the model",
        licence="MIT",
        good_for="noise that changes, with --cross_attention_resolutions",
        gives_tokens=True,
        pretrained=False,
    )
    settings = frozenset({"encoder_channels", "num_tokens", "token_bands", "cross_attention_resolutions"})

    def __init__(
        self, transform: SpectrogramTransform, dim: int, channels: int, num_tokens: int, token_bands: int
    ) -> None:
        super().__init__()
        rows = -(-(transform.n_fft // 2 + 1) // 2**HALVINGS)
        if token_bands > rows:
            raise ValueError(f"--token_bands {token_bands}: four halvings leave {rows} rows; use at most {rows}")
        self.transform, self.dim = transform, dim
        self.num_tokens, self.token_bands = num_tokens, token_bands
        self.rows = NUM_BANDS if token_bands == 1 else token_bands
        self.convs = stride_two_convs([3, channels, 2 * channels, 4 * channels, dim])
        self.token = nn.Linear(dim * self.rows // token_bands, dim)
        self.hidden, self.out = nn.Linear(token_bands * dim, dim), nn.Linear(dim, dim)

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], transform: SpectrogramTransform, load_pretrained: bool = True
    ) -> SequenceNoiseEncoder:
        sizes = ("cond_dim", "encoder_channels", "num_tokens", "token_bands")
        return cls(transform, *(settings[name] for name in sizes))

    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Reference [B, M], length [B] → vector [B, dim]; tokens [B, num_tokens · token_bands, dim] and their mask."""
        h, frames = apply_convs(self.convs, *features(self.transform, reference, length))
        bands = F.adaptive_avg_pool2d(h, (self.rows, None))
        steps = torch.einsum("bst,bckt->bskc", stretches(frames, self.num_tokens, h.shape[-1]).to(h.dtype), bands)
        tokens = self.token(steps.reshape(len(h), self.num_tokens, self.token_bands, -1))  # [B, S, bands, dim]
        counts = frames.clamp_max(self.num_tokens)
        valid = torch.arange(self.num_tokens, device=h.device) < counts[:, None]
        mean = (tokens * valid[:, :, None, None]).sum(dim=1) / counts[:, None, None]
        vector = self.out(F.silu(self.hidden(mean.flatten(1))))
        tokens = (tokens + self._positions(counts).to(tokens.dtype)) * valid[:, :, None, None]
        return Condition(vector, tokens.flatten(1, 2), valid.repeat_interleave(self.token_bands, dim=1))

    def _positions(self, counts: Tensor) -> Tensor:
        """Time steps of each item [B] → features of the tokens' places [B, S, bands, dim]."""
        step = torch.arange(self.num_tokens, device=counts.device) + 0.5
        frequency = sinusoids(centres(self.token_bands, counts.device), self.dim // 2)[None, None]
        time = sinusoids(step * POSITION_SPAN / counts[:, None], self.dim - self.dim // 2)[:, :, None]
        shape = (len(counts), self.num_tokens, self.token_bands, -1)
        return torch.cat([frequency.expand(shape), time.expand(shape)], dim=-1)


def stretches(frames: Tensor, count: int, total: int) -> Tensor:
    """Weights [B, count, total] that average `frames` [B] of `total` frames in `count` equal stretches.

    Frames on a border count in parts. Items of fewer frames than stretches keep each frame as it is.
    """
    width = (frames / count).clamp_min(1)[:, None, None]
    start = torch.arange(count, device=frames.device)[None, :, None] * width
    frame = torch.arange(total, device=frames.device)
    overlap = torch.minimum(frame + 1, start + width) - torch.maximum(frame, start)
    return overlap.clamp_min(0) / width
