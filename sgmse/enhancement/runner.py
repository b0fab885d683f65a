"""Enhances the files of a plan, several at a time or one in parts, and reports what they cost."""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.data import audio
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement import disagreement
from sgmse.enhancement.disagreement import Disagreement
from sgmse.enhancement.guided import PICTURE
from sgmse.enhancement.ledger import Ledger
from sgmse.enhancement.long_recordings import enhance_long
from sgmse.enhancement.old.engine import Row, RowResult, buckets, enhance_rows
from sgmse.enhancement.old.test_set import Job
from sgmse.enhancement.recordings import Done, Reference, Work, mean_of, recorded, unrelated, write_whole

Result = tuple[Job, Done]


@dataclass
class Runner:
    """Enhances jobs and notes each in the ledger as soon as it is written."""

    work: Work
    ledger: Ledger

    def run(self, jobs: list[Job]) -> None:
        wall_s = 0.0
        results: list[Result] = []
        with tqdm(total=len(jobs), unit="file") as progress:
            for group in self._groups(jobs):
                start = time.perf_counter()
                done = self._enhance(group)
                wall_s += time.perf_counter() - start
                for job, what in zip(group, done, strict=True):
                    results.append((job, what))
                    self._note_distance(job, what)
                    self.ledger.add(job, what.reference, what.disagreement)
                progress.update(len(group))
        _warn(results, self.work.protocol)
        if self.work.protocol == "estimated":
            ways = Counter(self.ledger.gather()["references"].values())
            self.ledger.write(estimated_from=ways)
            print(f"estimated from stretches without speech: {ways['gaps']} files, from minima: {ways['minimum']}")
        if self.work.guidance.settings.is_adaptive and results:
            self.work.guidance.draw(self.ledger.gather()["adaptive"], self.ledger.folder / PICTURE)
        if results:
            self._report(wall_s, [done for _, done in results])

    def _note_distance(self, job: Job, done: Done) -> None:
        """For run.json: how far the reference is from those of the training, and the w that follows."""
        if done.distance is not None:
            name = job.output.relative_to(self.ledger.folder).as_posix()
            self.ledger.content.setdefault("adaptive", {})[name] = self.work.guidance.noted(done.distance)

    def _groups(self, jobs: list[Job]) -> list[list[Job]]:
        """Long files alone, the others with those of similar length."""
        work, infos = self.work, [audio.info(job.noisy) for job in jobs]
        lengths = [round(info.seconds * work.rate) for info in infos]
        rows = [work.channels(info) * work.config.num_samples for info in infos]
        rows = [max(n, work.config.batch_size) if self._is_long(job) else n for n, job in zip(rows, jobs, strict=True)]
        found = buckets(lengths, rows, work.config.batch_size)
        return [[jobs[index] for index in together] for together in found]

    def _is_long(self, job: Job) -> bool:
        size = self.work.chunks.size
        return bool(size) and audio.info(job.noisy).seconds * self.work.rate > size

    def _enhance(self, group: list[Job]) -> list[Done]:
        if len(group) == 1 and self._is_long(group[0]):
            return [enhance_long(self.work, group[0])]
        return self._enhance_whole(group)

    def _enhance_whole(self, jobs: list[Job]) -> list[Done]:
        work = self.work
        noisy = [np.atleast_2d(audio.read(job.noisy, work.rate, mono=work.mix)) for job in jobs]
        references = self._references(jobs, noisy)
        samples = range(work.config.num_samples)
        files = list(zip(jobs, noisy, references, strict=True))
        rows = []
        for job, waveform, reference in files:
            other = unrelated(work, job)
            rows += [row for k in samples for row in _rows(work, job, waveform, reference.waveform, k, other)]
        results = iter(self._pass(rows, work.guidance.settings))
        done = []
        for job, waveform, reference in files:
            own = [[next(results) for _ in waveform] for _ in samples]
            done.append(self._finish(job, waveform, reference, own))
        return done

    def _references(self, jobs: list[Job], noisy: list[np.ndarray]) -> list[Reference]:
        """One for all channels of a file, or with `self` one for each."""
        work = self.work
        if work.protocol != "self":
            return [recorded(work, job, waveform.mean(axis=0)) for job, waveform in zip(jobs, noisy, strict=True)]
        rows = [row for job, waveform in zip(jobs, noisy, strict=True) for row in _rows(work, job, waveform)]
        results = iter(self._pass(rows, GuidanceSettings()))
        references = []
        for waveform in noisy:
            first = [next(results) for _ in waveform]
            removed = torch.from_numpy(waveform) - torch.stack([result.waveform for result in first])
            references.append(Reference(removed, "self", first[0].nfe, first[0].passes))
        return references

    def _pass(self, rows: list[Row], guidance: GuidanceSettings) -> list[RowResult]:
        work = self.work
        weak = work.guidance.weak if guidance.guidance == "auto" else None
        return enhance_rows(work.model, rows, work.config.batch_size, guidance, work.sampler, work.t_eps, weak)

    def _finish(self, job: Job, noisy: np.ndarray, reference: Reference, own: list[list[RowResult]]) -> Done:
        """Write the mean of a file's samples, each a result per channel."""
        work = self.work
        samples = [torch.stack([channel.waveform for channel in sample]) for sample in own]
        peak = write_whole(work, job, noisy, mean_of(samples).numpy())
        nfe = reference.nfe + sum(sample[0].nfe for sample in own)
        passes = reference.passes + sum(sample[0].passes for sample in own)
        null = any(channel.null for channel in own[0])
        spread = self._spread(job, torch.stack(samples)) if len(samples) > 1 else None
        distances = [channel.distance for channel in own[0] if channel.distance is not None]
        distance = sum(distances) / len(distances) if distances else None
        return Done(noisy.shape[-1] / work.rate, nfe, passes, peak, null, reference.name, spread, distance)

    def _spread(self, job: Job, samples: Tensor) -> float:
        """The disagreement of a file's samples [K, C, N], with its picture."""
        found = Disagreement(self.work.model.transform)
        deviation = found.add(samples.to(self.work.model.device)).cpu().numpy()
        picture = self.ledger.folder / "disagreement" / job.output.relative_to(self.ledger.folder).with_suffix(".png")
        disagreement.draw(deviation, samples.shape[-1] / self.work.rate, self.work.rate, picture)
        return found.value

    def _report(self, wall_s: float, results: list[Done]) -> None:
        seconds, last = sum(done.seconds for done in results), results[-1]
        self.ledger.write(rtf=round(wall_s / seconds, 4), nfe=last.nfe, passes=last.passes)
        memory = _peak_memory_gb(self.work.model.device)
        print(
            f"{len(results)} files, {seconds:.0f} s of audio: real-time factor {wall_s / seconds:.3f}, nfe {last.nfe}, "
            f"passes {last.passes}, peak memory {memory:.2f} GB"
        )


