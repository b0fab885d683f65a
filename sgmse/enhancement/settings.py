"""`Setting`: how a set is enhanced; and the settings of a sweep: sampler × steps × guidance scale × interval."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, get_args

from sgmse.common.errors import UserError
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, Schedule, sampler_name
from sgmse.enhancement.protocols import Protocol
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_sampler

SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
Interval = tuple[float, float]


@dataclass(frozen=True)
class Setting:
    """What determines, with a checkpoint and a file, what comes out.

    Args:
        sampler: with its steps.
        guidance: how hard the reference is followed, and when.
        protocol: where references come from.
        seed: drives sampling, and making references.
        t_eps: smallest diffusion time; None: as trained.
    """

    sampler: SamplerSettings
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    protocol: Protocol = "disjoint"
    seed: int = 0
    t_eps: float | None = None

    @property
    def key(self) -> str:
        """A text that tells settings apart, for tables of results."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def needs_unrelated(self) -> bool:
        """Whether guidance leads away from the reference of another file."""
        return self.guidance.guidance == "icg" and self.guidance.scale != 1 and self.protocol != "none"

    @property
    def runs_alone(self) -> bool:
        """Whether the sampler chooses steps for a whole batch, so that what shares it would change the result."""
        sampler = self.sampler
        return sampler.sampler == "rk45" or (sampler.corrector == "langevin" and sampler.sampler in ("pc", "auto"))

    def to_dict(self) -> dict[str, Any]:
        """The columns of a table that tell the settings of a sweep apart, in the words of its command line."""
        schedule = "" if self.sampler.schedule == "uniform" else f":{self.sampler.schedule}"
        interval = ":".join(f"{time:g}" for time in self.guidance.guidance_interval)
        return {
            "sampler": f"{self.sampler.sampler}{schedule}",
            "N": self.sampler.N,
            "guidance_scale": self.guidance.guidance_scale,
            "interval": interval or "none",
        }


def parse_interval(text: str) -> Interval | None:
    """`none`, or `LO:HI` in diffusion time, 0 ≤ LO < HI ≤ 1."""
    if text == "none":
        return None
    low, _, high = text.partition(":")
    try:
        interval = float(low), float(high)
    except ValueError:
        interval = math.nan, math.nan
    if not 0 <= interval[0] < interval[1] <= 1:
        raise UserError(f"--intervals {text}: write none, or two diffusion times such as 0.2:0.8, the lower one first")
    return interval


def parse_sampler(text: str, model: Enhancer) -> SamplerSettings:
    """`NAME` or `NAME:SCHEDULE`, laid over the sampler of the checkpoint. Raises `UserError` where it does not fit."""
    schedules = get_args(Schedule)
    name, _, schedule = text.rpartition(":")
    if name not in SAMPLERS and schedule not in schedules:  # no schedule: the colon is that of a plug-in, or none
        name, schedule = text, ""
    known = ("auto", *SAMPLERS)
    if name not in known and SAMPLERS.find(name) is None:
        raise UserError(f"--samplers {text}: no such sampler; use {', '.join(known[:-1])} or {known[-1]}")
    name = sampler_name(replace(model.sampler, sampler=name), model.sde)
    if schedule and ("schedule" not in SAMPLERS[name].settings or schedule not in schedules):
        raise UserError(
            f"--samplers {text}: a schedule is {' or '.join(schedules)}, for dpm1, dpm2 and the bridge; write dpm2:"
            "quadratic or leave it out"
        )
    chosen = schedule or (model.sampler.schedule if "schedule" in SAMPLERS[name].settings else "uniform")
    return replace(model.sampler, sampler=name, schedule=chosen)  # type: ignore[arg-type]


def sweep_settings(
    model: Enhancer,
    samplers: Sequence[str],
    steps: Sequence[int],
    scales: Sequence[float] | None,
    intervals: Sequence[str],
    protocol: Protocol = "disjoint",
    seed: int = 0,
) -> list[Setting]:
    """Every combination, each once; an interval counts where w > 1. `scales` None: those the model allows."""
    scales, parsed = _check_scales(model, scales), [parse_interval(text) for text in intervals]
    found: dict[str, Setting] = {}
    for text, count, scale, interval in product(samplers, steps, scales, parsed):
        sampler = parse_sampler(text, model)
        if "N" in SAMPLERS[sampler.sampler].settings:
            sampler = replace(sampler, N=count)
        check_sampler(sampler, model.objective.name)
        guidance = GuidanceSettings(float(scale), guidance_interval=[] if scale <= 1 else [*(interval or ())])
        setting = Setting(sampler, guidance, protocol, seed)
        found.setdefault(setting.key, setting)
    return list(found.values())


def _check_scales(model: Enhancer, scales: Sequence[float] | None) -> Sequence[float]:
    guidable = model.encoder is not None and model.cond_drop_prob > 0
    if scales is None:
        return SCALES if guidable else (1.0,)
    for scale in scales:
        if not math.isfinite(scale):
            raise UserError(f"--scales {scale}: is no finite number; give numbers such as 0 1 3")
        if scale != 1 and not guidable:
            reason = "has no noise encoder" if model.encoder is None else "was trained without dropping references"
            raise UserError(f"--scales {scale:g}: the checkpoint {reason}, so there is nothing to guide; leave it out")
    return scales
