"""Predictor–corrector and probability-flow samplers of OUVE."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from sgmse.sampling.base import Counted, Noise, Sample, Score
from sgmse.sde import OUVE

Predictor = Literal["reverse_diffusion", "euler_maruyama"]
Corrector = Literal["ald", "langevin", "none"]


@torch.no_grad()
def predictor_corrector(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    num_steps: int = 30,
    t_eps: float = 0.03,
    predictor: Predictor = "reverse_diffusion",
    corrector: Corrector = "ald",
    snr: float = 0.5,
    corrector_steps: int = 1,
) -> Sample:
    """Predictor–corrector sampling, Song et al. 2021, Alg. 3–5, in the variant of SGMSE+ (corrector first).

    Times run linearly from 1 to `t_eps`; the last predictor step goes from `t_eps` to 0 and adds no noise.
    `snr` is the corrector's step-size parameter r.
    """
    counted = Counted(score)
    times = torch.linspace(sde.end_time, t_eps, num_steps, device=y.device)
    x = x_mean = sde.prior(y, noise(y))
    for i, t in enumerate(times):
        for _ in range(corrector_steps if corrector != "none" else 0):
            x = _correct(counted(x, t), x, noise(x), sde.std(t), snr, corrector)
        step = t - times[i + 1] if i + 1 < num_steps else t
        if predictor == "euler_maruyama":  # equal steps of 1/N, as published; reverse diffusion follows the grid
            step = torch.full_like(step, sde.end_time / num_steps)
        # reverse SDE (Anderson 1982), one step back: x − [f − g² score] Δt + g √Δt z
        g2 = sde.diffusion(t) ** 2
        x_mean = x - (sde.drift(x, y) - g2 * counted(x, t)) * step
        x = x_mean + (g2 * step).sqrt() * noise(x)
    return Sample(x_mean, counted.calls)


def _correct(score: Tensor, x: Tensor, z: Tensor, std: Tensor, snr: float, corrector: Corrector) -> Tensor:
    """One Langevin step x + ε score + √(2ε) z: ε = 2 (r σ_t)² annealed, or 2 (r ‖z‖/‖score‖)², Song et al. Alg. 4."""
    if corrector == "ald":
        epsilon = 2 * (snr * std) ** 2
    else:
        epsilon = 2 * (snr * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2
    return x + epsilon * score + (2 * epsilon).sqrt() * z


@torch.no_grad()
def probability_flow(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    num_steps: int = 30,
    t_eps: float = 0.03,
    method: Literal["euler", "heun"] = "heun",
) -> Sample:
    """Probability-flow ODE dx = [f − ½ g² score] dt, Song et al. 2021, Eq. (13), in fixed steps from 1 to `t_eps`.

    Euler needs one evaluation a step, Heun two; one more removes the noise left at `t_eps`.
    """
    counted = Counted(score)
    times = torch.linspace(sde.end_time, t_eps, num_steps, device=y.device)

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return sde.drift(x, y) - 0.5 * sde.diffusion(t) ** 2 * counted(x, t)

    x = sde.prior(y, noise(y))
    for t, t_next in pairwise(times):
        here = slope(x, t)
        proposal = x + (t_next - t) * here
        x = proposal if method == "euler" else x + (t_next - t) * 0.5 * (here + slope(proposal, t_next))
    return Sample(_denoise(counted, sde, x, y, times[-1]), counted.calls)


@torch.no_grad()
def probability_flow_rk45(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    t_eps: float = 0.03,
    tolerance: float = 1e-5,
) -> Sample:
    """The same ODE by SciPy's adaptive Runge–Kutta 4(5); `tolerance` is both relative and absolute."""
    counted = Counted(score)

    def unflatten(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.reshape(y.shape)).to(y)

    def slope(time: float, values: np.ndarray) -> np.ndarray:
        x, t = unflatten(values), torch.tensor(time, dtype=torch.float32, device=y.device)
        return (sde.drift(x, y) - 0.5 * sde.diffusion(t) ** 2 * counted(x, t)).cpu().numpy().ravel()

    start = sde.prior(y, noise(y)).cpu().numpy().ravel().astype(np.complex128)
    solution = solve_ivp(slope, (sde.end_time, t_eps), start, rtol=tolerance, atol=tolerance, method="RK45")
    end = torch.tensor(t_eps, device=y.device)
    return Sample(_denoise(counted, sde, unflatten(solution.y[:, -1]), y, end), counted.calls)


def _denoise(score: Counted, sde: OUVE, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """The mean of one reverse-diffusion step from t to 0."""
    return x - (sde.drift(x, y) - sde.diffusion(t) ** 2 * score(x, t)) * t
