"""Guidance of a run over files: the weaker model, the references of other files, the picture of the adaptive scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure
from sgmse.diffusion.adaptive import Familiarity
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.diffusion.noise import seed_of
from sgmse.enhancement.old.lookup import Protocol
from sgmse.enhancement.old.test_set import Job
from sgmse.model.enhancer import Enhancer

PICTURE = "adaptive_guidance.png"


@dataclass(frozen=True)
class RunGuidance:
    """What guides every file of a run; familiarity: of the training references, for the adaptive scale."""

    settings: GuidanceSettings
    jobs: Sequence[Job]
    seed: int
    weak: Enhancer | None = None
    familiarity: Familiarity | None = None

    @property
    def needs_reference(self) -> bool:
        """Without a reference it has no effect: c and u are both the null prediction."""
        return self.settings.guidance != "auto" and (self.settings.scale != 1 or self.settings.is_adaptive)

    @property
    def needs_other(self) -> bool:
        """Each file needs the reference of another one."""
        return self.settings.guidance == "icg" and self.settings.scale != 1

    def other(self, job: Job) -> Job:
        """The file whose reference is the unrelated one for `job`: any with another, by seed and name."""
        others = [j for j in self.jobs if _source(j) != _source(job)]
        return others[seed_of(f"{self.seed} {job.output.name} unrelated") % len(others)]

    def told(self) -> dict[str, Any]:
        """Every setting, for run.json."""
        values = vars(self.settings) | {"weak_sha256": None if self.weak is None else self.weak.checkpoint_sha256}
        return values if self.settings.is_adaptive else values | {"guidance_scale": self.settings.scale}

    def said(self) -> str:
        """The guidance in words."""
        s = self.settings
        parts = [f"guidance scale {s.scale:g}" if not s.is_adaptive else f"guidance scale 0 to {s.scale:g}, adaptive"]
        parts += {"cfg": [], "icg": ["against the reference of another file"], "auto": [f"against {s.weak_ckpt}"]}[
            s.guidance
        ]
        parts += ["from t = {:g} to {:g}".format(*s.guidance_interval)] if s.guidance_interval else []
        parts += [f"rescaled by {s.guidance_rescale:g}"] if s.guidance_rescale else []
        return ", ".join(parts + (["projected (APG)"] if s.guidance_apg else []))

    def noted(self, distance: float) -> dict[str, float | None]:
        """For run.json: the distance of a file's reference (None: it said nothing) and its w."""
        w = self.settings.scale_at(torch.tensor(distance)).item()
        return {"distance": round(distance, 4) if math.isfinite(distance) else None, "guidance_scale": round(w, 4)}

    def draw(self, noted: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
        """The curve of w over the distance, the training references below it and the files of the run on it."""
        if self.familiarity is not None:
            _draw(self.settings, self.familiarity, noted, path)


def prepare(
    settings: GuidanceSettings,
    model: Enhancer,
    ckpt: Path,
    jobs: Sequence[Job],
    protocol: Protocol,
    t_eps: float,
    seed: int,
    encoder_checkpoint: str | None = None,
) -> RunGuidance:
    """Load and check what guidance needs. Raises `UserError` where the model or the references do not allow it."""
    check_guidance_fits(str(ckpt), settings, model, t_eps)
    run = RunGuidance(settings, jobs, seed)
    if run.needs_other and protocol != "none":
        _check_others(jobs, protocol)
    if settings.is_adaptive:
        return RunGuidance(settings, jobs, seed, familiarity=_familiarity(ckpt, model))
    if settings.weak_ckpt is None:
        return run
    weak = Enhancer.from_checkpoint(settings.weak_ckpt, model.device.type, encoder_checkpoint)
    check_weak(settings.weak_ckpt, weak, model)
    return RunGuidance(settings, jobs, seed, weak)


def _familiarity(ckpt: Path, model: Enhancer) -> Familiarity:
    if model.familiarity is None:
        raise UserError(
            f"{ckpt}: holds no statistics of its training references, which --guidance_scale {ADAPTIVE} needs; use a "
            "checkpoint saved after a validation by this version of train.py, or give a number"
        )
    return model.familiarity


def _check_others(jobs: Sequence[Job], protocol: Protocol) -> None:
    """Raise `UserError` unless every file has another one with another reference."""
    if protocol == "self":
        raise UserError(
            "--guidance icg needs references of other files before they are enhanced, and --reference self has none; "
            "use --reference estimated"
        )
    if len({_source(job) for job in jobs}) < 2:
        raise UserError(
            f"--guidance icg needs the reference of another file, but there is only one ({_source(jobs[0])}); give "
            "more files with references of their own, or use --guidance cfg"
        )


def _source(job: Job) -> Path:
    """The file that the reference of a job is, or is made from."""
    return job.reference or job.noisy


def _draw(
    settings: GuidanceSettings,
    familiarity: Familiarity,
    noted: Mapping[str, Mapping[str, float | None]],
    path: Path,
) -> None:
    files = [(e["distance"], e["guidance_scale"]) for e in noted.values() if e["distance"] is not None]
    training = familiarity.training()
    furthest = max(1.2 * settings.adaptive_far, *(1.05 * float(distance or 0) for distance, _ in files), 0.0)
    grid = torch.linspace(0, furthest, 400)
    curve = settings.scale_at(grid)
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot(grid.tolist(), curve.tolist(), color="C0", lw=2)
    upper.plot([x for x, _ in files], [w for _, w in files], "o", color="C1", ms=5, label=f"{len(files)} files")
    upper.set(ylabel="guidance scale w", ylim=(-0.05 * settings.adaptive_full, 1.1 * settings.adaptive_full + 0.01))
    upper.legend(frameon=False)
    lower.hist(training.clamp_max(furthest).tolist(), bins=60, range=(0, furthest), color="0.6")
    lower.set(
        xlabel="distance from the training references (1: their 95 % quantile)",
        ylabel=f"{len(training)} training\nreferences",
        xlim=(0, furthest),
    )
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    save_figure(figure, path)


def check_guidance_fits(ckpt: str, guidance: GuidanceSettings, model: Enhancer, t_eps: float) -> None:
    """Raise `UserError` for guidance that the model of the checkpoint `ckpt` cannot follow."""
    interval, end = guidance.guidance_interval, model.sde.end_time
    if interval and not (len(interval) == 2 and t_eps <= interval[0] < interval[1] <= end):
        raise UserError(
            f"--guidance_interval {' '.join(f'{t:g}' for t in interval)}: needs two diffusion times between t_eps = "
            f"{t_eps:g} and {end:g}, the lower one first"
        )
    if guidance.guidance == "auto" or (guidance.scale == 1 and not guidance.is_adaptive):
        return
    if model.encoder is None:
        raise UserError(
            f"{ckpt}: has no noise encoder; leave the reference and --guidance_scale out, or use --guidance auto"
        )
    if model.cond_drop_prob == 0 and guidance.guidance == "cfg":
        raise UserError(
            f"{ckpt}: was trained without dropping references, so its null condition is untrained; leave "
            "--guidance_scale out, use --guidance icg or auto, or train with --cond_drop_prob 0.1"
        )


def check_weak(path: str, weak: Enhancer, model: Enhancer) -> None:
    """Raise `UserError` unless the weaker model of autoguidance hears and predicts the same kind of thing."""
    for name in _OF_SPECTROGRAMS:
        if weak.settings[name] != model.settings[name]:
            raise UserError(
                f"--weak_ckpt {path}: has {name} {weak.settings[name]}, the guided model {model.settings[name]}; both "
                "need the same transform, so use another checkpoint"
            )
    if weak.sde != model.sde:
        raise UserError(
            f"--weak_ckpt {path}: was trained with {weak.sde}, the guided model with {model.sde}; use another one"
        )
    if model.backbone.frame_multiple % weak.backbone.frame_multiple:
        raise UserError(
            f"--weak_ckpt {path}: needs a multiple of {weak.backbone.frame_multiple} frames, the guided model one of "
            f"{model.backbone.frame_multiple}; use a checkpoint with as many levels (ch_mult)"
        )


_OF_SPECTROGRAMS = ("sample_rate", "n_fft", "hop_length", "spec_factor", "spec_abs_exponent")
