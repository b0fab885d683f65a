"""The engine: a test set under a setting → enhanced files, and their scores in a table of results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.data import audio
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import (
    Batch,
    EnhancedSignal,
    Precision,
    Signal,
    encode_batch,
    enhance_batch,
    enhance_signals,
    group_by_frames,
    noise_key,
)
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation.metrics import MAIN
from sgmse.evaluation.results import NOISY, Results
from sgmse.evaluation.scores import Score
from sgmse.model.enhancer import Enhancer

HEAD_S = 120.0  # what is made of a long recording, or of another one, is made of so much of its beginning


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
        distance: of the reference from those of the training, where guidance adapts to it.
    """

    item: Item
    noisy: np.ndarray
    samples: Tensor
    source: str | None
    seconds: float
    nfe: int
    passes: int
    is_null: bool
    distance: float | None

    @property
    def waveform(self) -> np.ndarray:
        """The mean of the samples [C, N]."""
        mean: np.ndarray = (self.samples[0] if len(self.samples) == 1 else self.samples.mean(dim=0)).float().numpy()
        return mean


@dataclass(frozen=True)
class Group:
    """Files of equally many frames, with their references encoded. nfe, passes: what making a reference cost."""

    items: list[Item]
    noisy: list[np.ndarray]
    references: list[Tensor | None]
    sources: list[str | None]
    batches: list[Batch]
    nfe: int = 0
    passes: int = 0


