"""Samplers: pure functions over a callable, found in `SAMPLERS` by name.

`Score` maps (x_t [B, C, F, T] complex, t, one number for all) to the score of the same shape; `Denoise` to the
predicted clean spectrogram. Times stay on the host, so that nobody waits for a device. Randomness enters as
`noise(like)`, which draws one complex standard normal of the shape of `like`. Every sampler returns the sample and the
number of evaluations it asked for, which it counts. Its parameters are named as the settings they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import scipy  # its parts load when they are used
import torch
from torch import Tensor

from sgmse.common.bounds import OneOf
from sgmse.common.errors import UserError
from sgmse.common.registry import Registry
from sgmse.diffusion.sde import OUVE, SBVE, SDE

BRIDGE_END = 1e-4  # where the bridge's last step ends
Score = Callable[[Tensor, float], Tensor]
Denoise = Callable[[Tensor, float], Tensor]
Noise = Callable[[Tensor], Tensor]
Schedule = Literal["uniform", "quadratic"]
Predictor = Literal["reverse_diffusion", "euler_maruyama"]
Corrector = Literal["ald", "langevin", "none"]


@dataclass(frozen=True)
class Sample:
    """What a sampler returns. spectrogram: complex [B, C, F, T]; nfe: evaluations of the callable."""

    spectrogram: Tensor
    nfe: int


def gaussian(generator: torch.Generator) -> Noise:
    """A noise source driven by `generator` (which lives on the device of the spectrograms)."""
    return lambda like: torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


class Counted:
    """A callable that counts its calls."""

    def __init__(self, function: Score) -> None:
        self.function, self.calls = function, 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        return self.function(x, t)


def step_times(start: float, end: float, count: int, schedule: Schedule = "uniform") -> list[float]:
    """`count` falling times from `start` to `end`, equally spaced or, quadratic, equally spaced in √t.

    Quadratic steps shorten towards `end` (Song et al. 2021, DDIM, App. D.2).
    """
    if schedule == "uniform":
        return np.linspace(start, end, count).tolist()
    return (np.linspace(start**0.5, end**0.5, count) ** 2).tolist()


@torch.no_grad()
def predictor_corrector(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    N: int = 30,
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
    times = step_times(sde.end_time, t_eps, N)
    x = x_mean = sde.prior(y, noise(y))
    for i, (t, now) in enumerate(zip(times, torch.tensor(times), strict=True)):
        for _ in range(corrector_steps if corrector != "none" else 0):
            x = _correct(counted(x, t), x, noise(x), sde.std(now), snr, corrector)
        step = t - times[i + 1] if i + 1 < N else t
        if predictor == "euler_maruyama":  # equal steps of 1/N, as published; reverse diffusion follows the grid
            step = sde.end_time / N
        # reverse SDE (Anderson 1982), one step back: x − [f − g² score] Δt + g √Δt z
        g2 = sde.diffusion(now) ** 2
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
    N: int = 30,
    t_eps: float = 0.03,
    method: Literal["euler", "heun"] = "heun",
) -> Sample:
    """Probability-flow ODE dx = [f − ½ g² score] dt, Song et al. 2021, Eq. (13), in fixed steps from 1 to `t_eps`.

    Euler needs one evaluation a step, Heun two; one more removes the noise left at `t_eps`.
    """
    counted = Counted(score)
    times = step_times(sde.end_time, t_eps, N)

    def slope(x: Tensor, t: float) -> Tensor:
        return sde.drift(x, y) - 0.5 * sde.diffusion(torch.tensor(t)) ** 2 * counted(x, t)

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
        x, half_g2 = unflatten(values), 0.5 * sde.diffusion(torch.tensor(time)) ** 2
        return (sde.drift(x, y) - half_g2 * counted(x, float(time))).cpu().numpy().ravel()

    start = sde.prior(y, noise(y)).cpu().numpy().ravel().astype(np.complex128)
    solution = scipy.integrate.solve_ivp(
        slope, (sde.end_time, t_eps), start, rtol=tolerance, atol=tolerance, method="RK45"
    )
    return Sample(_denoise(counted, sde, unflatten(solution.y[:, -1]), y, t_eps), counted.calls)


def _denoise(score: Counted, sde: OUVE, x: Tensor, y: Tensor, t: float) -> Tensor:
    """The mean of one reverse-diffusion step from t to 0."""
    return x - (sde.drift(x, y) - sde.diffusion(torch.tensor(t)) ** 2 * score(x, t)) * t


@torch.no_grad()
def dpm_solver(
    score: Score,
    sde: OUVE,
    y: Tensor,
    noise: Noise,
    N: int = 10,
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
    instants = torch.tensor(times := step_times(sde.end_time, t_eps, N, schedule))
    sigmas = sde.std(instants)
    kappas = torch.exp(-sde.theta * instants) / sigmas
    x = sde.prior(y, noise(y))
    clean = sde.clean_from_score(x, y, counted(x, times[0]), instants[0])
    slope = torch.zeros_like(y)
    for i, (kappa, kappa_next) in enumerate(pairwise(kappas)):
        step = torch.log(kappa_next / kappa)
        scaled = (x - y) / sigmas[i] + (kappa_next - kappa) * (clean - y)
        if order == 2:  # ∫ e^λ (λ − λ_i) dλ over the step, with λ = log κ
            scaled = scaled + (kappa_next * (step - 1) + kappa) * slope
        x = y + sigmas[i + 1] * scaled
        last, clean = clean, sde.clean_from_score(x, y, counted(x, times[i + 1]), instants[i + 1])
        slope = (clean - last) / step
    return Sample(clean, counted.calls)


@torch.no_grad()
def bridge(
    denoise: Denoise,
    sde: SBVE,
    y: Tensor,
    noise: Noise,
    N: int = 5,
    method: Literal["ode", "sde"] = "ode",
    order: Literal[1, 2] = 1,
    schedule: Schedule = "uniform",
    end_time: float = BRIDGE_END,
    published_bridge: bool = False,
) -> Sample:
    """Bridge samplers, Jukić et al. 2024, Eq. (13) (SDE) and (14) (ODE), which hold the estimate over each step.

    The network is asked at the start of each step, where x_t is. The published code asks it at the *end* of the step
    (the last time at t = `end_time`, below every time of training) and its guards shift the first ODE step by about
    4 % of y; `published_bridge` reproduces both for its checkpoints. `order` 2 (ODE only) extends the estimate
    linearly.
    """
    counted = Counted(denoise)
    instants = torch.tensor(times := step_times(sde.end_time, end_time, N + 1, schedule))
    x = last = y
    for i, (t_prev, t) in enumerate(pairwise(instants)):
        estimate = counted(x, times[i + published_bridge])
        if method == "ode":
            # in the first step x is y exactly: Eq. (14) is 0/0 there, and its limit is the mean of the bridge
            at_prior = i == 0 and not published_bridge
            x = sde.mean(estimate, y, t) if at_prior else _ode_step(sde, x, estimate, y, t_prev, t)
            if order == 2 and i > 0:
                x = x + _second_order(sde, instants[i - 1], t_prev, t) * (estimate - last)
            last = estimate
        else:
            kept = sde.sigma(t) ** 2 / (sde.sigma(t_prev) ** 2 + sde.guard)
            x = kept * x + (1 - kept) * estimate
            if i + 1 < N:
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


@dataclass(frozen=True)
class Sampler:
    """A sampler that can be chosen.

    Args:
        run: (score or denoiser, process, y [B, C, F, T], noise, …) → sample.
        process: the one whose reverse it follows.
        settings: the fields of `SamplerSettings` it reads, which `run` takes as keyword arguments.
    """

    run: Callable[..., Sample]
    process: type[OUVE] | type[SBVE]
    settings: frozenset[str]


# the first one of each process is its default
_OURS = {
    "pc": Sampler(predictor_corrector, OUVE, frozenset({"N", "predictor", "corrector", "corrector_steps", "snr"})),
    "euler": Sampler(partial(probability_flow, method="euler"), OUVE, frozenset({"N"})),
    "heun": Sampler(partial(probability_flow, method="heun"), OUVE, frozenset({"N"})),
    "rk45": Sampler(probability_flow_rk45, OUVE, frozenset()),
    "dpm1": Sampler(partial(dpm_solver, order=1), OUVE, frozenset({"N", "schedule"})),
    "dpm2": Sampler(partial(dpm_solver, order=2), OUVE, frozenset({"N", "schedule"})),
    "bridge_ode": Sampler(bridge, SBVE, frozenset({"N", "schedule", "published_bridge"})),
    "bridge_ode2": Sampler(partial(bridge, order=2), SBVE, frozenset({"N", "schedule"})),
    "bridge_sde": Sampler(partial(bridge, method="sde"), SBVE, frozenset({"N", "schedule", "published_bridge"})),
}
SAMPLERS = Registry("--sampler", Sampler, _OURS)


@dataclass(frozen=True)
class SamplerSettings:
    """How the model samples. Stored in the checkpoint; enhancement may override each value."""

    sampler: Annotated[str, OneOf(("auto", *SAMPLERS), SAMPLERS)] = "auto"
    """predictor–corrector, probability-flow ODE (Euler, Heun, adaptive RK45, exponential integrator of first and second
    order), or bridge (ODE of first and second order, SDE); auto: pc for the OUVE process, bridge_ode for the bridge"""
    N: int = 30
    """steps of the sampler (rk45 chooses its own)"""
    schedule: Schedule = "uniform"
    """times of the steps of dpm1, dpm2 and the bridge; quadratic: shorter steps towards the end"""
    predictor: Predictor = "reverse_diffusion"
    """predictor of the pc sampler"""
    corrector: Corrector = "ald"
    """corrector of the pc sampler: annealed Langevin dynamics, Langevin or none"""
    corrector_steps: int = 1
    """corrector steps per predictor step of the pc sampler"""
    snr: float = 0.5
    """step-size parameter r of the corrector"""
    published_bridge: bool = False
    """take bridge steps as the published code does: the network is asked at the end of each step"""


def sampler_name(settings: SamplerSettings, sde: SDE) -> str:
    """The sampler that is meant. Raises `UserError` for one that is unknown or does not fit the process."""
    fitting = [name for name, sampler in SAMPLERS.items() if sampler.process is type(sde)]
    if settings.sampler == "auto":
        return fitting[0]
    if (chosen := SAMPLERS.find(settings.sampler)) is None or chosen.process is not type(sde):
        raise UserError(
            f"--sampler {settings.sampler}: does not fit the model's diffusion process; use "
            f"{', '.join(fitting[:-1])} or {fitting[-1]}"
        )
    return settings.sampler


def sample(
    predict: Score | Denoise, sde: SDE, y: Tensor, noise: Noise, settings: SamplerSettings, t_eps: float
) -> Sample:
    """Run the sampler that `settings` name on y [B, C, F, T]; `predict` is a score (OUVE) or a denoiser (bridge)."""
    sampler = SAMPLERS[sampler_name(settings, sde)]
    chosen: dict[str, Any] = {name: getattr(settings, name) for name in sampler.settings}
    if sampler.process is OUVE:  # the bridge has an end of its own
        chosen["t_eps"] = t_eps
    return sampler.run(predict, sde, y, noise, **chosen)
