"""Files in → enhanced files out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sgmse import checkpoints, runs
from sgmse.checkpoints import Loaded
from sgmse.config import EnhanceConfig
from sgmse.data import audio, corpora
from sgmse.errors import UserError
from sgmse.sampling import SETTINGS_OF, SamplerSettings, gaussian, sampler_name

LEDGER = "run.json"  # in the output folder: the settings, and which files are done with them


@dataclass(frozen=True)
class Job:
    """One file: where it is, where its noise reference is (None: the null), where its result goes."""

    noisy: Path
    reference: Path | None
    output: Path


def enhance_folder(config: EnhanceConfig, sampler: dict[str, Any], typed: set[str]) -> None:
    """Enhance every file of `config.test_dir`. `sampler`: settings that replace the checkpoint's."""
    _check_typed(config, typed)
    device = torch.device(runs.device(config.device))
    path = Path(config.ckpt) if config.ckpt else runs.newest_checkpoint(Path("logs"))
    loaded = checkpoints.load_model(path)
    model = loaded.model.to(device)
    settings = _sampler_settings(model.sampler, sampler, loaded)
    noisy_dir = _noisy_dir(config)
    out_dir = Path(config.enhanced_dir or Path("enhanced") / _run_name(path))
    protocol, jobs = _jobs(config, noisy_dir, out_dir, loaded)
    _check_guidance(config, protocol, loaded)
    t_eps = model.t_eps if config.t_eps is None else config.t_eps
    _say(config, path, noisy_dir, out_dir, protocol, loaded, settings)
    _check_inputs(jobs, model.settings["n_fft"], model.settings["sample_rate"])
    told = {
        "checkpoint": str(path),
        "checkpoint_sha256": loaded.sha256,
        "averaged_weights": loaded.averaged,
        "encoder": model.settings["encoder"],
        "reference": protocol,
        "guidance_scale": config.guidance_scale,
        "sampler": sampler_name(settings, model.sde),
        **{name: value for name, value in dataclasses.asdict(settings).items() if name != "sampler"},
        "t_eps": t_eps,
        "seed": config.seed,
        "sample_rate": model.settings["sample_rate"],
        "device": device.type,
    }
    ledger = Ledger(out_dir, told)
    Runner(loaded, device, settings, t_eps, config, ledger).run(jobs)


# ---- what was asked for ----


def _check_typed(config: EnhanceConfig, typed: set[str]) -> None:
    sources = typed & {"noise_ref", "noise_ref_dir", "oracle_noise"}
    if len(sources) > 1:
        raise UserError(f"--{' and --'.join(sorted(sources))} both choose the reference; give one of them")
    if config.oracle_noise and config.clean_dir is None:
        raise UserError("--oracle_noise needs the clean files; give --clean_dir")
    if config.clean_dir is not None and not config.oracle_noise:
        raise UserError("--clean_dir serves --oracle_noise only; leave it out or add --oracle_noise")
    if not np.isfinite(config.guidance_scale):
        raise UserError(f"--guidance_scale {config.guidance_scale} is no number; 1 follows the reference, 3 harder")
    if config.t_eps is not None and not 0 < config.t_eps < 1:
        raise UserError(f"--t_eps {config.t_eps} is outside (0, 1); leave it out to use the trained value")


def _sampler_settings(stored: SamplerSettings, typed: dict[str, Any], loaded: Loaded) -> SamplerSettings:
    """The checkpoint's sampler with what was typed. A setting that the sampler does not have is refused."""
    settings = dataclasses.replace(stored, **typed)
    try:
        name = sampler_name(settings, loaded.model.sde)
    except ValueError as error:
        raise UserError(f"--sampler: {error}") from None
    for setting in typed.keys() - SETTINGS_OF[name] - {"sampler"}:
        raise UserError(f"--{setting} has no meaning for the sampler {name}; leave it out or choose another --sampler")
    if settings.N < 1 or settings.corrector_steps < 1:
        raise UserError("--N and --corrector_steps count steps; use 1 or more (--corrector none for no corrector)")
    return settings


def _noisy_dir(config: EnhanceConfig) -> Path:
    folder = Path(config.test_dir) if config.test_dir else corpora.embedded_dir() / "test"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --test_dir")
    return folder / "noisy" if (folder / "noisy").is_dir() else folder


def _run_name(ckpt: Path) -> str:
    return ckpt.parent.parent.name if ckpt.parent.name == "checkpoints" else ckpt.stem