@dataclass(frozen=True)
class Engine:
    """Enhances files with one model.

    Args:
        batch_size: waveforms (files, channels, samples) per network call.
        num_samples: drawn per file; their mean is the result.
        mix: enhance the average of a file's channels; else each channel.
        weak: the weaker model that autoguidance leads away from.
    """

    model: Enhancer
    batch_size: int = 8
    precision: Precision = "32"
    num_samples: int = 1
    mix: bool = True
    weak: Enhancer | None = None

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

        Under the protocol `self` the sampler of `setting` makes the references.
        """
        for together in self.group(test_set.items if items is None else items):
            yield self._encode_group(test_set, setting, together)

    def group(self, items: Sequence[Item]) -> list[list[Item]]:
        """Which files share network calls: those of equally many frames, fewest first."""
        infos = [audio.info(item.noisy) for item in items]
        lengths = [round(info.num_frames * self.rate / info.sample_rate) for info in infos]
        rows = [self.num_samples * (1 if self.mix else info.channels) for info in infos]
        places = group_by_frames(self.model, lengths, rows, self.batch_size)
        return [[items[place] for place in together] for together in places]

    def enhance_group(self, group: Group, setting: Setting) -> list[Enhanced]:
        """Enhance files whose references are encoded, under one setting."""
        start = self._now()
        signals = iter(
            [s for batch in group.batches for s in enhance_batch(self.model, batch, setting, self.precision)]
        )
        seconds, total = self._now() - start, sum(noisy.shape[-1] for noisy in group.noisy)
        found = []
        for item, noisy, source in zip(group.items, group.noisy, group.sources, strict=True):
            own = [[next(signals) for _ in noisy] for _ in range(self.num_samples)]
            share = seconds * noisy.shape[-1] / total
            found.append(self._collect(item, noisy, source, own, share, group))
        return found

    def _collect(
        self,
        item: Item,
        noisy: np.ndarray,
        source: str | None,
        own: list[list[EnhancedSignal]],
        seconds: float,
        group: Group,
    ) -> Enhanced:
        """The file out of its samples, each with a signal per channel."""
        samples = torch.stack([torch.stack([channel.waveform for channel in sample]) for sample in own])
        nfe = group.nfe + sum(sample[0].nfe for sample in own)
        passes = group.passes + sum(sample[0].passes for sample in own)
        distances = [channel.distance for channel in own[0] if channel.distance is not None]
        distance = sum(distances) / len(distances) if distances else None
        is_null = any(channel.is_null for channel in own[0])
        return Enhanced(item, noisy, samples, source, seconds, nfe, passes, is_null, distance)

    def _encode_group(self, test_set: TestSet, setting: Setting, items: Sequence[Item]) -> Group:
        noisy = [np.atleast_2d(audio.read(item.noisy, self.rate, mono=self.mix)) for item in items]
        if setting.protocol == "self":
            return self._after_first_pass(setting, items, noisy)
        found = [
            test_set.reference(item, setting.protocol, self.rate, setting.seed, waveform.mean(axis=0))
            for item, waveform in zip(items, noisy, strict=True)
        ]
        references = [to_rows(reference.waveform) for reference in found]
        unrelated = [self.unrelated(test_set, setting, item) for item in items]
        sources = [reference.source for reference in found]
        return self._with_batches(setting, items, noisy, references, sources, unrelated)

    def _after_first_pass(self, setting: Setting, items: Sequence[Item], noisy: list[np.ndarray]) -> Group:
        """References are what a first pass without reference takes away, one for each channel."""
        first = replace(setting, guidance=GuidanceSettings(), protocol="none")
        signals = [
            Signal(torch.from_numpy(channel), None, noise_key(setting.seed, item.name, 0, place))
            for item, waveform in zip(items, noisy, strict=True)
            for place, channel in enumerate(waveform)
        ]
        results = enhance_signals(self.model, signals, first, self.batch_size, self.precision)
        left = iter(results)
        references: list[Tensor | None] = [
            torch.from_numpy(waveform) - torch.stack([next(left).waveform for _ in waveform]) for waveform in noisy
        ]
        group = self._with_batches(setting, items, noisy, references, ["self"] * len(items), [None] * len(items))
        return replace(group, nfe=results[0].nfe, passes=results[0].passes)

    def _with_batches(
        self,
        setting: Setting,
        items: Sequence[Item],
        noisy: list[np.ndarray],
        references: list[Tensor | None],
        sources: list[str | None],
        unrelated: list[Tensor | None],
    ) -> Group:
        """The group with a signal for each file, sample and channel, in batches."""
        signals = []
        for item, waveform, reference, other in zip(items, noisy, references, unrelated, strict=True):
            rows = [None] * len(waveform) if reference is None else list(reference.expand(len(waveform), -1))
            against = None if other is None else other[0]
            signals += [
                Signal(torch.from_numpy(channel), rows[place], noise_key(setting.seed, item.name, k, place), against)
                for k in range(self.num_samples)
                for place, channel in enumerate(waveform)
            ]
        weak = self.weak if setting.guidance.guidance == "auto" else None
        batches = [
            encode_batch(self.model, signals[begin : begin + self.batch_size], self.precision, weak)
            for begin in range(0, len(signals), self.batch_size)
        ]
        return Group(list(items), noisy, references, sources, batches)

    def unrelated(self, test_set: TestSet, setting: Setting, item: Item) -> Tensor | None:
        """[1, M]: the reference of another file, where guidance leads away from it."""
        guidance, protocol = setting.guidance, setting.protocol
        if guidance.guidance != "icg" or guidance.scale == 1 or protocol == "none":
            return None
        other = test_set.other_item(item, protocol, setting.seed)
        head = audio.read(other.noisy, self.rate, duration_s=HEAD_S) if protocol in ("estimated", "own_noise") else None
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
    clean = [_read_clean(item) for item in left]
    noisy = [audio.read(item.noisy, metrics.SAMPLE_RATE) for item in left]
    fixed = {"checkpoint": "", "setting": NOISY, "protocol": "none", "sampler": NOISY, "N": 0, "guidance_scale": 1.0}
    fixed |= {"interval": "none"}
    rows = []
    for item, scores in zip(left, score(clean, noisy), strict=True):
        seconds = audio.info(item.noisy).seconds
        costs = {"audio_s": round(seconds, 4), "seconds": 0.0, "nfe": 0, "passes": 0, "is_null": True}
        rows.append({**fixed, "file": item.name, **item.facts, **costs, **_columns(scores)})
    results.add(rows)


def enhance_and_score(
    engine: Engine,
    test_set: TestSet,
    settings: Sequence[Setting],
    results: Results,
    score: Score,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Enhance a scored set under each of `settings` and score it; what is in `results` already is not done again.

    Every file is a row: checkpoint (the hash), setting (`Setting.key`), file, protocol, sampler, N, guidance_scale,
    interval, kind, source, snr_db, audio_s, seconds, nfe, passes, is_null, the main metrics, reason, and `facts`. The
    files of a setting appear in `results` together. References are encoded once for consecutive settings that agree in
    what they need, so keep settings of one protocol together.
    """
    sha = engine.model.checkpoint_sha256
    names = {item.name for item in test_set.items}
    left = [setting for setting in settings if not names <= results.files(sha, setting.key)]
    groups: list[Group] = []
    encoded_for: object = None
    for setting in tqdm(left, desc="settings", unit="setting", disable=None):
        needs: list[object] = [setting.protocol, setting.seed, setting.guidance.guidance]
        needs += [setting.sampler, setting.t_eps] if setting.protocol == "self" else []
        if needs != encoded_for:
            groups, encoded_for = list(engine.encode_groups(test_set, setting)), needs
        if setting is left[0]:
            # what the first call costs (memory, kernels, compiling) must not be charged to a setting
            engine.enhance_group(groups[0], setting)
        found = [enhanced for group in groups for enhanced in engine.enhance_group(group, setting)]
        results.add(_score_rows(engine, setting, found, score, {} if facts is None else facts))


def _score_rows(
    engine: Engine, setting: Setting, found: Sequence[Enhanced], score: Score, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    clean = [_read_clean(enhanced.item) for enhanced in found]
    estimates = [
        audio.to_length(audio.resample(enhanced.waveform, engine.rate, metrics.SAMPLE_RATE), len(own)).mean(axis=0)
        for enhanced, own in zip(found, clean, strict=True)
    ]
    rows = []
    for enhanced, scores in zip(found, score(clean, estimates), strict=True):
        item = enhanced.item
        row: dict[str, Any] = {"checkpoint": engine.model.checkpoint_sha256, "setting": setting.key, "file": item.name}
        row |= {"protocol": setting.protocol, **setting.to_dict(), **item.facts}
        row |= {"audio_s": round(enhanced.noisy.shape[-1] / engine.rate, 4), "seconds": round(enhanced.seconds, 5)}
        row |= {"nfe": enhanced.nfe, "passes": enhanced.passes, "is_null": enhanced.is_null}
        rows.append({**row, **_columns(scores), **facts})
    return rows


def _columns(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in (*MAIN, "reason")}


def _read_clean(item: Item) -> np.ndarray:
    assert item.clean is not None, "the set was opened to be scored"
    return audio.read(item.clean, metrics.SAMPLE_RATE)
