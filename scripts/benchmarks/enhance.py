"""What the benchmark measures of enhancement: time, evaluations, memory and PESQ of several ways to enhance a set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from benchmarks import measure
from benchmarks.job import Job, measure_alone, show
from benchmarks.measure import Row

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.engine import Engine, Enhanced
from sgmse.enhancement.lookup import open_test_set
from sgmse.enhancement.settings import Setting, parse_sampler
from sgmse.enhancement.signals import compile_network
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation import scores as evaluation
from sgmse.model.enhancer import Enhancer

PUBLISHED = SamplerSettings(sampler="pc", N=30, corrector="ald", corrector_steps=1, snr=0.5)  # 60 evaluations
PLAIN, THEIRS = "w = 1", "published sampler"
Labelled = list[tuple[str, list[Row]]]


@dataclass(frozen=True)
class Way:
    """One way to enhance."""

    engine: Engine
    test_set: TestSet
    setting: Setting

    def __call__(self, item: Item) -> Enhanced:
        """Read a file and its reference, encode, sample: all that enhancing it takes, but for writing."""
        return next(self.engine.enhance(self.test_set, self.setting, [item]))


def show_ways(job: Job) -> None:
    """Print the rows of every way, each followed by its memory."""
    suffix = f" {job.precision}" if job.device == "cuda" else ""
    for label, rows in measure_alone(enhancement, job):
        if " / " not in label:
            rows += measure_alone(memory, replace(job, way=label))
        show(f"enhance {label}{suffix}", rows)


def enhancement(job: Job) -> Labelled:
    """Every way on the same files, taking turns; then their ratios."""
    torch.set_num_threads(job.threads)
    found, files = ways(job)
    audio_s = sum(audio.info(one.noisy).seconds for one in files.items)
    first = {name: [way(one) for one in files.items] for name, way in found.items()}  # warms up, and is scored
    now = measure.clock(job.device)
    seconds = measure.take_turns({name: partial(_seconds, way, files, now) for name, way in found.items()}, job.rounds)
    frame = pd.DataFrame([row for name, results in first.items() for row in _scores(name, found[name], results, files)])
    rows: Labelled = []
    for name, results in first.items():
        sampler = found[name].setting.sampler
        note = f"{results[0].nfe} evaluations, {results[0].passes} passes; {sampler.sampler}, {len(files.items)} files"
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
    torch.set_num_threads(job.threads)
    found, files = ways(job)
    longest = max(files.items, key=lambda one: audio.info(one.noisy).seconds)
    return measure.memory_rows(partial(found[job.way], longest), "longest file", job.device)


def ways(job: Job) -> tuple[dict[str, Way], TestSet]:
    """The ways by name (only `job.way` where it is set), and the files."""
    model = _load(job.ckpt, job)
    own = parse_sampler(model.sampler.sampler, model)
    own = own if job.steps is None else replace(own, N=job.steps)
    chosen = {PLAIN: (model, own, GuidanceSettings())}
    if model.encoder is not None and model.cond_drop_prob > 0:
        guided, (low, high) = GuidanceSettings(guidance_scale=job.guidance_scale), job.interval
        name = f"w = {job.guidance_scale:g}"
        chosen[name] = (model, own, guided)
        chosen[f"{name} in [{low:g}, {high:g}]"] = (model, own, replace(guided, guidance_interval=[low, high]))
    if job.against is not None:
        other = _load(job.against, job)
        if other.settings["sde"] != "ouve":
            raise UserError(f"{job.against}: is a bridge, but the published sampler is for OUVE; name another")
        chosen[THEIRS] = (other, PUBLISHED, GuidanceSettings())
    files = open_test_set(job.test_dir, is_scored=True, max_files=job.max_files)
    found = {}
    for name, (one, sampler, guidance) in chosen.items():
        protocol = "none" if one.encoder is None else files.protocol
        if job.way in ("", name):
            found[name] = Way(Engine(one, 1, job.precision), files, Setting(sampler, guidance, protocol))
    return found, files


def _load(path: Path, job: Job) -> Enhancer:
    model = Enhancer.from_checkpoint(path, job.device)
    if job.compile:
        compile_network(model)
    return model


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    """Guided over unguided, inside the interval over everywhere, ours over the published sampler."""
    ours = [name for name in names if name != THEIRS]
    pairs = [(name, PLAIN) for name in ours[1:]] + ([(ours[2], ours[1])] if len(ours) > 2 else [])
    return pairs + ([(PLAIN, THEIRS)] if THEIRS in names else [])


def _seconds(way: Way, files: TestSet, now: measure.Clock) -> float:
    start = now()
    for one in files.items:
        way(one)
    return now() - start


def _scores(name: str, way: Way, results: list[Enhanced], files: TestSet) -> Iterator[dict[str, object]]:
    """A row per file."""
    for result, item in zip(results, files.items, strict=True):
        assert item.clean is not None
        clean = audio.read(item.clean, metrics.SAMPLE_RATE)
        estimate = audio.resample(result.waveform, way.engine.rate, metrics.SAMPLE_RATE)
        estimate = audio.to_length(estimate, len(clean))[0]
        yield {"system": name, "file": item.name, **metrics.score(clean, estimate, metrics.SAMPLE_RATE)}


def _score_row(quantity: str, table: pd.DataFrame) -> Row:
    line = table.set_index("metric").loc["pesq"]
    return Row(quantity, [float(line[column]) for column in ("low", "mean", "high")], "mean and 95 % interval")
