"""Training objectives, each a loss per item, so that it can be watched by diffusion time.

Spectrograms are complex [B, C, F, T]; every loss returns [B]. Losses are means over bins, not sums, so that their size
and the clipping of gradients do not depend on the crop; Adam's steps are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgmse.diffusion.sde import OUVE, SBVE, per_item

BEST_SI_SDR = 30.0  # in dB
SILENCE_POWER = 1e-10  # of clean speech, below which nothing is said
LossWeighting = Literal["1", "sigma^2", "edm"]


@dataclass(frozen=True)
class Perturbed:
    """A batch of the forward process: x_t = mean + σ z [B, C, F, T] at the times t [B], from clean spectrograms."""

    clean: Tensor
    x_t: Tensor
    t: Tensor
    mean: Tensor
    sigma: Tensor
    z: Tensor


def score_matching(score: Tensor, batch: Perturbed, settings: Mapping[str, Any]) -> Tensor:
    """½ E|σ s(x_t) + z|²: denoising score matching with weight σ², Richter et al. 2024, Eq. (7)."""
    return 0.5 * _mean_square(per_item(batch.sigma, score) * score + batch.z)


def denoiser(score: Tensor, batch: Perturbed, settings: Mapping[str, Any]) -> Tensor:
    """½ λ(σ) E|D − μ|² with D = σ² s + x_t, Richter et al. 2024, Eq. (8) and (10).

    loss_weighting: λ is "1", "sigma^2", or "edm" = (σ² + σ_data²) / (σ σ_data)².
    """
    sigma, sigma_data = batch.sigma, settings["sigma_data"]
    loss = 0.5 * _mean_square(per_item(sigma, score) ** 2 * score + batch.x_t - batch.mean)
    if settings["loss_weighting"] == "sigma^2":
        return loss * sigma**2
    if settings["loss_weighting"] == "edm":
        return loss * (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return loss


def data_prediction(estimate: Tensor, batch: Perturbed, settings: Mapping[str, Any]) -> Tensor:
    """The error of the estimate on compressed spectrograms, Richter et al. 2024, Sec. III-C.

    magnitude_weight: of ½ E(|x̂| − |x|)², which does not ask for the phase.
    """
    loss = spectrogram_error(estimate, batch.clean)
    if settings["magnitude_weight"]:
        # the gradient of |x̂| is not defined at 0
        error = estimate.abs().clamp_min(1e-6) - batch.clean.abs()
        loss = loss + 0.5 * settings["magnitude_weight"] * error.square().flatten(1).mean(dim=1)
    return loss


def spectrogram_error(estimate: Tensor, clean: Tensor) -> Tensor:
    """½ E|x̂ − x|² [B]."""
    return 0.5 * _mean_square(estimate - clean)


def waveform_l1(estimate: Tensor, clean: Tensor) -> Tensor:
    """½ E|x̂ − x| on waveforms [B, N] → [B]."""
    return 0.5 * (estimate - clean).abs().mean(dim=-1)


def negative_si_sdr(estimate: Tensor, clean: Tensor) -> Tensor:
    """−SI-SDR in dB of waveforms [B, N] → [B], Le Roux et al. 2019, Eq. (5); at least −`BEST_SI_SDR`.

    Without the bound items that are nearly clean would drive the training. Silent clean speech gives 0: what is left of
    the noise then has no ratio, and `spectrogram_error` sees it.
    """
    target = (estimate * clean).sum(dim=-1, keepdim=True) / clean.square().sum(dim=-1, keepdim=True).clamp_min(1e-8)
    target = target * clean
    energy, error = target.square().sum(dim=-1), (target - estimate).square().sum(dim=-1)
    ratio = 10 * ((energy + 1e-8) / (error + 1e-8)).log10()
    return torch.where(clean.square().mean(dim=-1) > SILENCE_POWER, -ratio.clamp_max(BEST_SI_SDR), 0.0)


def _mean_square(z: Tensor) -> Tensor:
    return (z.real.square() + z.imag.square()).flatten(1).mean(dim=1)


PESQ_S = 0.35  # the shortest crop that it compares


class PesqDistance(nn.Module):
    """torch-pesq's differentiable PESQ distance: (clean, estimate [B, N]) → [B].

    An item without a finite distance, or gradient of it, has neither: silent speech has no level to align with, and
    roots of disturbances have no slope at zero.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        from torch_pesq import PesqLoss  # a second to load

        self.distance = PesqLoss(1.0, sample_rate=sample_rate).eval().requires_grad_(False)

    def forward(self, clean: Tensor, estimate: Tensor) -> Tensor:
        if estimate.requires_grad:
            estimate = estimate.clone()
            estimate.register_hook(lambda slope: slope.where(slope.isfinite().all(dim=1, keepdim=True), 0))
        distance: Tensor = self.distance(clean, estimate)
        return distance.where(distance.isfinite(), 0)


@dataclass(frozen=True)
class Objective:
    """What a network can be trained for.

    Args:
        name: in `OBJECTIVES`.
        loss: (prediction [B, C, F, T], the batch, the model's settings) → [B].
        process: the one it trains for.
        predicts: what the preconditioned network returns: the score, the mean of x_t, or the clean spectrogram. Losses
            of the waveform are added to the last.
        settings: of the model that it alone reads.
        one_step: it knows the last time only, where the bridge is at y: no diffusion.
    """

    name: str
    loss: Callable[[Tensor, Perturbed, Mapping[str, Any]], Tensor]
    process: type[OUVE] | type[SBVE]
    predicts: Literal["score", "mean", "clean"]
    settings: frozenset[str] = frozenset()
    one_step: bool = False


_OF_SPEECH = frozenset({"magnitude_weight", "l1_weight", "si_sdr_weight", "pesq_weight"})
# the first one of each process is its default
OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective("score_matching", score_matching, OUVE, "score"),
        Objective("denoiser", denoiser, OUVE, "mean", frozenset({"loss_weighting"})),
        Objective("data_prediction", data_prediction, SBVE, "clean", _OF_SPEECH | {"times", "end_share"}),
        Objective("predictive", data_prediction, SBVE, "clean", _OF_SPEECH, one_step=True),
    )
}