def _jobs(config: EnhanceConfig, noisy_dir: Path, out_dir: Path, loaded: Loaded) -> tuple[str, list[Job]]:
    """The name of the reference protocol, and a job per file."""
    files = audio.find(noisy_dir, "noisy speech")
    names = [path.relative_to(noisy_dir) for path in files]
    if loaded.model.encoder is None:
        if config.noise_ref or config.noise_ref_dir or config.oracle_noise or config.guidance_scale != 1:
            raise UserError("the checkpoint has no noise encoder; leave the reference and --guidance_scale out")
        return "none", [Job(path, None, out_dir / name) for path, name in zip(files, names, strict=True)]
    if config.noise_ref is not None:
        audio.info(config.noise_ref)
        return "file", [Job(f, Path(config.noise_ref), out_dir / n) for f, n in zip(files, names, strict=True)]
    if config.oracle_noise:
        partners = _partners(names, Path(str(config.clean_dir)), "clean speech")
        return "oracle", [Job(f, c, out_dir / n) for f, n, c in zip(files, names, partners, strict=True)]
    beside = noisy_dir.parent / "ref"
    if config.noise_ref_dir is None and not (noisy_dir.name == "noisy" and beside.is_dir()):
        return "none", [Job(path, None, out_dir / name) for path, name in zip(files, names, strict=True)]
    references = _partners(names, Path(config.noise_ref_dir or beside), "noise references")
    return "folder", [Job(f, r, out_dir / n) for f, n, r in zip(files, names, references, strict=True)]


def _partners(names: list[Path], folder: Path, what: str) -> list[Path]:
    """For each relative path the file of the same path without suffix, else of the same stem."""
    found = audio.find(folder, what)
    by_path = {path.relative_to(folder).with_suffix(""): path for path in found}
    by_stem = {path.stem: path for path in found}
    partners = [by_path.get(name.with_suffix("")) or by_stem.get(name.stem) for name in names]
    missing = [name for name, partner in zip(names, partners, strict=True) if partner is None]
    if missing:
        raise UserError(f"{folder}: {len(missing)} of {len(names)} files have no partner there, first {missing[0]}")
    return [partner for partner in partners if partner is not None]


def _check_guidance(config: EnhanceConfig, protocol: str, loaded: Loaded) -> None:
    if loaded.model.encoder is None:
        return
    if protocol == "none" and config.guidance_scale != 1:
        print(f"warning: there is no reference, so --guidance_scale {config.guidance_scale} has no effect")
    elif config.guidance_scale != 1 and loaded.model.cond_drop_prob == 0:
        raise UserError(
            "the model was trained without dropping references, so its null condition is untrained; "
            "leave --guidance_scale out, or train with --cond_drop_prob 0.1"
        )


def _say(
    config: EnhanceConfig, ckpt: Path, noisy: Path, out: Path, protocol: str, loaded: Loaded, s: SamplerSettings
) -> None:
    references = {
        "none": "none, the null condition" if loaded.model.encoder is not None else "none, the model takes none",
        "file": str(config.noise_ref),
        "folder": config.noise_ref_dir or f"{noisy.parent / 'ref'} (found beside noisy/)",
        "oracle": "the file's own noise (oracle: an upper bound that leaks)",
    }
    kind = "published checkpoint" if loaded.published else "checkpoint"
    print(f"{kind}: {ckpt}" + ("" if config.ckpt else " (the newest; choose with --ckpt)"))
    if not loaded.averaged:
        print("warning: the checkpoint holds no averaged weights; the raw ones are used")
    print(f"noisy: {noisy}" + ("" if config.test_dir else " (the embedded test set; choose with --test_dir)"))
    print(f"references: {references[protocol]}")
    print(f"sampler: {sampler_name(s, loaded.model.sde)}, N = {s.N}; guidance scale {config.guidance_scale:g}")
    print(f"enhanced: {out}" + ("" if config.enhanced_dir else " (choose with --enhanced_dir)"))


def _check_inputs(jobs: list[Job], n_fft: int, rate: int) -> None:
    """Read every header before any work."""
    for job in jobs:
        info = audio.info(job.noisy)
        if info.num_frames * rate // info.sample_rate <= n_fft // 2:
            raise UserError(f"{job.noisy}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); remove it")
    for path in {job.reference for job in jobs if job.reference is not None}:
        audio.info(path)


# ---- the work ----


