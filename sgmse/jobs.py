"""What an enhancement is asked to do: which files, with which references, to where. All of it is checked first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sgmse.config import EnhanceConfig
from sgmse.data import audio, corpora
from sgmse.errors import UserError

Protocol = Literal["none", "file", "folder", "oracle"]


@dataclass(frozen=True)
class Job:
    """One file: where it is, where its noise reference is (None: the null), where its result goes."""

    noisy: Path
    reference: Path | None
    output: Path


@dataclass(frozen=True)
class Plan:
    """noisy_dir: where the noisy files are. reference_dir: where references are looked up, if in a folder."""

    noisy_dir: Path
    reference_dir: Path | None
    protocol: Protocol
    jobs: list[Job]


def check_asked(config: EnhanceConfig) -> None:
    """Raise `UserError` for flags that contradict each other."""
    sources = {"noise_ref": config.noise_ref, "noise_ref_dir": config.noise_ref_dir}
    given = [f"--{name}" for name, value in (sources | {"oracle_noise": config.oracle_noise}).items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each choose the reference; give one of them")
    if config.oracle_noise and config.clean_dir is None:
        raise UserError("--oracle_noise needs the clean files; give --clean_dir")
    if config.clean_dir is not None and not config.oracle_noise:
        raise UserError("--clean_dir serves --oracle_noise only; leave it out or add --oracle_noise")


def make_plan(config: EnhanceConfig, out_dir: Path, conditioned: bool) -> Plan:
    """The files of `config.test_dir` with their references; none for a model that is not `conditioned`."""
    folder = Path(config.test_dir) if config.test_dir else corpora.embedded_dir() / "test"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --test_dir")
    noisy_dir = folder / "noisy" if (folder / "noisy").is_dir() else folder
    files = audio.find(noisy_dir, "noisy speech")
    names = [path.relative_to(noisy_dir) for path in files]
    protocol, reference_dir = _protocol(config, noisy_dir) if conditioned else ("none", None)
    references: list[Path | None] = [None] * len(files)
    if protocol == "file":
        references = [Path(str(config.noise_ref))] * len(files)
    elif reference_dir is not None:
        references = _partners(names, reference_dir, "clean speech" if protocol == "oracle" else "noise references")
    jobs = [Job(f, r, out_dir / name) for f, r, name in zip(files, references, names, strict=True)]
    if folder.resolve() == out_dir.resolve():
        raise UserError(f"{out_dir}: is --test_dir, whose files are the input; choose another --enhanced_dir")
    plan = Plan(noisy_dir, reference_dir, protocol, jobs)
    _check_outputs(plan)
    return plan


def _protocol(config: EnhanceConfig, noisy_dir: Path) -> tuple[Protocol, Path | None]:
    """How references are found, and the folder to look in."""
    if config.noise_ref is not None:
        if Path(config.noise_ref).is_dir():
            raise UserError(f"{config.noise_ref}: is a folder; use --noise_ref_dir for a recording per file")
        return "file", None
    if config.oracle_noise:
        clean_dir = Path(str(config.clean_dir))
        if clean_dir.resolve() == noisy_dir.resolve():
            raise UserError(f"--clean_dir {clean_dir} is the folder of the noisy files; name that of the clean ones")
        return "oracle", clean_dir
    if config.noise_ref_dir is not None:
        return "folder", Path(config.noise_ref_dir)
    beside = noisy_dir.parent / "ref"
    return ("folder", beside) if noisy_dir.name == "noisy" and beside.is_dir() else ("none", None)


def _partners(names: list[Path], folder: Path, what: str) -> list[Path | None]:
    """For each relative path the file of the same path without suffix, else of the same stem."""
    by_path: dict[Path, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in audio.find(folder, what):
        by_path.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
        by_stem.setdefault(path.stem, []).append(path)
    partners: list[Path | None] = []
    missing = []
    for name in names:
        found = by_path.get(name.with_suffix("")) or by_stem.get(name.stem) or []
        if len(found) > 1:
            raise UserError(f"{name}: both {found[0]} and {found[1]} could be its partner; remove or rename one")
        partners += found
        missing += [] if found else [name]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} noisy files have no partner there (for {what}), first "
            f"{missing[0]}; partners have the same name"
        )
    return partners


def _check_outputs(plan: Plan) -> None:
    """Raise `UserError` where a result would fall among the inputs, now or at the next run."""
    inputs = {path.resolve() for job in plan.jobs for path in (job.noisy, job.reference) if path is not None}
    folders = [folder.resolve() for folder in (plan.noisy_dir, plan.reference_dir) if folder is not None]
    for job in plan.jobs:
        output = job.output.resolve()
        if output in inputs or any(output.is_relative_to(folder) for folder in folders):
            raise UserError(f"{job.output}: would fall among the input files; choose another --enhanced_dir")


def check_inputs(jobs: list[Job], protocol: Protocol, n_fft: int, rate: int) -> None:
    """Read every file once, before any is enhanced: each must be whole and long enough."""
    for job in jobs:
        noisy = audio.info(job.noisy)
        if noisy.num_frames * rate // noisy.sample_rate <= n_fft // 2:
            raise UserError(f"{job.noisy}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); remove it")
        audio.read(job.noisy, None)
        if protocol == "oracle" and job.reference is not None:
            _check_clean(audio.info(job.reference), noisy)
    for path in sorted({job.reference for job in jobs if job.reference is not None}):
        info = audio.info(path)
        if info.num_frames * rate // info.sample_rate < n_fft:
            raise UserError(f"{path}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); use a longer recording")
        if not audio.read(path, None).any() and protocol == "file":
            raise UserError(f"{path}: is silent, so it tells nothing of the noise; use another --noise_ref")


def _check_clean(clean: audio.AudioInfo, noisy: audio.AudioInfo) -> None:
    if (clean.num_frames, clean.sample_rate) != (noisy.num_frames, noisy.sample_rate):
        raise UserError(
            f"{clean.path}: holds {clean.num_frames} samples at {clean.sample_rate} Hz, its noisy file "
            f"{noisy.num_frames} at {noisy.sample_rate} Hz; a pair must agree, so check --clean_dir"
        )
