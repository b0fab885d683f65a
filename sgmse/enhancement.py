"""Files in → enhanced files out."""

from __future__ import annotations

import dataclasses
import hashlib
import resource
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from sgmse import checkpoints, runs
from sgmse.bounds import check_bounds
from sgmse.checkpoints import Loaded
from sgmse.checks import check_sampler
from sgmse.config import EnhanceConfig
from sgmse.data import audio
from sgmse.data.estimated import estimated
from sgmse.errors import UserError
from sgmse.jobs import Job, Plan, check_asked, check_inputs, make_plan
from sgmse.ledger import Ledger
from sgmse.model import Enhanced
from sgmse.sampling import SETTINGS_OF, SamplerSettings, gaussian, sampler_name
from sgmse.sde import SBVE


def enhance_folder(config: EnhanceConfig, sampler: dict[str, Any]) -> None:
    """Enhance every file of `config.test_dir`. `sampler`: settings that replace the checkpoint's."""
    check_bounds(config)
    check_asked(config)
    device = torch.device(runs.device(config.device))
    path = Path(config.ckpt) if config.ckpt else runs.newest_checkpoint(Path("logs"))
    loaded = checkpoints.load_model(path, config.encoder_checkpoint)
    model = loaded.model.to(device)
    settings = _sampler_settings(config, sampler, loaded)
    out_dir = Path(config.enhanced_dir or Path("enhanced") / _run_name(path))
    plan = make_plan(config, out_dir, conditioned=model.encoder is not None)
    _check_reference(config, path, plan, loaded)
    told = {
        "checkpoint": str(path),
        "checkpoint_sha256": loaded.sha256,
        "averaged_weights": loaded.averaged,
        "encoder": model.settings["encoder"],
        "encoder_weights": None if model.encoder is None else model.encoder.identity,
        "reference": plan.protocol,
        "reference_dir": None if plan.reference_dir is None else str(plan.reference_dir.resolve()),
        "guidance_scale": config.guidance_scale,
        "sampler": sampler_name(settings, model.sde),
        **{name: value for name, value in dataclasses.asdict(settings).items() if name != "sampler"},
        "t_eps": model.t_eps if config.t_eps is None else config.t_eps,
        "seed": config.seed,
        "sample_rate": model.settings["sample_rate"],
        "device": device.type,
    }
    ledger = Ledger(out_dir, told)
    _say(config, path, out_dir, plan, loaded, settings)
    left = [job for job in plan.jobs if not ledger.is_done(job)]
    check_inputs(left, plan.protocol, model.settings["n_fft"], model.settings["sample_rate"])
    ledger.start(left)
    if ledger.changed:
        print(f"all files are done again: {', '.join(ledger.changed)} changed since the last run")
    elif len(left) < len(plan.jobs):
        print(f"{len(plan.jobs) - len(left)} files are done already with these settings")
    Runner(loaded, device, settings, told["t_eps"], config, plan, ledger).run(left)


def _sampler_settings(config: EnhanceConfig, typed: dict[str, Any], loaded: Loaded) -> SamplerSettings:
    """The checkpoint's sampler with what was typed. A setting that the sampler does not have is refused."""
    settings = dataclasses.replace(loaded.model.sampler, **typed)
    try:
        name = sampler_name(settings, loaded.model.sde)
    except ValueError as error:
        raise UserError(f"--sampler: {error}") from None
    meaningless = typed.keys() - SETTINGS_OF[name] - {"sampler"}
    if config.t_eps is not None and isinstance(loaded.model.sde, SBVE):
        meaningless |= {"t_eps"}
    for setting in sorted(meaningless):
        raise UserError(f"--{setting} has no meaning for the sampler {name}; leave it out or choose another --sampler")
    check_sampler(settings)
    return settings


def _run_name(ckpt: Path) -> str:
    return ckpt.parent.parent.name if ckpt.parent.name == "checkpoints" else ckpt.stem


