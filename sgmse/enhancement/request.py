"""What an enhancement is asked to do: checked against the model and the files before anything is done."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sgmse.common.errors import UserError
from sgmse.data import corpora, listing
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, sampler_name
from sgmse.diffusion.sde import SBVE
from sgmse.enhancement.engine import Engine
from sgmse.enhancement.lookup import open_files, open_test_set
from sgmse.enhancement.protocols import Protocol
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import compile_network
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.model.checkpoints import newest_checkpoint
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.model.pretrained import DEFAULT_MODEL, find_model, run_folder
from sgmse.settings.checks import check_enhancement, check_sampler
from sgmse.settings.config import DataConfig, EnhanceConfig

_OF_SPECTROGRAMS = ("sample_rate", "n_fft", "hop_length", "spec_factor", "spec_abs_exponent")
_RECORDED = ("batch_size", "chunk_s", "overlap_s", "channels", "keep_highband", "num_samples", "precision", "compile")


@dataclass(frozen=True)
class Request:
    """A run over files, checked.

    Args:
        items: the share of the files that this process enhances.
        shard: its name, "K-of-N"; None: all files.
        suffix: of all results; empty: each has that of its file.
    """

    config: EnhanceConfig
    ckpt: Path
    engine: Engine
    test_set: TestSet
    setting: Setting
    items: list[Item]
    shard: str | None
    out_dir: Path
    suffix: str = ""

    def output(self, name: str) -> Path:
        """Where the result of the file `name` goes."""
        path = self.out_dir / name
        return path.with_suffix(self.suffix) if self.suffix else path

    @property
    def facts(self) -> dict[str, Any]:
        """The settings of the run, for run.json: results count under these only."""
        engine, setting, model, guidance = self.engine, self.setting, self.engine.model, self.setting.guidance
        reference_dir, weak = self.test_set.reference_dir, engine.weak
        return {
            "checkpoint": str(self.ckpt),
            "checkpoint_sha256": model.checkpoint_sha256,
            "averaged_weights": model.averaged,
            "encoder": model.settings["encoder"],
            "encoder_weights": None if model.encoder is None else model.encoder.identity,
            "reference": setting.protocol,
            "reference_dir": None if reference_dir is None else str(reference_dir.resolve()),
            **vars(guidance),
            "weak_sha256": None if weak is None else weak.checkpoint_sha256,
            "guidance_scale": ADAPTIVE if guidance.is_adaptive else guidance.scale,
            "sampler": sampler_name(setting.sampler, model.sde),
            **{name: value for name, value in vars(setting.sampler).items() if name != "sampler"},
            "t_eps": model.t_eps if setting.t_eps is None else setting.t_eps,
            "seed": setting.seed,
            **{name: getattr(self.config, name) for name in _RECORDED},
            "sample_rate": engine.rate,
            "device": model.device.type,
        }


def make_request(config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any]) -> Request:
    """Find the model, the files and the settings that are asked for. `sampler`: settings that replace the model's.

    Raises:
        UserError: settings are out of bounds or do not fit each other, the model or the files.
    """
    check_enhancement(config, guidance)
    share = parse_shard(config.shard)
    ckpt = find_model(config.ckpt) if config.ckpt else newest_checkpoint(Path("logs")) or find_model(DEFAULT_MODEL)
    model = Enhancer.from_checkpoint(ckpt, config.device, config.encoder_checkpoint)
    if config.compile:
        compile_network(model)
    settings = choose_sampler(config, sampler, model)
    run_name = ckpt.parent.parent.name if ckpt.parent.name == "checkpoints" else ckpt.stem
    out_dir = Path(config.enhanced_dir or Path("enhanced") / run_name)
    test_set = find_files(config, ckpt, model, out_dir)
    setting = Setting(settings, guidance, test_set.protocol, config.seed, config.t_eps)
    check_guidance_fits(ckpt, setting, model, test_set)
    weak = load_weak(guidance, model, config.encoder_checkpoint)
    chunks = choose_chunks(config, ckpt, model)
    is_mix = config.channels == "mix"
    engine = Engine(model, config.batch_size, config.precision, config.num_samples, is_mix, weak, chunks)
    items, shard = test_set.items, None
    if share is not None:  # every N-th file, so that shares are of similar size and no file is in two
        items, shard = items[share[0] - 1 :: share[1]], f"{share[0]}-of-{share[1]}"
    return Request(config, ckpt, engine, test_set, setting, items, shard, out_dir)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """K and N of `--shard K/N`: the K-th, from 1, of N shares of the files. Raises `UserError` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: is no share of the files; write K/N with K from 1 to N, e.g. 1/4")
    return int(found[1]), int(found[2])


