"""Guidance of a run over files: whether model and references allow it, the weaker model, the picture of the scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure
from sgmse.diffusion.adaptive import Familiarity
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.test_set import TestSet
from sgmse.model.enhancer import Enhancer

PICTURE = "adaptive_guidance.png"
_OF_SPECTROGRAMS = ("sample_rate", "n_fft", "hop_length", "spec_factor", "spec_abs_exponent")


def needs_reference(guidance: GuidanceSettings) -> bool:
    """Whether guidance has no effect without a reference: c and u are both the null prediction."""
    return guidance.guidance != "auto" and (guidance.scale != 1 or guidance.is_adaptive)


def guidance_facts(guidance: GuidanceSettings, weak: Enhancer | None) -> dict[str, Any]:
    """Every setting, for run.json."""
    values = vars(guidance) | {"weak_sha256": None if weak is None else weak.checkpoint_sha256}
    return values if guidance.is_adaptive else values | {"guidance_scale": guidance.scale}


def describe_guidance(guidance: GuidanceSettings) -> str:
    """The guidance in words."""
    scale = f"{guidance.scale:g}" if not guidance.is_adaptive else f"0 to {guidance.scale:g}, adaptive"
    parts = [f"guidance scale {scale}"]
    if guidance.guidance == "icg":
        parts.append("against the reference of another file")
    elif guidance.guidance == "auto":
        parts.append(f"against {guidance.weak_ckpt}")
    if guidance.guidance_interval:
        parts.append("from t = {:g} to {:g}".format(*guidance.guidance_interval))
    if guidance.guidance_rescale:
        parts.append(f"rescaled by {guidance.guidance_rescale:g}")
    if guidance.guidance_apg:
        parts.append("projected (APG)")
    return ", ".join(parts)


def adaptive_facts(guidance: GuidanceSettings, distance: float) -> dict[str, float | None]:
    """For run.json: the distance of a file's reference (None: it said nothing) and its w."""
    w = guidance.scale_at(torch.tensor(distance)).item()
    return {"distance": round(distance, 4) if math.isfinite(distance) else None, "guidance_scale": round(w, 4)}


def load_weak(
    setting: Setting, model: Enhancer, ckpt: Path, test_set: TestSet, encoder_checkpoint: str | None
) -> Enhancer | None:
    """The weaker model of autoguidance, if there is one.

    Raises:
        UserError: the model, the references or the weaker model do not allow the guidance.
    """
    guidance = setting.guidance
    check_guidance_fits(str(ckpt), guidance, model, model.t_eps if setting.t_eps is None else setting.t_eps)
    if guidance.guidance == "icg" and guidance.scale != 1 and setting.protocol != "none":
        _check_others(test_set, setting.protocol)
    if guidance.is_adaptive and model.familiarity is None:
        raise UserError(
            f"{ckpt}: holds no statistics of its training references, which --guidance_scale {ADAPTIVE} needs; use a "
            "checkpoint saved after a validation by this version of train.py, or give a number"
        )
    if guidance.weak_ckpt is None:
        return None
    weak = Enhancer.from_checkpoint(guidance.weak_ckpt, str(model.device), encoder_checkpoint)
    _check_weak(guidance.weak_ckpt, weak, model)
    return weak


def check_guidance_fits(ckpt: str, guidance: GuidanceSettings, model: Enhancer, t_eps: float) -> None:
    """Raise `UserError` for guidance that the model of the checkpoint `ckpt` cannot follow."""
    interval, end = guidance.guidance_interval, model.sde.end_time
    if interval and not (len(interval) == 2 and t_eps <= interval[0] < interval[1] <= end):
        raise UserError(
            f"--guidance_interval {' '.join(f'{t:g}' for t in interval)}: needs two diffusion times between t_eps = "
            f"{t_eps:g} and {end:g}, the lower one first"
        )
    if not needs_reference(guidance):
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


def _check_others(test_set: TestSet, protocol: str) -> None:
    """Raise `UserError` unless every file has another one with another reference."""
    if protocol == "self":
        raise UserError(
            "--guidance icg needs references of other files before they are enhanced, and --reference self has none; "
            "use --reference estimated"
        )
    sources = [test_set.path(item, protocol) or item.noisy for item in test_set.items]
    if len(set(sources)) < 2:
        raise UserError(
            f"--guidance icg needs the reference of another file, but there is only one ({sources[0]}); give more "
            "files with references of their own, or use --guidance cfg"
        )


def _check_weak(path: str, weak: Enhancer, model: Enhancer) -> None:
    """Raise `UserError` unless the weaker model takes and predicts the same kind of spectrogram."""
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


def draw_adaptive(
    guidance: GuidanceSettings, familiarity: Familiarity, files: Sequence[tuple[float, float]], path: Path
) -> None:
    """The curve of w over the distance, the training references below it, and files (distance, w) on it."""
    training = familiarity.training()
    furthest = max(1.2 * guidance.adaptive_far, *(1.05 * distance for distance, _ in files), 0.0)
    grid = torch.linspace(0, furthest, 400)
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot(grid.tolist(), guidance.scale_at(grid).tolist(), color="C0", lw=2)
    upper.plot([x for x, _ in files], [w for _, w in files], "o", color="C1", ms=5, label=f"{len(files)} files")
    upper.set(ylabel="guidance scale w", ylim=(-0.05 * guidance.adaptive_full, 1.1 * guidance.adaptive_full + 0.01))
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
