"""What the benchmark measures of enhancement: time, evaluations, memory and PESQ of several ways to enhance a set."""

from __future__ import annotations

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
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings, sampler_name
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
    audio_s = sum(audio.info(one.noisy).seconds for one in files.items)
    first = {name: [way(one) for one in files.items] for name, way in found.items()}  # warms up, and is scored
    now = measure.clock(job.device)
    seconds = measure.turns({name: partial(_seconds, way, files, now) for name, way in found.items()}, job.rounds)
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
    assert job.enhancement is not None
    torch.set_num_threads(job.threads)
    found, files = ways(job)
    longest = max(files.items, key=lambda one: audio.info(one.noisy).seconds)
    return measure.memory_rows(partial(found[job.enhancement.way], longest), "longest file", job.device)


def ways(job: Job) -> tuple[dict[str, Way], TestSet]:
    """The ways by name (only `enhancement.way` where it is set), and the files."""
    asked = job.enhancement
    assert asked is not None
    models = {path: _loaded(path, asked, job.device) for path in (asked.ckpt, asked.against) if path is not None}
    files = open_test_set(asked.test_dir, is_scored=True, max_files=asked.max_files)
    found: dict[str, Way] = {}
    for name, path, sampler, guidance in _settings(asked, models):
        if asked.way in ("", name):
            model = models[path]
            protocol = "none" if model.encoder is None else files.protocol
            engine = Engine(model, 1, "bf16-mixed" if job.precision == "bf16-mixed" else "32")
            found[name] = Way(engine, files, Setting(sampler, guidance, protocol))
    return found, files


def _settings(
    asked: Enhancement, models: dict[Path, Enhancer]
) -> Iterator[tuple[str, Path, SamplerSettings, GuidanceSettings]]:
    model = models[asked.ckpt]
    own = parse_sampler(model.sampler.sampler, model)
    own = own if asked.steps is None else replace(own, N=asked.steps)
    yield PLAIN, asked.ckpt, own, GuidanceSettings()
    if model.encoder is not None and model.cond_drop_prob > 0:
        everywhere, inside = _names(asked)[:2]
        guided = GuidanceSettings(guidance_scale=asked.scale)
        yield everywhere, asked.ckpt, own, guided
        yield inside, asked.ckpt, own, replace(guided, guidance_interval=[*asked.interval])
    if asked.against is not None:
        yield THEIRS, asked.against, PUBLISHED, GuidanceSettings()


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