def _rows(
    work: Work,
    job: Job,
    noisy: np.ndarray,
    reference: Tensor | None = None,
    sample: int = 0,
    other: Tensor | None = None,
) -> list[Row]:
    """A row per channel of `noisy` [C, N] with its reference of [C or 1, M] and the one of another file [1, M]."""
    given = [None] * len(noisy) if reference is None else list(reference.expand(len(noisy), -1))
    keys = work.keys(job, len(noisy), sample)
    against = None if other is None else other[0]
    return [Row(*row, against) for row in zip(torch.from_numpy(noisy), given, keys, strict=True)]


def _warn(results: list[Result], protocol: str) -> None:
    for path, peak in [(job.output, done.peak) for job, done in results if done.peak > 1]:
        print(f"warning: {path} reached {peak:.2f}, beyond ±1" + _attenuated(path))
    silent = [job.reference or job.noisy for job, done in results if done.null and protocol != "none"]
    if silent:
        print(f"warning: {len(silent)} references are silent and became the null condition, first {silent[0]}")
    for job, done in results:
        if done.disagreement is not None and done.disagreement > disagreement.HIGH:
            print(
                f"warning: {job.output}: its samples disagree by {done.disagreement:.2f} of their level; "
                "the model invents here"
            )


def _attenuated(path: Path) -> str:
    lossless_range = path.suffix.lower() == ".wav" and "FLOAT" in audio.info(path).subtype.upper()
    return "; kept as it is" if lossless_range else "; the whole file was attenuated to fit"


def _peak_memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
