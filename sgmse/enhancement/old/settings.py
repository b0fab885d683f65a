"""The cells of a sweep: sampler × steps × guidance scale × guidance interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from sgmse.common.errors import UserError
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, Schedule, sampler_name
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_sampler

SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
Interval = tuple[float, float]
Key = tuple[str, int, float, str]


@dataclass(frozen=True)
class Cell:
    """One setting. interval: diffusion times between which guidance acts; None: everywhere."""

    sampler: SamplerSettings
    guidance_scale: float
    interval: Interval | None = None

    @property
    def sampler_label(self) -> str:
        """The sampler as --samplers takes it."""
        schedule = self.sampler.schedule
        return self.sampler.sampler + ("" if schedule == "uniform" else f":{schedule}")

    @property
    def interval_label(self) -> str:
        """The interval as --intervals takes it."""
        return "none" if self.interval is None else f"{self.interval[0]:g}:{self.interval[1]:g}"

    @property
    def guidance(self) -> GuidanceSettings:
        return GuidanceSettings(guidance_scale=self.guidance_scale, guidance_interval=[*(self.interval or ())])

    @property
    def key(self) -> Key:
        """What tells it from the other cells of a sweep: sampler, N, guidance scale, interval."""
        return self.sampler_label, self.sampler.N, self.guidance_scale, self.interval_label


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
    name, _, schedule = text.partition(":")
    known = ("auto", *SAMPLERS)
    if name not in known:
        raise UserError(f"--samplers {text}: no such sampler; use {', '.join(known[:-1])} or {known[-1]}")
    name = sampler_name(replace(model.sampler, sampler=name), model.sde)
    schedules = get_args(Schedule)
    if schedule and ("schedule" not in SAMPLERS[name].settings or schedule not in schedules):
        raise UserError(
            f"--samplers {text}: a schedule is {' or '.join(schedules)}, for dpm1, dpm2 and the bridge; write dpm2:"
            "quadratic or leave it out"
        )
    chosen = schedule or (model.sampler.schedule if "schedule" in SAMPLERS[name].settings else "uniform")
    return replace(model.sampler, sampler=name, schedule=chosen)  # type: ignore[arg-type]


def cells(
    model: Enhancer,
    samplers: Sequence[str],
    steps: Sequence[int],
    scales: Sequence[float] | None,
    intervals: Sequence[str],
) -> list[Cell]:
    """Every combination, each once; w = 0 and w = 1 are not guided. `scales` None: those the model allows."""
    scales = _checked_scales(model, scales)
    found: dict[Key, Cell] = {}
    for cell in _combined([parse_sampler(s, model) for s in samplers], steps, scales, intervals):
        check_sampler(cell.sampler, model.objective.name)
        found.setdefault(cell.key, cell)
    return list(found.values())


def _combined(
    samplers: Sequence[SamplerSettings], steps: Sequence[int], scales: Sequence[float], intervals: Sequence[str]
) -> Iterator[Cell]:
    parsed = [parse_interval(text) for text in intervals]
    for sampler, count, scale, interval in product(samplers, steps, scales, parsed):
        adaptive = "N" not in SAMPLERS[sampler.sampler].settings
        settings = sampler if adaptive else replace(sampler, N=count)
        yield Cell(settings, scale, None if scale in (0, 1) else interval)


def _checked_scales(model: Enhancer, scales: Sequence[float] | None) -> Sequence[float]:
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