def _check_reference(config: EnhanceConfig, ckpt: Path, plan: Plan, loaded: Loaded) -> None:
    """Raise `UserError` where the model cannot do what reference and guidance ask for."""
    guided = config.guidance_scale != 1
    if loaded.model.encoder is None:
        asked = (
            config.noise_ref or config.noise_ref_dir or config.oracle_noise or config.reference not in (None, "none")
        )
        if asked or guided:
            raise UserError(f"{ckpt}: has no noise encoder; leave the reference and --guidance_scale out")
        return
    untrained = f"{ckpt}: was trained without dropping references, so its null condition is untrained; "
    if loaded.model.cond_drop_prob == 0 and plan.protocol in ("none", "self"):
        raise UserError(untrained + "give a reference (--noise_ref, --noise_ref_dir, --reference estimated)")
    if loaded.model.cond_drop_prob == 0 and guided:
        raise UserError(untrained + "leave --guidance_scale out, or train with --cond_drop_prob 0.1")
    if plan.protocol == "none" and guided:
        print(f"warning: there is no reference, so --guidance_scale {config.guidance_scale:g} has no effect")


def _say(config: EnhanceConfig, ckpt: Path, out: Path, plan: Plan, loaded: Loaded, settings: SamplerSettings) -> None:
    default = "" if config.reference else " (the default; choose with --reference)"
    references = {
        "none": "none, the null condition" if loaded.model.encoder is not None else "none, the model takes none",
        "file": str(config.noise_ref),
        "folder": str(plan.reference_dir),
        "disjoint": f"disjoint, {plan.reference_dir}" + ("" if config.reference else " (found beside noisy/)"),
        "oracle": "the file's own noise (oracle: an upper bound that leaks)",
        "estimated": f"estimated from each noisy file alone{default}",
        "self": "self, what a first pass without reference takes away",
    }
    kind = "published checkpoint" if loaded.published else "checkpoint"
    print(f"{kind}: {ckpt}" + ("" if config.ckpt else " (the newest; choose with --ckpt)"))
    if not loaded.averaged:
        print("warning: the checkpoint holds no averaged weights; the raw ones are used")
    print(f"noisy: {plan.noisy_dir}" + ("" if config.test_dir else " (the embedded test set; choose with --test_dir)"))
    print(f"references: {references.get(plan.protocol, f'{plan.protocol}, {plan.reference_dir}')}")
    name = sampler_name(settings, loaded.model.sde)
    print(f"sampler: {name}, N = {settings.N}; guidance scale {config.guidance_scale:g}")
    print(f"enhanced: {out}" + ("" if config.enhanced_dir else " (choose with --enhanced_dir)"))


class Done(NamedTuple):
    """What became of one file: length, cost, peak, whether its reference was the null, and what the reference was."""

    seconds: float
    nfe: int
    passes: int
    peak: float
    null: bool
    reference: str | None


class Reference(NamedTuple):
    """waveform: [C or 1, M] at the model's rate, None: the null. nfe, passes: what it cost. name: for the ledger."""

    waveform: torch.Tensor | None
    name: str | None = None
    nfe: int = 0
    passes: int = 0


