"""What the encoders trained from scratch have in common: spectrogram features through stride-2 convolutions.

The features have no normalisation, so the level of the reference reaches the network. Frames beyond the end of a
reference are masked after every layer: padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.transform import SpectrogramTransform

LOG_FLOOR = 1e-4  # of the compressed magnitude; far below the quietest noise of interest


def stride_two_convs(widths: Sequence[int]) -> nn.ModuleList:
    """3×3 convolutions from each width to the next; each halves both axes, rounding up."""
    convs = nn.ModuleList()
    for in_channels, out_channels in pairwise(widths):
        layer = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        convs.append(layer)
    return convs


def features(transform: SpectrogramTransform, reference: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Waveforms [B, M] of lengths [B] → log-magnitude, real and imaginary part [B, 3, F, T]; valid frames of each [B].

    Only frames that lie wholly inside a reference are valid: the others would see its padding.
    """
    shortfall = transform.n_fft - reference.shape[-1]
    spectrogram = transform(F.pad(reference, (0, max(shortfall, 0)))).squeeze(1)
    magnitude = (spectrogram.abs() + LOG_FLOOR).log()
    frames = ((length - transform.n_fft // 2) // transform.hop_length + 1).clamp_min(1)
    return torch.stack([magnitude, spectrogram.real, spectrogram.imag], dim=1), frames


def apply_convs(convs: nn.ModuleList, h: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, C, F, T] with their valid frames [B], through the convolutions; zeros beyond the valid frames."""
    h = h * _valid(frames, h)
    for layer in convs:
        frames = (frames + 1) // 2
        h = F.silu(layer(h))
        h = h * _valid(frames, h)
    return h, frames


def _valid(frames: Tensor, like: Tensor) -> Tensor:
    """[B, 1, 1, T] of `like` [B, C, F, T]: 1 up to the last frame of each item, 0 beyond."""
    return (torch.arange(like.shape[-1], device=like.device) < frames[:, None])[:, None, None, :].to(like.dtype)
