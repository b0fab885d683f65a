"""Samplers of the Schrödinger bridge."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sgmse.sampling.base import Counted, Denoise, Noise, Sample, Schedule, step_times
from sgmse.sde import SBVE


@torch.no_grad()
def bridge(
    denoise: Denoise,
    sde: SBVE,
    y: Tensor,
    noise: Noise,
    num_steps: int = 5,
    method: Literal["ode", "sde"] = "ode",
    order: Literal[1, 2] = 1,
    schedule: Schedule = "uniform",
    end_time: float = 1e-4,
    as_published: bool = False,
) -> Sample:
    """Bridge samplers, Jukić et al. 2024, Eq. (13) (SDE) and (14) (ODE), which hold the estimate over each step.

    The network is asked at the start of each step, where x_t is. The published code asks it at the *end* of the step
    (the last time at t = `end_time`, below every time of training) and its guards shift the first ODE step by about
    4 % of y; `as_published` reproduces both for its checkpoints. `order` 2 (ODE only) extends the estimate linearly.
    """
    counted = Counted(denoise)
    times = step_times(sde.end_time, end_time, num_steps + 1, schedule, y.device)[:, None]
    x = last = y
    for i, (t_prev, t) in enumerate(pairwise(times)):
        estimate = counted(x, t if as_published else t_prev)
        if method == "ode":
            at_prior = i == 0 and not as_published  # x = y exactly: Eq. (14) is 0/0 there, its limit is the bridge mean
            x = sde.mean(estimate, y, t) if at_prior else _ode_step(sde, x, estimate, y, t_prev, t)
            if order == 2 and i > 0:
                x = x + _second_order(sde, times[i - 1], t_prev, t) * (estimate - last)
            last = estimate
        else:
            kept = sde.sigma(t) ** 2 / (sde.sigma(t_prev) ** 2 + sde.guard)
            x = kept * x + (1 - kept) * estimate
            if i + 1 < num_steps:
                x = x + sde.sigma(t) * (1 - kept).sqrt() * noise(x)
    return Sample(x, counted.calls)


def _ode_step(sde: SBVE, x: Tensor, estimate: Tensor, y: Tensor, t_prev: Tensor, t: Tensor) -> Tensor:
    """Eq. (14): the exact solution from t_prev to t for a constant estimate of the clean spectrogram."""
    s_prev, s, bar_prev, bar = sde.sigma(t_prev), sde.sigma(t), sde.sigma_bar(t_prev), sde.sigma_bar(t)
    share = 1 / (sde.sigma_end(t) ** 2 + sde.guard)
    from_x = s * bar / (s_prev * bar_prev + sde.guard)
    from_estimate = share * (bar**2 - bar_prev * s * bar / (s_prev + sde.guard))
    from_y = share * (s**2 - s_prev * s * bar / (bar_prev + sde.guard))
    return from_x * x + from_estimate * estimate + from_y * y


def _second_order(sde: SBVE, t_before: Tensor, t_prev: Tensor, t: Tensor) -> Tensor:
    """Weight of (estimate − the one before it) when the estimate is linear in τ = σ_t²/σ_T² (two-step Adams–Bashforth).

    Eq. (14) is x/(σσ̄) = ∫ D dκ/σ_T² + …, κ = σ̄/σ = √((1 − τ)/τ), and ∫ (τ − τ_p) dκ has a closed form.
    """
    before, prev, now = ((sde.sigma(s) / sde.sigma_end(s)).square() for s in (t_before, t_prev, t))

    def area(tau: Tensor) -> Tensor:  # ∫ κ dτ
        return (tau * (1 - tau)).sqrt() + torch.asin(tau.sqrt())

    kappa = ((1 - now) / now).sqrt()
    integral = (now - prev) * kappa - (area(now) - area(prev))
    return (now * (1 - now)).sqrt() * integral / (prev - before)