@dataclass
class Runner:
    """Enhances jobs one after the other and reports what they cost."""

    loaded: Loaded
    device: torch.device
    sampler: SamplerSettings
    t_eps: float
    config: EnhanceConfig
    plan: Plan
    ledger: Ledger

    def run(self, jobs: list[Job]) -> None:
        wall_s = 0.0
        results: list[tuple[Job, Done]] = []
        for job in tqdm(jobs, unit="file"):
            start = time.perf_counter()
            done = self._enhance(job)
            wall_s += time.perf_counter() - start
            results.append((job, done))
            self.ledger.add(job, done.reference)
        for path, peak in [(job.output, done.peak) for job, done in results if done.peak > 1]:
            print(f"warning: {path} reached {peak:.2f}, beyond ±1" + _attenuated(path))
        silent = [job.reference or job.noisy for job, done in results if done.null and self.plan.protocol != "none"]
        if silent:
            print(f"warning: {len(silent)} references are silent and became the null condition, first {silent[0]}")
        if self.plan.protocol == "estimated":
            ways = Counter(self.ledger.content["references"].values())
            self.ledger.write(estimated_from=ways)
            print(f"estimated from stretches without speech: {ways['gaps']} files, from minima: {ways['minimum']}")
        if results:
            self._report(wall_s, [done for _, done in results])

    def _report(self, wall_s: float, results: list[Done]) -> None:
        seconds, last = sum(done.seconds for done in results), results[-1]
        self.ledger.write(rtf=round(wall_s / seconds, 4), nfe=last.nfe, passes=last.passes)
        print(
            f"{len(results)} files, {seconds:.0f} s of audio: real-time factor {wall_s / seconds:.3f}, nfe {last.nfe}, "
            f"passes {last.passes}, peak memory {_peak_memory_gb(self.device):.2f} GB"
        )

    def _enhance(self, job: Job) -> Done:
        rate = self.loaded.model.settings["sample_rate"]
        info = audio.info(job.noisy)
        noisy = np.atleast_2d(audio.read(job.noisy, rate, mono=False))  # [C, N]
        reference = self._reference(job, noisy, rate)
        result = self._pass(job, noisy, reference.waveform, self.config.guidance_scale)
        waveform = audio.resample(result.waveform.cpu().numpy(), rate, info.sample_rate)
        waveform = _to_length(waveform, info.num_frames)
        peak = audio.write(job.output, waveform[0] if len(waveform) == 1 else waveform, info.sample_rate, info.subtype)
        nfe, passes = reference.nfe + result.nfe, reference.passes + result.passes
        return Done(info.seconds, nfe, passes, peak, bool(result.null_reference.any()), reference.name)

    def _pass(self, job: Job, noisy: np.ndarray, reference: torch.Tensor | None, guidance_scale: float) -> Enhanced:
        """Enhance `noisy` [C, N] with a reference [C or 1, M]; every pass of a file draws the same noise."""
        generator = torch.Generator(self.device).manual_seed(_file_seed(self.config.seed, job.output.name))
        channels = torch.from_numpy(noisy).to(self.device)
        if reference is not None:
            reference = reference.to(self.device).expand(len(channels), -1)
        return self.loaded.model.enhance(
            channels, reference, gaussian(generator), guidance_scale, self.sampler, self.t_eps
        )

    def _reference(self, job: Job, noisy: np.ndarray, rate: int) -> Reference:
        """The reference of `noisy` [C, N]: one for all channels, or with `self` one for each."""
        if self.plan.protocol == "self":
            first = self._pass(job, noisy, None, 1.0)
            removed = torch.from_numpy(noisy).to(self.device) - first.waveform
            return Reference(removed, "self", first.nfe, first.passes)
        mono = noisy.mean(axis=0)
        if self.plan.protocol == "estimated":
            estimate = estimated(mono, rate, _file_seed(self.config.seed, job.output.name))
            return Reference(_row(estimate.reference), estimate.way)
        if job.reference is None:
            return Reference(None)
        reference = audio.read(job.reference, rate)
        if self.plan.protocol == "oracle":
            if len(reference) != len(mono):
                raise UserError(
                    f"{job.reference}: is {len(reference)} samples long, its noisy file {len(mono)}; check it"
                )
            reference = mono - reference
        return Reference(_row(reference), str(job.reference.resolve()))


def _row(waveform: np.ndarray) -> torch.Tensor | None:
    """[1, M]; None for an empty one."""
    return torch.from_numpy(np.ascontiguousarray(waveform))[None] if len(waveform) else None


def _attenuated(path: Path) -> str:
    lossless_range = path.suffix.lower() == ".wav" and "FLOAT" in audio.info(path).subtype.upper()
    return "; kept as it is" if lossless_range else "; the whole file was attenuated to fit"


def _file_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")


def _to_length(waveform: np.ndarray, length: int) -> np.ndarray:
    """Resampling there and back may miss the length by a sample."""
    return np.pad(waveform, ((0, 0), (0, max(0, length - waveform.shape[-1]))))[:, :length]


def _peak_memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
