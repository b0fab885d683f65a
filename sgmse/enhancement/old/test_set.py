"""What an enhancement is asked to do: which files, with which references, to where. All of it is checked first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora, streams
from sgmse.enhancement.old.lookup import Lookup, Protocol, look_up
from sgmse.evaluation import scores as evaluation
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig


@dataclass(frozen=True)
class Job:
    """One file: where it is, where its noise reference is (None: in no file), where its result goes."""

    noisy: Path
    reference: Path | None
    output: Path


@dataclass(frozen=True)
class Shard:
    """The share number `index`, from 1, of `count` shares of the files."""

    index: int
    count: int

    def of(self, jobs: Sequence[Job]) -> list[Job]:
        """Every count-th file, so that shares are of similar size and no file is in two."""
        return list(jobs[self.index - 1 :: self.count])


@dataclass(frozen=True)
class Plan:
    """noisy_dir: where the noisy files are. reference_dir: where references are looked up, if in a folder."""

    noisy_dir: Path
    reference_dir: Path | None
    protocol: Protocol
    jobs: list[Job]


def check_asked(config: EnhanceConfig) -> None:
    """Raise `UserError` for flags that contradict each other."""
    sources = {name: getattr(config, name) for name in ("reference", "noise_ref", "noise_ref_dir", "oracle_noise")}
    given = [f"--{name}" for name, value in sources.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each choose the reference; give one of them")
    if config.oracle_noise and config.clean_dir is None:
        raise UserError("--oracle_noise needs the clean files; give --clean_dir")
    if config.clean_dir is not None and not config.oracle_noise:
        raise UserError("--clean_dir serves --oracle_noise only; leave it out or add --oracle_noise")
    if 0 < config.chunk_s <= config.overlap_s:
        raise UserError(
            f"--overlap_s {config.overlap_s:g} must be less than --chunk_s {config.chunk_s:g}, of which it is a part; "
            "change one"
        )


def parse_shard(text: str | None) -> Shard | None:
    """The share that `--shard K/N` means. Raises `UserError` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: is no share of the files; write K/N with K from 1 to N, e.g. 1/4")
    return Shard(int(found[1]), int(found[2]))


def make_plan(config: EnhanceConfig, out_dir: Path, conditioned: bool) -> Plan:
    """The files of `config.test_dir` with their references; none for a model that is not `conditioned`."""
    folder = Path(config.test_dir) if config.test_dir else corpora.embedded_dir() / "test"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --test_dir")
    noisy_dir = folder / "noisy" if (folder / "noisy").is_dir() else folder
    files = audio.find(noisy_dir, "noisy speech")
    names = [path.relative_to(noisy_dir) for path in files]
    found = look_up(config, noisy_dir, names) if conditioned else Lookup("none", None, [None] * len(files))
    jobs = [Job(f, r, out_dir / name) for f, r, name in zip(files, found.files, names, strict=True)]
    if folder.resolve() == out_dir.resolve():
        raise UserError(f"{out_dir}: is --test_dir, whose files are the input; choose another --enhanced_dir")
    plan = Plan(noisy_dir, found.folder, found.protocol, jobs)
    _check_outputs(plan)
    return plan


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
        streams.check(job.noisy)
        if protocol == "own_noise" and job.reference is not None:
            _check_clean(audio.info(job.reference), noisy)
    for path in sorted({job.reference for job in jobs if job.reference is not None}):
        info = audio.info(path)
        if info.num_frames * rate // info.sample_rate < n_fft:
            raise UserError(f"{path}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); use a longer recording")
        if streams.check(path) == 0 and protocol == "file":
            raise UserError(f"{path}: is silent, so it tells nothing of the noise; use another --noise_ref")


def _check_clean(clean: audio.AudioInfo, noisy: audio.AudioInfo) -> None:
    if (clean.num_frames, clean.sample_rate) != (noisy.num_frames, noisy.sample_rate):
        raise UserError(
            f"{clean.path}: holds {clean.num_frames} samples at {clean.sample_rate} Hz, its noisy file "
            f"{noisy.num_frames} at {noisy.sample_rate} Hz; a pair must agree, so check --clean_dir"
        )


@dataclass(frozen=True)
class Files:
    """Files to enhance, their names below noisy/, and the clean file of each. protocol: where references come from."""

    jobs: list[Job]
    names: list[str]
    clean: list[Path]
    protocol: Protocol


def find_files(config: EnhanceConfig, out_dir: Path, model: Enhancer, max_files: int | None) -> Files:
    """The files of SET/noisy with the references that `config` asks for and the partners in SET/clean, all checked.

    `max_files` are spread evenly over the set.
    """
    folder = Path(str(config.test_dir))
    if not (folder / "noisy").is_dir() or not (folder / "clean").is_dir():
        raise UserError(f"{folder}: holds no noisy/ and clean/ to enhance and score; name a test set with --test_dir")
    plan = make_plan(config, out_dir, conditioned=model.encoder is not None)
    partners = evaluation.match(folder / "clean", plan.noisy_dir, "noisy speech")
    clean_of = {noisy: audio.by_name(folder / "clean", "clean speech")[key] for key, noisy in partners.items()}
    count = len(plan.jobs) if max_files is None else min(max_files, len(plan.jobs))
    places = np.unique(np.linspace(0, len(plan.jobs) - 1, count).round().astype(int))
    chosen = [plan.jobs[place] for place in places]
    check_inputs(chosen, plan.protocol, model.settings["n_fft"], model.settings["sample_rate"])
    names = [job.noisy.relative_to(plan.noisy_dir).as_posix() for job in chosen]
    return Files(chosen, names, [clean_of[job.noisy] for job in chosen], plan.protocol)
