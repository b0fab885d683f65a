"""Which sampler, with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sgmse.sampling.base import Schedule
from sgmse.sampling.ouve import Corrector, Predictor
from sgmse.sde import SBVE, SDE

OUVE_SAMPLERS = ("pc", "euler", "heun", "rk45", "dpm1", "dpm2")
BRIDGE_SAMPLERS = ("bridge_ode", "bridge_ode2", "bridge_sde")


@dataclass(frozen=True)
class SamplerSettings:
    """How the model samples. Stored in the checkpoint; enhancement may override each value."""

    sampler: Literal[
        "auto", "pc", "euler", "heun", "rk45", "dpm1", "dpm2", "bridge_ode", "bridge_ode2", "bridge_sde"
    ] = "auto"
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


SETTINGS_OF = {
    "pc": {"N", "predictor", "corrector", "corrector_steps", "snr"},
    "euler": {"N"},
    "heun": {"N"},
    "rk45": set[str](),
    "dpm1": {"N", "schedule"},
    "dpm2": {"N", "schedule"},
    "bridge_ode": {"N", "schedule", "published_bridge"},
    "bridge_ode2": {"N", "schedule"},
    "bridge_sde": {"N", "schedule", "published_bridge"},
}


def sampler_name(settings: SamplerSettings, sde: SDE) -> str:
    """The sampler that is meant. Raises ValueError when it does not fit the process."""
    bridges = isinstance(sde, SBVE)
    if settings.sampler == "auto":
        return "bridge_ode" if bridges else "pc"
    fitting = BRIDGE_SAMPLERS if bridges else OUVE_SAMPLERS
    if settings.sampler not in fitting:
        shown = f"{', '.join(fitting[:-1])} or {fitting[-1]}"
        raise ValueError(f"the sampler {settings.sampler} does not fit the model's diffusion process; use {shown}")
    return settings.sampler
