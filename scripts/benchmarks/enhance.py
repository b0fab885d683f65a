"""What the benchmark measures of enhancement: time, evaluations, memory and PESQ of several ways to enhance a set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from benchmarks import measure
from benchmarks.job import Enhancement, Job, alone, show
from benchmarks.measure import Row

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.samplers import SamplerSettings, sampler_name
from sgmse.enhancement.acceleration import Precision, autocast, compile_network
from sgmse.enhancement.old.settings import Cell, parse_sampler
from sgmse.enhancement.old.test_set import Files, find_files
from sgmse.enhancement.old.test_set import Job as FileJob
from sgmse.evaluation import metrics
from sgmse.evaluation import scores as evaluation
from sgmse.model.enhancer import Enhanced, Enhancer
from sgmse.settings.config import EnhanceConfig

PUBLISHED = SamplerSettings(sampler="pc", N=30, corrector="ald", corrector_steps=1, snr=0.5)  # 60 evaluations
PLAIN, THEIRS = "w = 1", "published sampler"
Labelled = list[tuple[str, list[Row]]]


@dataclass(frozen=True)
class Way:
    """One way to enhance."""

    model: Enhancer
    cell: Cell
    precision: Precision

    def __call__(self, job: FileJob) -> Enhanced:
        """Read a file and its reference, encode, sample: all that enhancing it takes, but for writing."""
        rate, device = self.model.settings["sample_rate"], self.model.device
        noisy = torch.from_numpy(audio.read(job.noisy, rate))[None].to(device)
        taken = job.reference is not None and self.model.encoder is not None
        reference = torch.from_numpy(audio.read(str(job.reference), rate))[None].to(device) if taken else None
        noise = FrameNoise([f"0 {job.noisy.name} 0 0"])
        with autocast(device, self.precision):
            encoded = self.model.encode_reference(reference, noisy.abs().amax(dim=-1))
            return self.model.enhance_batch(noisy, encoded, noise, self.cell.guidance, self.cell.sampler)


def show_ways(job: Job) -> None:
    """Print the rows of every way, each followed by its memory."""
    assert job.enhancement is not None
    suffix = f" {job.precision}" if job.device == "cuda" else ""
    for label, rows in alone(enhancement, job):
        if " / " not in label:
            rows += alone(memory, replace(job, enhancement=replace(job.enhancement, way=label)))
        show(f"enhance {label}{suffix}", rows)


def enhancement(job: Job) -> Labelled:
    """Every way on the same files, taking turns; then their ratios."""
    torch.set_num_threads(job.threads)
    found, files = ways(job)
    audio_s = sum(audio.info(one.noisy).seconds for one in files.jobs)
    first = {name: [way(one) for one in files.jobs] for name, way in found.items()}  # warms up, and is scored
    now = measure.clock(job.device)
    seconds = measure.turns({name: partial(_seconds, way, files, now) for name, way in found.items()}, job.rounds)
    frame = pd.DataFrame([row for name, results in first.items() for row in _scores(name, found[name], results, files)])
    rows: Labelled = []
    for name, results in first.items():
        sampler = found[name].cell.sampler
        note = f"{results[0].nfe} evaluations, {results[0].passes} passes; {sampler.sampler}, {len(files.jobs)} files"
        factors = [spent / audio_s for spent in seconds[name]]
        means = evaluation.summary(frame[frame["system"] == name])
        rows.append((name, [Row("real-time factor", factors, note), _score_row("PESQ", means)]))
    return rows + [comparison(a, b, seconds, frame) for a, b in _pairs(list(found))]


def comparison(a: str, b: str, seconds: dict[str, list[float]], frame: pd.DataFrame) -> tuple[str, list[Row]]:
    """Time and PESQ of one way beside those of another."""
    difference = _score_row("PESQ difference", evaluation.paired(frame, a, b))
    return f"{a} / {b}", [Row("time ratio", measure.ratios(seconds[a], seconds[b])), difference]


def memory(job: Job) -> list[Row]:
    """Peak while one way enhances the longest file, in a process that does nothing else."""
    assert job.enhancement is not None
    torch.set_num_threads(job.threads)
    found, files = ways(job)
    longest = max(files.jobs, key=lambda one: audio.info(one.noisy).seconds)
    return measure.memory_rows(partial(found[job.enhancement.way], longest), "longest file", job.device)


def ways(job: Job) -> tuple[dict[str, Way], Files]:
    """The ways by name (only `enhancement.way` where it is set), and the files."""
    asked = job.enhancement
    assert asked is not None
    models = {path: _loaded(path, asked, job.device) for path in (asked.ckpt, asked.against) if path is not None}
    found: dict[str, Way] = {}
    for name, path, cell in _cells(asked, models):
        if asked.way in ("", name):
            found[name] = Way(models[path], cell, "bf16-mixed" if job.precision == "bf16-mixed" else "32")
    config, nowhere = EnhanceConfig(test_dir=str(asked.test_dir)), Path(os.devnull)  # nothing is written
    return found, find_files(config, nowhere, models[asked.ckpt], asked.max_files)


def _cells(asked: Enhancement, models: dict[Path, Enhancer]) -> Iterator[tuple[str, Path, Cell]]:
    model = models[asked.ckpt]
    own = parse_sampler(model.sampler.sampler, model)
    own = own if asked.steps is None else replace(own, N=asked.steps)
    yield PLAIN, asked.ckpt, Cell(own, 1.0)
    if model.encoder is not None and model.cond_drop_prob > 0:
        everywhere, inside = _names(asked)[:2]
        yield everywhere, asked.ckpt, Cell(own, asked.scale)
        yield inside, asked.ckpt, Cell(own, asked.scale, asked.interval)
    if asked.against is not None:
        yield THEIRS, asked.against, Cell(PUBLISHED, 1.0)


def _names(asked: Enhancement) -> list[str]:
    low, high = asked.interval
    return [f"w = {asked.scale:g}", f"w = {asked.scale:g} in [{low:g}, {high:g}]", THEIRS]


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    """Guided over unguided, inside the interval over everywhere, ours over the published sampler."""
    ours = [name for name in names if name != THEIRS]
    pairs = [(name, PLAIN) for name in ours[1:]] + ([(ours[2], ours[1])] if len(ours) > 2 else [])
    return pairs + ([(PLAIN, THEIRS)] if THEIRS in names else [])


def _loaded(path: Path, asked: Enhancement, device: str) -> Enhancer:
    model = Enhancer.from_checkpoint(path, device)
    if path == asked.against:
        try:
            sampler_name(PUBLISHED, model.sde)
        except UserError:
            raise UserError(
                f"{path}: is a bridge, but the published sampler is for OUVE; name another --against"
            ) from None
    if asked.compile:
        compile_network(model)
    return model


def _seconds(way: Way, files: Files, now: measure.Clock) -> float:
    start = now()
    for one in files.jobs:
        way(one)
    return now() - start


def _scores(name: str, way: Way, results: list[Enhanced], files: Files) -> Iterator[dict[str, object]]:
    """A row per file."""
    rate = way.model.settings["sample_rate"]
    for result, file, path in zip(results, files.names, files.clean, strict=True):
        clean = audio.read(path, metrics.SAMPLE_RATE)
        estimate = audio.resample(result.waveform[0].float().cpu().numpy(), rate, metrics.SAMPLE_RATE)
        estimate = audio.to_length(estimate[None], len(clean))[0]
        yield {"system": name, "file": file, **metrics.score(clean, estimate, metrics.SAMPLE_RATE)}


def _score_row(quantity: str, table: pd.DataFrame) -> Row:
    line = table.set_index("metric").loc["pesq"]
    return Row(quantity, [float(line[column]) for column in ("low", "mean", "high")], "mean and 95 % interval")
