"""Training objectives, each a loss per item, so that it can be watched by diffusion time.

Spectrograms are complex [B, C, F, T]; every loss returns [B]. Losses are means over bins, not sums, so that their size
and the clipping of gradients do not depend on the crop; Adam's steps are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sgmse.common.errors import UserError
from sgmse.diffusion.sde import per_item

ObjectiveName = Literal["score_matching", "denoiser", "data_prediction", "predictive"]
PREDICT_DATA = ("data_prediction", "predictive")
LossWeighting = Literal["1", "sigma^2", "edm"]


@dataclass(frozen=True)
class Objective:
    """What the model is trained for, with the weights of its parts (see the functions below)."""

    name: ObjectiveName
    weighting: LossWeighting
    sigma_data: float
    l1_weight: float
    pesq_weight: float


def score_matching(score: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
    """½ E|σ s(x_t) + z|²: denoising score matching with weight σ², Richter et al. 2024, Eq. (7).

    Args:
        score: predicted score.
        z: the noise of x_t = μ + σ z.
        sigma: [B].
    """
    return 0.5 * _mean_square(per_item(sigma, score) * score + z)


def denoiser(
    score: Tensor, x_t: Tensor, mean: Tensor, sigma: Tensor, weighting: LossWeighting, sigma_data: float
) -> Tensor:
    """½ λ(σ) E|D − μ|² with D = σ² s + x_t, Richter et al. 2024, Eq. (8) and (10).

    weighting: "1", "sigma^2", or "edm" = (σ² + σ_data²) / (σ σ_data)².
    """
    sigma_b = per_item(sigma, score)
    loss = 0.5 * _mean_square(sigma_b**2 * score + x_t - mean)
    if weighting == "sigma^2":
        return loss * sigma**2
    if weighting == "edm":
        return loss * (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return loss


def data_prediction(estimate: Tensor, clean: Tensor) -> Tensor:
    """½ E|x̂ − x|² on compressed spectrograms, Richter et al. 2024, Sec. III-C."""
    return 0.5 * _mean_square(estimate - clean)


def waveform_l1(estimate: Tensor, clean: Tensor) -> Tensor:
    """½ E|x̂ − x| on waveforms [B, N] → [B]."""
    return 0.5 * (estimate - clean).abs().mean(dim=-1)


def _mean_square(z: Tensor) -> Tensor:
    return (z.real.square() + z.imag.square()).flatten(1).mean(dim=1)


def pesq_loss(sample_rate: int) -> nn.Module:
    """torch-pesq's differentiable PESQ distance: (clean, estimate [B, N]) → [B]. Raises `UserError` without it."""
    try:
        from torch_pesq import PesqLoss
    except ImportError as error:
        raise UserError(f"--pesq_weight needs torch-pesq ({error}); run `pip install torch-pesq`") from None

    module: nn.Module = PesqLoss(1.0, sample_rate=sample_rate).eval()
    return module.requires_grad_(False)