class Ledger:
    """run.json in the output folder: the settings, and for each finished file what it was made from.

    A file is done when it is there and its noisy file and reference still have the recorded sizes and times, under the
    same settings. Settings that differ start the ledger anew.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self.folder = folder / LEDGER, folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --enhanced_dir") from None
        stored = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.content: dict[str, Any] = {**settings, "files": {}}
        if all(stored.get(name) == value for name, value in settings.items()):
            self.content = stored

    def is_done(self, job: Job) -> bool:
        return job.output.exists() and self.content["files"].get(self._name(job)) == _fingerprint(job)

    def add(self, job: Job) -> None:
        self.content["files"][self._name(job)] = _fingerprint(job)
        self.write()

    def write(self, **totals: Any) -> None:
        self.content |= totals
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1))
        os.replace(temporary, self.path)

    def _name(self, job: Job) -> str:
        return job.output.relative_to(self.folder).as_posix()


def _fingerprint(job: Job) -> str:
    """Identity of the inputs of a job: sizes and times of the files, and the reference's path."""
    stats = [(p.stat().st_size, p.stat().st_mtime_ns) for p in (job.noisy, job.reference) if p is not None]
    return hashlib.sha256(repr((stats, str(job.reference))).encode()).hexdigest()[:16]


@dataclass
class Runner:
    """Enhances jobs one after the other and reports what they cost."""

    loaded: Loaded
    device: torch.device
    sampler: SamplerSettings
    t_eps: float
    config: EnhanceConfig
    ledger: Ledger

    def run(self, jobs: list[Job]) -> None:
        left = [job for job in jobs if not self.ledger.is_done(job)]
        if len(left) < len(jobs):
            print(f"{len(jobs) - len(left)} files are done already with these settings")
        seconds, audio_s, nfe, passes = 0.0, 0.0, 0, 0
        loud, silent = [], []
        for job in tqdm(left, unit="file"):
            start = time.perf_counter()
            length_s, nfe, passes, peak, null = self._enhance(job)
            seconds, audio_s = seconds + time.perf_counter() - start, audio_s + length_s
            loud += [(job.output, peak)] if peak > 1 else []
            silent += [job.reference] if null and job.reference is not None else []
            self.ledger.add(job)
        for path, peak in loud:
            print(f"warning: {path} reached {peak:.2f}, beyond ±1" + _attenuated(path))
        if silent:
            print(f"warning: {len(silent)} references are silent and became the null condition, first {silent[0]}")
        if left:
            self.ledger.write(rtf=round(seconds / audio_s, 4), nfe=nfe, passes=passes)
            memory = _peak_memory_gb(self.device)
            print(
                f"{len(left)} files, {audio_s:.0f} s of audio: real-time factor {seconds / audio_s:.3f}, nfe {nfe}, "
                f"passes {passes}, peak memory {memory:.2f} GB"
            )

    def _enhance(self, job: Job) -> tuple[float, int, int, float, bool]:
        """Seconds, evaluations, network passes, peak of the result, and whether the reference was the null."""
        rate = self.loaded.model.settings["sample_rate"]
        info = audio.info(job.noisy)
        noisy = audio.read(job.noisy, rate, mono=False)  # [C, N] or [N]
        channels = torch.from_numpy(np.atleast_2d(noisy)).to(self.device)
        reference = self._reference(job, noisy, rate)
        generator = torch.Generator(self.device).manual_seed(_file_seed(self.config.seed, job.output.name))
        if reference is not None:
            reference = reference.to(self.device).expand(len(channels), -1)
        result = self.loaded.model.enhance(
            channels, reference, gaussian(generator), self.config.guidance_scale, self.sampler, self.t_eps
        )
        waveform = audio.resample(result.waveform.cpu().numpy(), rate, info.sample_rate)
        waveform = _to_length(waveform, info.num_frames)
        peak = audio.write(job.output, waveform[0] if len(waveform) == 1 else waveform, info.sample_rate, info.subtype)
        return info.seconds, result.nfe, result.passes, peak, bool(result.null_reference.any())

    def _reference(self, job: Job, noisy: np.ndarray, rate: int) -> torch.Tensor | None:
        """[1, M]: the reference at the model's rate."""
        if job.reference is None:
            return None
        reference = audio.read(job.reference, rate)
        if self.config.oracle_noise:
            mono = noisy if noisy.ndim == 1 else noisy.mean(axis=0)
            if len(reference) != len(mono):
                raise UserError(
                    f"{job.reference}: is {len(reference)} samples long, its noisy file {len(mono)}; check it"
                )
            reference = mono - reference
        return torch.from_numpy(np.ascontiguousarray(reference))[None]


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
