"""Exponential integrators of the probability flow of OUVE, in data prediction."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sgmse.sampling.base import Counted, Noise, Sample, Schedule, Score, step_times
from sgmse.sde import OUVE


@torch.no_grad()
def dpm_solver(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    num_steps: int = 10,
    t_eps: float = 0.03,
    order: Literal[1, 2] = 2,
    schedule: Schedule = "uniform",
) -> Sample:
    """DPM-Solver++ (Lu et al. 2022, Eq. (8)) of order 1 or 2 (2M), from the prior to t = 0; one evaluation a step.

    With α_t = e^{−θt}, κ = α_t/σ_t and D the clean spectrogram that the score implies, the probability flow is

        d((x_t − y) / σ_t) = (D − y) dκ,

    because dσ²/dt = g² − 2θσ²: y shifts the origin, and the linear part is solved exactly. Order 1 holds D over a step,
    order 2 extends it linearly in log κ from the last two evaluations. The last step, from `t_eps` to 0, returns D.
    """
    counted = Counted(score)
    times = step_times(sde.end_time, t_eps, num_steps, schedule, y.device)
    sigmas = sde.std(times)
    kappas = torch.exp(-sde.theta * times) / sigmas
    x = sde.prior(y, noise(y))
    clean = sde.clean_from_score(x, y, counted(x, times[0]), times[:1])
    slope = torch.zeros_like(y)
    for i, (kappa, kappa_next) in enumerate(pairwise(kappas)):
        step = torch.log(kappa_next / kappa)
        scaled = (x - y) / sigmas[i] + (kappa_next - kappa) * (clean - y)
        if order == 2:  # ∫ e^λ (λ − λ_i) dλ over the step, with λ = log κ
            scaled = scaled + (kappa_next * (step - 1) + kappa) * slope
        x = y + sigmas[i + 1] * scaled
        last, clean = clean, sde.clean_from_score(x, y, counted(x, times[i + 1]), times[i + 1 : i + 2])
        slope = (clean - last) / step
    return Sample(clean, counted.calls)
