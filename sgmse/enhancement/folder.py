"""Files in → enhanced files out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
import yaml

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError
from sgmse.common.machine import device as find_device
from sgmse.data import audio
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, sampler_name
from sgmse.diffusion.sde import SBVE
from sgmse.enhancement import guided as guidance_run
from sgmse.enhancement.acceleration import autocast, compile_network
from sgmse.enhancement.guided import RunGuidance
from sgmse.enhancement.ledger import Ledger
from sgmse.enhancement.old.test_set import Job, Plan, check_asked, check_inputs, make_plan, parse_shard
from sgmse.enhancement.recordings import Work
from sgmse.enhancement.runner import Runner
from sgmse.model.checkpoints import newest_checkpoint
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_guidance, check_sampler
from sgmse.settings.config import DataConfig, EnhanceConfig

_RECORDED = ("batch_size", "chunk_s", "overlap_s", "channels", "keep_highband", "num_samples", "precision", "compile")


def enhance_folder(
    config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], piped: bool = False
) -> None:
    """Enhance every file of `config.test_dir`. `sampler`: settings that replace the checkpoint's.

    `piped`: the folders serve a pipe, so that they are not worth a word.
    """
    check_bounds(config)
    check_asked(config)
    check_guidance(guidance)
    shard = parse_shard(config.shard)
    if piped and shard is not None:
        raise UserError("--shard shares out the files of a folder, and a pipe is one file; leave it out")
    device = torch.device(find_device(config.device))
    path = Path(config.ckpt) if config.ckpt else newest_checkpoint(Path("logs"))
    model = Enhancer.from_checkpoint(path, device.type, config.encoder_checkpoint)
    if config.compile:
        compile_network(model)
    settings = _sampler_settings(config, sampler, model)
    out_dir = Path(config.enhanced_dir or Path("enhanced") / _run_name(path))
    plan = make_plan(config, out_dir, conditioned=model.encoder is not None)
    t_eps = model.t_eps if config.t_eps is None else config.t_eps
    _check_reference(config, path, plan, model)
    guided = guidance_run.prepare(
        guidance, model, path, plan.jobs, plan.protocol, t_eps, config.seed, config.encoder_checkpoint
    )
    told = {
        "checkpoint": str(path),
        "checkpoint_sha256": model.checkpoint_sha256,
        "averaged_weights": model.averaged,
        "encoder": model.settings["encoder"],
        "encoder_weights": None if model.encoder is None else model.encoder.identity,
        "reference": plan.protocol,
        "reference_dir": None if plan.reference_dir is None else str(plan.reference_dir.resolve()),
        **guided.told(),
        "sampler": sampler_name(settings, model.sde),
        **{name: value for name, value in dataclasses.asdict(settings).items() if name != "sampler"},
        "t_eps": t_eps,
        "seed": config.seed,
        **{name: getattr(config, name) for name in _RECORDED},
        "sample_rate": model.settings["sample_rate"],
        "device": device.type,
    }
    work = Work(model, settings, t_eps, guided, config, plan.protocol, _chunks(config, path, model))
    _check_samples(config, told["sampler"], settings)
    ledger = Ledger(out_dir, told, shard)
    _say(config, path, plan, model, settings, guided)
    if not piped:
        _say_folders(config, plan.noisy_dir, out_dir)
    _say_bandwidth(config, plan.jobs, work.rate)
    jobs = plan.jobs if shard is None else shard.of(plan.jobs)
    left = [job for job in jobs if not ledger.is_done(job)]
    check_inputs(left, plan.protocol, model.settings["n_fft"], model.settings["sample_rate"])
    ledger.start(left)
    if shard is not None:
        print(f"shard {config.shard}: {len(jobs)} of {len(plan.jobs)} files")
    if ledger.changed:
        print(f"all files are done again: {', '.join(ledger.changed)} changed since the last run")
    elif len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} files are done already with these settings")
    with autocast(device, config.precision):
        Runner(work, ledger).run(left)
    ledger.gather()


def _chunks(config: EnhanceConfig, ckpt: Path, model: Enhancer) -> Chunks:
    """The parts of long files. Raises `UserError` where they are shorter than what the model was trained on."""
    settings = model.settings
    rate, hop = settings["sample_rate"], settings["hop_length"]
    crop_s = (_crop_frames(ckpt) - 1) * hop / rate
    if 0 < config.chunk_s < crop_s:
        raise UserError(
            f"--chunk_s {config.chunk_s:g} is shorter than the {crop_s:.2f} s that the model was trained on; "
            f"use {math.ceil(10 * crop_s) / 10:g} or more"
        )
    return Chunks.from_seconds(config.chunk_s, config.overlap_s, rate, hop, model.backbone.frame_multiple)


def _crop_frames(ckpt: Path) -> int:
    """Frames of a training item, from the run's config.yaml; for a checkpoint without one, those of SGMSE+."""
    path = ckpt.parent.parent / "config.yaml"
    try:
        return int(yaml.safe_load(path.read_text(encoding="utf-8"))["num_frames"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return DataConfig().num_frames


def _check_samples(config: EnhanceConfig, name: str, settings: SamplerSettings) -> None:
    """Raise `UserError` where several waveforms at a time, or several samples of one, make no sense."""
    if config.num_samples > 1 and (name.startswith("bridge_ode") or (name == "bridge_sde" and settings.N == 1)):
        raise UserError(
            f"--num_samples {config.num_samples}: the sampler {name} with N = {settings.N} draws no noise, so all "
            "samples are the same; use --sampler bridge_sde with --N 2 or more"
        )
    if config.batch_size > 1 and name == "pc" and settings.corrector == "langevin":
        raise UserError("--corrector langevin takes one step size for a batch; use --batch_size 1")


def _say_bandwidth(config: EnhanceConfig, jobs: list[Job], rate: int) -> None:
    above = [job for job in jobs if audio.info(job.noisy).sample_rate > rate]
    if above:
        fate = "is passed on unchanged" if config.keep_highband else "is removed (keep it with --keep_highband)"
        print(f"{len(above)} files are above {rate} Hz: their sound above {rate / 2000:g} kHz {fate}")


def _sampler_settings(config: EnhanceConfig, typed: dict[str, Any], model: Enhancer) -> SamplerSettings:
    """The checkpoint's sampler with what was typed. A setting that the sampler does not have is refused."""
    settings = dataclasses.replace(model.sampler, **typed)
    name = sampler_name(settings, model.sde)
    meaningless = typed.keys() - SAMPLERS[name].settings - {"sampler"}
    if config.t_eps is not None and isinstance(model.sde, SBVE):
        meaningless |= {"t_eps"}
    for setting in sorted(meaningless):
        raise UserError(f"--{setting} has no meaning for the sampler {name}; leave it out or choose another --sampler")
    check_sampler(settings, model.objective.name)
    return settings


def _run_name(ckpt: Path) -> str:
    return ckpt.parent.parent.name if ckpt.parent.name == "checkpoints" else ckpt.stem


def _check_reference(config: EnhanceConfig, ckpt: Path, plan: Plan, model: Enhancer) -> None:
    """Raise `UserError` where the model cannot use the references that are asked for."""
    if model.encoder is None:
        asked = (
            config.noise_ref or config.noise_ref_dir or config.oracle_noise or config.reference not in (None, "none")
        )
        if asked:
            raise UserError(f"{ckpt}: has no noise encoder; leave the reference out")
    elif model.cond_drop_prob == 0 and plan.protocol in ("none", "self"):
        raise UserError(
            f"{ckpt}: was trained without dropping references, so its null condition is untrained; give a reference "
            "(--noise_ref, --noise_ref_dir, --reference estimated)"
        )


def _say_folders(config: EnhanceConfig, noisy: Path, out: Path) -> None:
    print(f"noisy: {noisy}" + ("" if config.test_dir else " (the embedded test set; choose with --test_dir)"))
    print(f"enhanced: {out}" + ("" if config.enhanced_dir else " (choose with --enhanced_dir)"))


def _say(
    config: EnhanceConfig, ckpt: Path, plan: Plan, model: Enhancer, settings: SamplerSettings, guided: RunGuidance
) -> None:
    default = "" if config.reference else " (the default; choose with --reference)"
    references = {
        "none": "none, the null condition" if model.encoder is not None else "none, the model takes none",
        "file": str(config.noise_ref),
        "folder": str(plan.reference_dir),
        "disjoint": f"disjoint, {plan.reference_dir}" + ("" if config.reference else " (found beside noisy/)"),
        "own_noise": "the file's own noise, all of it (an upper bound that leaks)",
        "estimated": f"estimated from each noisy file alone{default}",
        "self": "self, what a first pass without reference takes away",
    }
    kind = "published checkpoint" if model.published else "checkpoint"
    print(f"{kind}: {ckpt}" + ("" if config.ckpt else " (the newest; choose with --ckpt)"))
    if not model.averaged:
        print("warning: the checkpoint holds no averaged weights; the raw ones are used")
    print(f"references: {references.get(plan.protocol, f'{plan.protocol}, {plan.reference_dir}')}")
    name = sampler_name(settings, model.sde)
    print(f"sampler: {name}, N = {settings.N}; {guided.said()}")
    if plan.protocol == "none" and guided.needs_reference:
        w = ADAPTIVE if guided.settings.is_adaptive else f"{guided.settings.scale:g}"
        print(f"warning: there is no reference, so --guidance_scale {w} has no effect")