def find_files(config: EnhanceConfig, ckpt: Path, model: Enhancer, out_dir: Path) -> TestSet:
    """The files and references that are asked for; references are `none` for a model without encoder.

    Raises:
        UserError: files are missing, results would fall among them, or the model cannot use such references.
    """
    folder = Path(config.test_dir) if config.test_dir else corpora.embedded_dir() / "test"
    asked: Protocol | None = config.reference
    source = config.noise_ref or config.noise_ref_dir or config.clean_dir
    if source is not None:
        asked = "file" if config.noise_ref else "folder" if config.noise_ref_dir else "own_noise"
    used: tuple[Protocol | None, Path | None] = (asked, None if source is None else Path(source))
    used = ("none", None) if model.encoder is None else used
    named = [Path(name) for name in config.noisy]
    test_set = open_files(named, *used) if named else open_test_set(folder, *used)
    if test_set.folder is not None and folder.resolve() == out_dir.resolve():
        raise UserError(f"{out_dir}: is --test_dir, whose files are the input; choose another --enhanced_dir")
    _check_outputs(test_set, out_dir)
    if model.encoder is None and asked not in (None, "none"):
        raise UserError(f"{ckpt}: has no noise encoder; leave the reference out")
    if model.encoder is not None and model.cond_drop_prob == 0 and test_set.protocol in ("none", "self"):
        raise UserError(
            f"{ckpt}: was trained without dropping references, so its null condition is untrained; give a reference "
            "(--noise_ref, --noise_ref_dir, --reference estimated)"
        )
    return test_set


def _check_outputs(test_set: TestSet, out_dir: Path) -> None:
    """Raise `UserError` where a result would fall among the inputs, now or at the next run."""
    references = [path for paths in test_set.paths.values() for path in paths.values() if path is not None]
    inputs = {path.resolve() for path in (*references, *(item.noisy for item in test_set.items))}
    folders = [folder.resolve() for folder in (test_set.folder, test_set.reference_dir) if folder is not None]
    for item in test_set.items:
        output = (out_dir / item.name).resolve()
        if output in inputs or any(output.is_relative_to(folder) for folder in folders):
            raise UserError(f"{out_dir / item.name}: would fall among the input files; choose another --enhanced_dir")


def choose_sampler(config: EnhanceConfig, typed: dict[str, Any], model: Enhancer) -> SamplerSettings:
    """The checkpoint's sampler with what was typed. Raises `UserError` for settings that mean nothing to it."""
    settings = dataclasses.replace(model.sampler, **typed)
    name = sampler_name(settings, model.sde)
    meaningless = typed.keys() - SAMPLERS[name].settings - {"sampler"}
    if config.t_eps is not None and isinstance(model.sde, SBVE):
        meaningless |= {"t_eps"}
    for setting in sorted(meaningless):
        raise UserError(f"--{setting} has no meaning for the sampler {name}; leave it out or choose another --sampler")
    check_sampler(settings, model.objective.name)
    if config.num_samples > 1 and (name.startswith("bridge_ode") or (name == "bridge_sde" and settings.N == 1)):
        raise UserError(
            f"--num_samples {config.num_samples}: the sampler {name} with N = {settings.N} draws no noise, so all "
            "samples are the same; use --sampler bridge_sde with --N 2 or more"
        )
    return settings


def choose_chunks(config: EnhanceConfig, ckpt: Path, model: Enhancer) -> Chunks:
    """The parts of long files. Raises `UserError` where they are shorter than what the model was trained on."""
    rate, hop = model.settings["sample_rate"], model.settings["hop_length"]
    try:
        trained = yaml.safe_load((run_folder(ckpt) / "config.yaml").read_text(encoding="utf-8"))
        num_frames = int(trained["num_frames"])
    except (FileNotFoundError, ValueError, TypeError, KeyError, yaml.YAMLError):
        num_frames = DataConfig().num_frames  # no file of ours: that of SGMSE+
    crop_s = (num_frames - 1) * hop / rate
    if 0 < config.chunk_s < crop_s:
        raise UserError(
            f"--chunk_s {config.chunk_s:g} is shorter than the {crop_s:.2f} s that the model was trained on; "
            f"use {math.ceil(10 * crop_s) / 10:g} or more"
        )
    return Chunks.from_seconds(config.chunk_s, config.overlap_s, rate, hop, model.backbone.frame_multiple)


def _needs_reference(guidance: GuidanceSettings) -> bool:
    """Whether guidance has no effect without a reference: c and u are both the null prediction."""
    return guidance.guidance != "auto" and (guidance.scale != 1 or guidance.is_adaptive)


