"""What a noise reference says without any encoder: statistics of its level in each frequency bin."""

from __future__ import annotations

import torch
from torch import Tensor

from sgmse.encoders.trunk import features
from sgmse.transform import SpectrogramTransform

QUANTILES = (0.1, 0.9)
CENTRE = 3.5  # about minus the mean of everyday noise, so that the channels start around 0
CHANNELS = 2 + len(QUANTILES)  # the mean, the quantiles, and whether there is a reference


def reference_statistics(transform: SpectrogramTransform, reference: Tensor, length: Tensor) -> Tensor:
    """References [B, M] of lengths [B] → mean, 10 % and 90 % quantile of the log-magnitude over time, and 1: [B, 4, F].

    Natural logarithms of the compressed magnitudes, moved up by `CENTRE`. Only frames that lie wholly inside a
    reference count. Quantiles are linear between order statistics, as those of torch.quantile.
    """
    spectra, frames = features(transform, reference, length)
    level = spectra[:, 0] + CENTRE  # [B, F, T]
    valid = torch.arange(level.shape[-1], device=level.device) < frames[:, None]
    mean = (level * valid[:, None]).sum(dim=-1) / frames[:, None]
    ordered = level.masked_fill(~valid[:, None], torch.inf).sort(dim=-1).values
    quantiles = [_quantile(ordered, frames, q) for q in QUANTILES]
    return torch.stack([mean, *quantiles, torch.ones_like(mean)], dim=1)


def _quantile(ordered: Tensor, frames: Tensor, q: float) -> Tensor:
    """The q-quantile [B, F] of rising values [B, F, T], of which the first `frames` [B] of each item count."""
    place = q * (frames - 1)
    below = place.floor().long()
    above = torch.minimum(below + 1, frames.long() - 1)
    low, high = (ordered.gather(2, at[:, None, None].expand(-1, ordered.shape[1], 1))[..., 0] for at in (below, above))
    return low + (place - below)[:, None].to(low.dtype) * (high - low)
