"""Samplers: pure functions over a callable.

`Score` maps (x_t [B, C, F, T] complex, t [B]) to the score of the same shape; `Denoise` to the predicted clean
spectrogram. Randomness enters as `noise(like)`, which draws one complex standard normal of the shape of `like`.
Every sampler returns the sample and the number of evaluations it asked for, which it counts.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from sgmse.sampling.base import Denoise, Noise, Sample, Schedule, Score, gaussian
from sgmse.sampling.bridge import bridge
from sgmse.sampling.exponential import dpm_solver
from sgmse.sampling.ouve import predictor_corrector, probability_flow, probability_flow_rk45
from sgmse.sampling.settings import SETTINGS_OF, SamplerSettings, sampler_name
from sgmse.sde import SBVE, SDE

__all__ = [
    "SETTINGS_OF",
    "Denoise",
    "Noise",
    "Sample",
    "SamplerSettings",
    "Schedule",
    "Score",
    "bridge",
    "dpm_solver",
    "gaussian",
    "predictor_corrector",
    "probability_flow",
    "probability_flow_rk45",
    "sample",
    "sampler_name",
]


def sample(
    predict: Score | Denoise, sde: SDE, y: Tensor, noise: Noise, settings: SamplerSettings, t_eps: float
) -> Sample:
    """Run the sampler that `settings` name on y [B, C, F, T]; `predict` is a score (OUVE) or a denoiser (bridge)."""
    name, chosen = sampler_name(settings, sde), settings
    if isinstance(sde, SBVE):
        published = chosen.published_bridge and name != "bridge_ode2"
        method: Literal["ode", "sde"] = "sde" if name == "bridge_sde" else "ode"
        order: Literal[1, 2] = 2 if name == "bridge_ode2" else 1
        return bridge(predict, sde, y, noise, chosen.N, method, order, chosen.schedule, as_published=published)
    if name == "rk45":
        return probability_flow_rk45(predict, sde, y, noise, t_eps)
    if name in ("dpm1", "dpm2"):
        return dpm_solver(predict, sde, y, noise, chosen.N, t_eps, 1 if name == "dpm1" else 2, chosen.schedule)
    if name != "pc":
        return probability_flow(predict, sde, y, noise, chosen.N, t_eps, "euler" if name == "euler" else "heun")
    corrector = (chosen.corrector, chosen.snr, chosen.corrector_steps)
    return predictor_corrector(predict, sde, y, noise, chosen.N, t_eps, chosen.predictor, *corrector)
