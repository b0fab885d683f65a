"""Losses beside the diffusion objective that keep the condition from being ignored. Off by default."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.encoders.levels import NUM_BANDS, band_levels

TEMPERATURE = 0.1
SHORTEST_S = 0.1  # of a half that still says something about its noise

Encode = Callable[[Tensor, Tensor], Condition]


class AuxiliaryLosses(nn.Module):
    """InfoNCE between the halves of a reference, and prediction of the noise's band levels from the reference.

    Args:
        dim: size of the condition vector.
        sample_rate: of the waveforms, in Hz.
        infonce_weight, band_level_weight: factors of the two losses; 0 leaves one out.
    """

    def __init__(self, dim: int, sample_rate: int, infonce_weight: float, band_level_weight: float) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.infonce_weight, self.band_level_weight = infonce_weight, band_level_weight
        self.to_band_levels = nn.Linear(dim, NUM_BANDS) if band_level_weight > 0 else None

    def forward(self, batch: dict[str, Tensor], condition: Condition, encode: Encode) -> dict[str, Tensor]:
        """The losses by name, each [] and weighted.

        Args:
            batch: {clean, noisy [B, N], reference [B, M], reference_length [B]}.
            condition: of the references, none dropped.
            encode: references [B, M] with lengths [B] → condition.
        """
        reference, length = batch["reference"], batch["reference_length"]
        losses = {}
        if self.infonce_weight > 0:
            first, second, half = halves(reference, length)
            usable = half >= SHORTEST_S * self.sample_rate
            contrast = info_nce(encode(first, half).vector, encode(second, half).vector, usable)
            losses["infonce"] = self.infonce_weight * contrast
        if self.to_band_levels is not None:
            noise = batch["noisy"] - batch["clean"]
            target = band_levels(noise, torch.full_like(length, noise.shape[-1]), self.sample_rate)
            error = (self.to_band_levels(condition.vector) - target).abs().mean(dim=-1)
            losses["band_level"] = self.band_level_weight * _mean_where(length > 0, error)
        return losses


def halves(reference: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves [B, M'] of each reference [B, M] of `length` [B], zero-padded, and their length [B]."""
    half = length // 2
    index = torch.arange(max(1, int(half.max())), device=reference.device)
    inside = index < half[:, None]
    second = reference.gather(1, (half[:, None] + index).clamp_max(reference.shape[-1] - 1))
    return reference[:, : len(index)] * inside, second * inside, half


def info_nce(first: Tensor, second: Tensor, usable: Tensor) -> Tensor:
    """Which of the batch's second halves belongs to a first half? Cross-entropy over cosines, both ways. [].

    −log exp(cos(z_i, z'_i) / τ) / Σ_j exp(cos(z_i, z'_j) / τ), van den Oord et al. 2018, Eq. (4), with τ = 0.1.

    Args:
        first, second: embeddings [B, D] of disjoint segments, row by row of one noise.
        usable: [B] bool; the other items take no part. With fewer than two the loss is 0.
    """
    cosine = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / TEMPERATURE
    both = _own_among_all(cosine, usable) + _own_among_all(cosine.T, usable)
    return _mean_where(usable, both / 2)


def _own_among_all(similarity: Tensor, usable: Tensor) -> Tensor:
    """Cross-entropy [B] of each row of `similarity` [B, B] with its diagonal as the answer, over usable columns."""
    similarity = similarity.masked_fill(~usable, -torch.inf).masked_fill(~usable[:, None], 0.0)
    return F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device), reduction="none")


def _mean_where(usable: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` [B] over the usable items; 0, still with a gradient of 0, when there is none."""
    return (values * usable).sum() / usable.sum().clamp_min(1)