def check_guidance_fits(ckpt: Path, setting: Setting, model: Enhancer, test_set: TestSet) -> None:
    """Raise `UserError` for guidance that the model of the checkpoint `ckpt` or the references do not allow."""
    guidance, protocol = setting.guidance, setting.protocol
    interval, end, t_eps = guidance.guidance_interval, model.sde.end_time, setting.t_eps or model.t_eps
    if interval and not (len(interval) == 2 and t_eps <= interval[0] < interval[1] <= end):
        raise UserError(
            f"--guidance_interval {' '.join(f'{t:g}' for t in interval)}: needs two diffusion times between t_eps = "
            f"{t_eps:g} and {end:g}, the lower one first"
        )
    if not _needs_reference(guidance):
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
    if guidance.guidance == "icg" and protocol == "self":
        raise UserError(
            "--guidance icg needs references of other files before they are enhanced, and --reference self has none; "
            "use --reference estimated"
        )
    sources = {test_set.path(item, protocol) or item.noisy for item in test_set.items}
    if guidance.guidance == "icg" and protocol != "none" and len(sources) < 2:
        raise UserError(
            f"--guidance icg needs the reference of another file, but there is only one ({sources.pop()}); give more "
            "files with references of their own, or use --guidance cfg"
        )
    if guidance.is_adaptive and model.familiarity is None:
        raise UserError(
            f"{ckpt}: holds no statistics of its training references, which --guidance_scale {ADAPTIVE} needs; use a "
            "checkpoint saved after a validation by this version of train.py, or give a number"
        )


def load_weak(guidance: GuidanceSettings, model: Enhancer, encoder_checkpoint: str | None) -> Enhancer | None:
    """The weaker model of autoguidance, if there is one.

    Raises:
        UserError: it takes or predicts another kind of spectrogram than `model`, or at other times.
    """
    path = guidance.weak_ckpt
    if path is None:
        return None
    weak = Enhancer.from_checkpoint(path, str(model.device), encoder_checkpoint)
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
    if weak.objective.one_step and not model.objective.one_step:
        raise UserError(f"--weak_ckpt {path}: knows the last diffusion time alone (predictive); use another checkpoint")
    if model.backbone.frame_multiple % weak.backbone.frame_multiple:
        raise UserError(
            f"--weak_ckpt {path}: needs a multiple of {weak.backbone.frame_multiple} frames, the guided model one of "
            f"{model.backbone.frame_multiple}; use a checkpoint with as many levels (ch_mult)"
        )
    return weak


def describe_request(request: Request) -> list[str]:
    """What is going to be done, a line each."""
    config, model, test_set, guidance = request.config, request.engine.model, request.test_set, request.setting.guidance
    protocol, sampler, rate = test_set.protocol, request.setting.sampler, request.engine.rate
    default = "" if config.reference else " (the default; choose with --reference)"
    words = {
        "none": "none, the null condition" if model.encoder is not None else "none, the model takes none",
        "file": str(config.noise_ref),
        "folder": str(test_set.reference_dir),
        "disjoint": f"disjoint, {test_set.reference_dir}" + ("" if config.reference else " (found beside noisy/)"),
        "own_noise": "the file's own noise, all of it (an upper bound that leaks)",
        "estimated": f"estimated from each noisy file alone{default}",
        "dtln": "dtln, what the enhancer DTLN takes away",
        "self": "self, what a first pass without reference takes away",
    }
    kind = "published checkpoint" if model.published else "checkpoint"
    default_model = "the newest" if request.ckpt.is_file() else "it comes along, since logs/ holds none"
    lines = [f"{kind}: {request.ckpt}" + ("" if config.ckpt else f" ({default_model}; choose with --ckpt)")]
    if not model.averaged:
        lines.append("warning: the checkpoint holds no averaged weights; the raw ones are used")
    lines.append(f"references: {words.get(protocol, f'{protocol}, {test_set.reference_dir}')}")
    lines.append(f"sampler: {sampler_name(sampler, model.sde)}, N = {sampler.N}; {_describe_guidance(guidance)}")
    if protocol == "none" and _needs_reference(guidance):
        w = ADAPTIVE if guidance.is_adaptive else f"{guidance.scale:g}"
        lines.append(f"warning: there is no reference, so --guidance_scale {w} has no effect")
    headers, _ = listing.scan_headers(item.noisy for item in test_set.items)  # `check_inputs` names those left out
    above = sum(header.sample_rate > rate for header in headers)
    if above:
        fate = "is passed on unchanged" if config.keep_highband else "is removed (keep it with --keep_highband)"
        lines.append(f"{above} files are above {rate} Hz: their sound above {rate / 2000:g} kHz {fate}")
    return lines


def _describe_guidance(guidance: GuidanceSettings) -> str:
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
