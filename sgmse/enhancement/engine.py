"""The engine: a test set under a setting → enhanced files, and their scores in a table of results."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgmse.common.ahead import ahead
from sgmse.common.progress import track
from sgmse.data import audio, listing
from sgmse.data.references import HEAD_S
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import (
    Batch,
    EnhancedSignal,
    Precision,
    Signal,
    encode_batch,
    enhance_batch,
    group_by_frames,
    noise_key,
    usual_chunks,
)
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation.results import NOISY, Results
from sgmse.evaluation.scores import Score
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer


@dataclass(frozen=True)
class Enhanced:
    """One enhanced file.

    Args:
        noisy: [C, N] at the model's rate.
        samples: [K, C, N], what the sampler drew.
        source: what its reference was: a file, or how it was made.
        seconds: that the networks took, its share of the group's.
        nfe, passes: evaluations of the sampler and network passes, of one channel, all samples.
        is_null: the reference said nothing, or there is none.
        distances: of each channel's reference from those of the training, where guidance adapts to it; else none.
    """

    item: Item
    noisy: np.ndarray
    samples: Tensor
    source: str | None
    seconds: float
    nfe: int
    passes: int
    is_null: bool
    distances: list[float]

    @property
    def waveform(self) -> np.ndarray:
        """The mean of the samples [C, N]."""
        mean: np.ndarray = (self.samples[0] if len(self.samples) == 1 else self.samples.mean(dim=0)).float().numpy()
        return mean


class Recording(NamedTuple):
    """A file that is read: noisy [C, N] and its reference [C or 1, M] at the model's rate; None: the null.

    source: what the reference was. nfe, passes: what making it cost. unrelated: the reference [1, M] of another file.
    """

    item: Item
    noisy: np.ndarray
    reference: Tensor | None
    source: str | None
    unrelated: Tensor | None = None
    nfe: int = 0
    passes: int = 0


class Group(NamedTuple):
    """Recordings of equally many frames, and their waveforms in batches with references encoded."""

    recordings: list[Recording]
    batches: list[Batch]


@dataclass(frozen=True)
class Engine:
    """Enhances files with one model.

    Args:
        batch_size: waveforms (files, channels, samples) per network call.
        num_samples: drawn per file; their mean is the result.
        mix: enhance the average of a file's channels; else each channel.
        weak: the weaker model that autoguidance leads away from.
        usual: the parts of long files; None: those of `usual_chunks`.
    """

    model: Enhancer
    batch_size: int = 8
    precision: Precision = "32"
    num_samples: int = 1
    mix: bool = True
    weak: Enhancer | None = None
    usual: Chunks | None = None

    @property
    def chunks(self) -> Chunks:
        """The parts of long files."""
        return self.usual or usual_chunks(self.model)

    @property
    def rate(self) -> int:
        rate: int = self.model.settings["sample_rate"]
        return rate

    def enhance(self, test_set: TestSet, setting: Setting, items: Sequence[Item] | None = None) -> Iterator[Enhanced]:
        """Enhance the files of a set (`items`: these of them), group by group, fewest frames first."""
        for group in self.encode_groups(test_set, setting, items):
            yield from self.enhance_group(group, setting)

    def encode_groups(
        self, test_set: TestSet, setting: Setting, items: Sequence[Item] | None = None
    ) -> Iterator[Group]:
        """Read files and encode their references, for all settings that agree in protocol, seed and kind of guidance.

        The next files are read while those at hand are used.
        Under the protocol `self` the sampler of `setting` makes the references.
        """
        groups = self.group(test_set.items if items is None else items)
        for recordings in ahead([self._read(test_set, setting, item) for item in group] for group in groups):
            by_itself = setting.protocol == "self"
            yield self._encode(self._take_references(recordings, setting) if by_itself else recordings, setting)

    def group(self, items: Sequence[Item]) -> list[list[Item]]:
        """Which files share network calls: those of equally many frames, fewest first; one that has parts is alone."""
        infos = listing.read_headers(item.noisy for item in items)
        lengths = [round(info.num_frames * self.rate / info.sample_rate) for info in infos]
        rows = [self.num_samples * (1 if self.mix else info.channels) for info in infos]
        longest = self.chunks.size or math.inf
        rows = [self.batch_size if length > longest else n for n, length in zip(rows, lengths, strict=True)]
        places = group_by_frames(self.model, lengths, rows, self.batch_size)
        return [[items[place] for place in together] for together in places]

    def enhance_group(self, group: Group, setting: Setting) -> list[Enhanced]:
        """Enhance files whose references are encoded, under one setting."""
        start = self._now()
        found = [
            signal
            for batch in group.batches
            for signal in enhance_batch(self.model, batch, setting, self.precision, self.chunks)
        ]
        share = (self._now() - start) / sum(recording.noisy.shape[-1] for recording in group.recordings)
        signals = iter(found)
        return [self._collect(recording, signals, share) for recording in group.recordings]

    def _collect(self, recording: Recording, signals: Iterator[EnhancedSignal], share: float) -> Enhanced:
        """The file out of its samples, each with a signal per channel. share: seconds that a sample of sound took."""
        item, noisy, _, source, _, nfe, passes = recording
        own = [[next(signals) for _ in noisy] for _ in range(self.num_samples)]
        samples = torch.stack([torch.stack([channel.waveform for channel in sample]) for sample in own])
        nfe, passes = nfe + sum(sample[0].nfe for sample in own), passes + sum(sample[0].passes for sample in own)
        distances = [channel.distance for channel in own[0] if channel.distance is not None]
        is_null = any(channel.is_null for channel in own[0])
        return Enhanced(item, noisy, samples, source, share * noisy.shape[-1], nfe, passes, is_null, distances)

    def _read(self, test_set: TestSet, setting: Setting, item: Item) -> Recording:
        noisy = np.atleast_2d(audio.read(item.noisy, self.rate, mono=self.mix))
        if setting.protocol == "self":
            return Recording(item, noisy, None, None)
        head = noisy[:, : round(HEAD_S * self.rate)].mean(axis=0)
        found = test_set.reference(item, setting.protocol, self.rate, setting.seed, head)
        return Recording(item, noisy, to_rows(found.waveform), found.source, self.unrelated(test_set, setting, item))

    def _take_references(self, recordings: Sequence[Recording], setting: Setting) -> list[Recording]:
        """References are what a first pass without reference takes away, one for each channel; of long files from the
        first part.
        """
        first, one = replace(setting, guidance=GuidanceSettings(), protocol="none"), replace(self, num_samples=1)
        begin = slice(self.chunks.size or None)
        heads = [recording._replace(noisy=recording.noisy[:, begin]) for recording in recordings]
        found = one.enhance_group(one._encode(heads, first), first)
        return [
            recording._replace(
                reference=torch.from_numpy(enhanced.noisy) - enhanced.samples[0],
                source="self",
                nfe=enhanced.nfe,
                passes=enhanced.passes,
            )
            for recording, enhanced in zip(recordings, found, strict=True)
        ]

    def _encode(self, recordings: Sequence[Recording], setting: Setting) -> Group:
        """The group with a signal for each file, sample and channel, in batches."""
        signals = []
        for item, noisy, reference, _, unrelated, *_ in recordings:
            own = [None] * len(noisy) if reference is None else list(reference.expand(len(noisy), -1))
            other = None if unrelated is None else unrelated[0]
            signals += [
                Signal(torch.from_numpy(channel), own[place], noise_key(setting.seed, item.name, k, place), other)
                for k in range(self.num_samples)
                for place, channel in enumerate(noisy)
            ]
        weak = self.weak if setting.guidance.guidance == "auto" else None
        size = 1 if setting.runs_alone else self.batch_size
        batches = [
            encode_batch(self.model, signals[begin : begin + size], self.precision, weak)
            for begin in range(0, len(signals), size)
        ]
        return Group(list(recordings), batches)

    def unrelated(self, test_set: TestSet, setting: Setting, item: Item) -> Tensor | None:
        """[1, M]: the reference of another file, where guidance leads away from it."""
        protocol = setting.protocol
        if not setting.needs_unrelated:
            return None
        other = test_set.other_item(item, protocol, setting.seed)
        head = (
            audio.read(other.noisy, self.rate, duration_s=HEAD_S)
            if protocol in ("estimated", "dtln", "own_noise")
            else None
        )
        return to_rows(test_set.reference(other, protocol, self.rate, setting.seed, head).waveform)

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def to_rows(waveform: np.ndarray | None) -> Tensor | None:
    """[1, M]; None for an empty one."""
    return torch.from_numpy(np.ascontiguousarray(waveform))[None] if waveform is not None and len(waveform) else None


def score_noisy(test_set: TestSet, results: Results, score: Score, engine: Engine | None = None) -> None:
    """Score the unprocessed files that are not in `results` yet, in the order in which `engine` enhances the set."""
    done = results.files("", NOISY)
    items = test_set.items if engine is None else [item for group in engine.group(test_set.items) for item in group]
    left = [item for item in items if item.name not in done]
    noisy = [audio.read(item.noisy, metrics.SAMPLE_RATE) for item in left]
    setting = {"protocol": "none", "sampler": NOISY, "N": 0, "guidance_scale": 1.0, "interval": "none"}
    rows = []
    for item, scores in zip(left, score(_read_clean(left), noisy, noisy), strict=True):
        costs = {"seconds": 0.0, "nfe": 0, "passes": 0, "is_null": True}
        rows.append(_row("", NOISY, setting, item, audio.info(item.noisy).seconds, costs, scores))
    results.add(rows)


def enhance_and_score(
    engine: Engine,
    test_set: TestSet,
    settings: Sequence[Setting],
    results: Results,
    score: Score,
) -> None:
    """Enhance a scored set under each of `settings` and score it; what is in `results` already is not done again.

    Every file is a row: checkpoint (the hash), setting (`Setting.key`), file, protocol, sampler, N, guidance_scale,
    interval, kind, source, snr_db, audio_s, seconds, nfe, passes, is_null, the metrics of `score` and reason. The
    files of a setting appear in `results` together. References are encoded once for consecutive settings that agree in
    what they need, so keep settings of one protocol together.
    """
    sha = engine.model.checkpoint_sha256
    names = {item.name for item in test_set.items}
    left = [setting for setting in settings if not names <= results.files(sha, setting.key)]
    groups: list[Group] = []
    encoded_for: object = None
    for setting in track(left, len(left), "enhancing", "setting"):
        needs: list[object] = [setting.protocol, setting.seed, setting.guidance.guidance, setting.runs_alone]
        needs.append(setting.needs_unrelated)
        needs += [setting.sampler, setting.t_eps] if setting.protocol == "self" else []
        if needs != encoded_for:
            groups, encoded_for = list(engine.encode_groups(test_set, setting)), needs
        if setting is left[0]:
            # what the first call costs (memory, kernels, compiling) must not be charged to a setting
            engine.enhance_group(groups[0], setting)
        found = [enhanced for group in groups for enhanced in engine.enhance_group(group, setting)]
        results.add(_score_enhanced(engine, setting, found, score))


def _score_enhanced(
    engine: Engine, setting: Setting, found: Sequence[Enhanced], score: Score
) -> Iterator[dict[str, Any]]:
    """The rows of files that were enhanced under one setting."""
    clean = _read_clean([enhanced.item for enhanced in found])
    estimates = [
        audio.to_length(audio.resample(enhanced.waveform, engine.rate, metrics.SAMPLE_RATE), len(own)).mean(axis=0)
        for enhanced, own in zip(found, clean, strict=True)
    ]
    columns = {"protocol": setting.protocol, **setting.to_dict()}
    noisy = [audio.read(enhanced.item.noisy, metrics.SAMPLE_RATE) for enhanced in found]
    for enhanced, scores in zip(found, score(clean, estimates, noisy), strict=True):
        costs: dict[str, Any] = {"seconds": round(enhanced.seconds, 5), "nfe": enhanced.nfe}
        costs |= {"passes": enhanced.passes, "is_null": enhanced.is_null}
        audio_s, sha = enhanced.noisy.shape[-1] / engine.rate, engine.model.checkpoint_sha256
        yield _row(sha, setting.key, columns, enhanced.item, audio_s, costs, scores)


def _row(
    checkpoint: str,
    key: str,
    setting: Mapping[str, Any],
    item: Item,
    audio_s: float,
    costs: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """The row of one file, as `enhance_and_score` describes it."""
    row = {"checkpoint": checkpoint, "setting": key, "file": item.name, **setting, **item.facts}
    return row | {"audio_s": round(audio_s, 4), **costs, **scores}


def _read_clean(items: Sequence[Item]) -> list[np.ndarray]:
    """The clean waveforms [N] of items of a set that was opened to be scored."""
    return [audio.read(item.clean, metrics.SAMPLE_RATE) for item in items if item.clean is not None]
