"""Forward processes: mean, standard deviation, drift, diffusion, prior. No network and no step count lives here.

Times `t` are [B], or [] for all items, in (0, 1]; spectrograms are complex [B, C, F, T]. A complex standard normal has
variance 1 (1/2 in each part), as `torch.randn_like` draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def per_item(value: Tensor, like: Tensor) -> Tensor:
    """[B] → [B, 1, …, 1] so that it scales `like` [B, …]; [] stays, and may be on another device than `like`."""
    return value if value.dim() == 0 else value.reshape(-1, *([1] * (like.dim() - 1)))


@dataclass(frozen=True)
class OUVE:
    """Ornstein–Uhlenbeck variance-exploding process, Richter et al. 2023 (SGMSE+), Eq. (5)–(12).

    dx = θ (y − x) dt + g(t) dw,  g(t) = σ_min (σ_max/σ_min)^t √(2 log(σ_max/σ_min))
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    end_time: ClassVar[float] = 1.0

    @property
    def log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """E[x_t | x_0, y] = e^{−θt} x_0 + (1 − e^{−θt}) y, Eq. (10)."""
        decay = per_item(torch.exp(-self.theta * t), x0)
        return decay * x0 + (1 - decay) * y

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation [B] of x_t given x_0 and y, Eq. (11)."""
        growth = torch.exp(2 * self.log_ratio * t) - torch.exp(-2 * self.theta * t)
        return (self.sigma_min**2 * growth * self.log_ratio / (self.theta + self.log_ratio)).sqrt()

    def clean_from_score(self, x_t: Tensor, y: Tensor, score: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t, y] = y + e^{θt} (x_t + σ_t² score − y): the x_0 whose mean the score points to (Tweedie)."""
        growth = per_item(torch.exp(self.theta * t), x_t)
        return y + growth * (x_t + per_item(self.std(t), x_t) ** 2 * score - y)

    def score_from_clean(self, x_t: Tensor, y: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The inverse of `clean_from_score`: the score of x_t given x_0 and y."""
        return (self.mean(x0, y, t) - x_t) / per_item(self.std(t), x_t) ** 2

    def drift(self, x: Tensor, y: Tensor) -> Tensor:
        """θ (y − x)."""
        return self.theta * (y - x)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) [B]."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t * math.sqrt(2 * self.log_ratio)

    def prior(self, y: Tensor, noise: Tensor) -> Tensor:
        """x_T = y + σ(T) z, Eq. (14)."""
        return y + self.std(torch.tensor(self.end_time)) * noise


@dataclass(frozen=True)
class SBVE:
    """Schrödinger bridge with variance-exploding diffusion, Jukić et al. 2024, Table 1 and Eq. (9)–(11).

    dx = √c k^t dw between x_0 (clean) and x_1 = y (noisy).
    """

    k: float = 2.6
    c: float = 0.4
    end_time: ClassVar[float] = 1.0
    guard: ClassVar[float] = 1e-8  # the published code adds it inside every division

    def sigma(self, t: Tensor) -> Tensor:
        """σ_t [B]: std of the free diffusion from 0 to t, Table 1."""
        return (self.c * (self.k ** (2 * t) - 1) / (2 * torch.tensor(self.k).log())).sqrt()

    def sigma_end(self, t: Tensor) -> Tensor:
        """σ_T, shaped as t [B] and rounded as `sigma` rounds, so that σ̄_T is √guard and not rounding noise."""
        return self.sigma(torch.full_like(t, self.end_time))

    def sigma_bar(self, t: Tensor) -> Tensor:
        """σ̄_t = √(σ_T² − σ_t²) [B], below Eq. (9)."""
        return (self.sigma_end(t) ** 2 - self.sigma(t) ** 2 + self.guard).sqrt()

    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """μ_t = (σ̄_t² x_0 + σ_t² y) / σ_T², Eq. (11); α ≡ 1 for variance exploding."""
        total = self.sigma_end(t) ** 2 + self.guard
        towards_y = per_item(self.sigma(t) ** 2 / total, x0)
        towards_x = per_item(self.sigma_bar(t) ** 2 / total, x0)
        return towards_x * x0 + towards_y * y

    def std(self, t: Tensor) -> Tensor:
        """σ̄_t σ_t / σ_T [B], Eq. (11)."""
        return self.sigma_bar(t) * self.sigma(t) / (self.sigma_end(t) + self.guard)

    def drift(self, x: Tensor, y: Tensor) -> Tensor:
        """0: the variance-exploding reference process has no drift."""
        return torch.zeros_like(x)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) = √c k^t [B], Table 1."""
        return math.sqrt(self.c) * self.k**t

    def prior(self, y: Tensor, noise: Tensor) -> Tensor:
        """x_T = y: the bridge starts at the noisy speech."""
        return y


SDE = OUVE | SBVE
PROCESSES: dict[str, type[OUVE] | type[SBVE]] = {"ouve": OUVE, "sbve": SBVE}  # the names of --sde
