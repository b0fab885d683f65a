"""A recording of any length in the memory of one part: read, enhanced and written as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.data import audio, streams
from sgmse.diffusion.guidance import EncodedReference, GuidanceSettings
from sgmse.diffusion.noise import FrameNoise
from sgmse.enhancement.disagreement import Disagreement
from sgmse.enhancement.engine import HEAD_S, Engine, to_rows
from sgmse.enhancement.recordings import subtype_of
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import autocast, noise_key
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.model.chunking import Chunks, Span, cut_parts, join_parts
from sgmse.model.enhancer import Enhanced


class LongResult(NamedTuple):
    """What became of a recording: cost of one part, all samples; the peak written; see `engine.Enhanced`."""

    source: str | None
    nfe: int
    passes: int
    peak: float
    is_null: bool
    distance: float | None
    disagreement: float | None


class _Reference(NamedTuple):
    """waveform: [C or 1, M] at the model's rate, None: the null. nfe, passes: what it cost."""

    waveform: Tensor | None
    source: str | None
    nfe: int = 0
    passes: int = 0


def enhance_long(
    engine: Engine, test_set: TestSet, setting: Setting, item: Item, output: Path, chunks: Chunks, keep_highband: bool
) -> LongResult:
    """Enhance a recording part by part, with one normalisation and one encoded reference for all of it."""
    info, model = audio.info(item.noisy), engine.model
    peaks, length = _scan(streams.read(item.noisy, engine.rate, engine.mix))
    peak = peaks.to(model.device)
    parts = _Parts(engine, setting, item, chunks, length)
    with autocast(model.device, engine.precision):
        reference = _make_reference(parts, test_set, peak)
        waveform, other = (
            None if rows is None else rows.to(peak.device).expand(len(peak), -1)
            for rows in (reference.waveform, engine.unrelated(test_set, setting, item))
        )
        encoded = model.encode_reference(waveform, peak, unrelated=other, weak=engine.weak)
        keeps = keep_highband and info.sample_rate > engine.rate
        noisy = cut_parts(streams.read(item.noisy, engine.rate, engine.mix), parts.spans)
        enhanced = join_parts(parts.enhance_all(noisy, encoded, difference=keeps), parts.spans, chunks.overlap)
        blocks = streams.resampled(enhanced, len(peak), engine.rate, info.sample_rate)
        blocks = _cut_or_pad(blocks, info.num_frames)
        if keeps:
            blocks = _add_streams(streams.read(item.noisy, None, engine.mix), blocks)
        written = streams.write(output, blocks, info.sample_rate, len(peak), subtype_of(info, output))
    distance = None if parts.distance is None else parts.distance.mean().item()
    disagreement = parts.disagreement.value if engine.num_samples > 1 else None
    nfe, passes = reference.nfe + parts.nfe, reference.passes + parts.passes
    return LongResult(reference.source, nfe, passes, written, bool(encoded.is_null.any()), distance, disagreement)


class _Parts:
    """Enhances the parts of one recording and keeps what they cost: nfe and passes of one part, all samples."""

    def __init__(self, engine: Engine, setting: Setting, item: Item, chunks: Chunks, length: int) -> None:
        self.engine, self.setting, self.item, self.chunks = engine, setting, item, chunks
        self.spans: list[Span] = chunks.spans(length)
        self.disagreement = Disagreement(engine.model.transform)
        self.nfe = self.passes = 0
        self.distance: Tensor | None = None

    def enhance_all(
        self, noisy: Iterable[np.ndarray], reference: EncodedReference, difference: bool
    ) -> Iterator[np.ndarray]:
        """Parts [C, n] → the mean of their samples [C, n], or by how much that differs from the input."""
        numbered = zip(noisy, self.spans, strict=True)
        for part, (start, _) in tqdm(numbered, total=len(self.spans), desc=self.item.noisy.name, leave=False):
            window = torch.from_numpy(part).to(reference.peak.device)
            samples = [
                self.enhance(window, start, reference, self.setting.guidance, k) for k in range(self.engine.num_samples)
            ]
            self.nfe, self.passes = sum(s.nfe for s in samples), sum(s.passes for s in samples)
            self.distance = samples[0].distance
            waveforms = torch.stack([sample.waveform for sample in samples])
            if len(samples) > 1:
                self.disagreement.add(waveforms)
            mean = samples[0].waveform if len(samples) == 1 else waveforms.mean(dim=0)
            yield (mean - window if difference else mean).cpu().numpy()

    def enhance(
        self, window: Tensor, start: int, reference: EncodedReference, guidance: GuidanceSettings, sample: int = 0
    ) -> Enhanced:
        """One sample of a part [C, n] that begins at `start`; parts draw the same noise where they overlap."""
        seed, name = self.setting.seed, self.item.name
        keys = [noise_key(seed, name, sample, channel) for channel in range(len(window))]
        noise = FrameNoise(keys, start // self.chunks.hop)
        sampler, t_eps = self.setting.sampler, self.setting.t_eps
        return self.engine.model.enhance_batch(window, reference, noise, guidance, sampler, t_eps)


def _make_reference(parts: _Parts, test_set: TestSet, peak: Tensor) -> _Reference:
    """As for short recordings, but what is made from the recording itself comes from its beginning."""
    engine, setting, item = parts.engine, parts.setting, parts.item
    if setting.protocol != "self":
        head = audio.read(item.noisy, engine.rate, duration_s=HEAD_S)
        found = test_set.reference(item, setting.protocol, engine.rate, setting.seed, head)
        return _Reference(to_rows(found.waveform), found.source)
    seconds = parts.chunks.size / engine.rate
    first_part = np.atleast_2d(audio.read(item.noisy, engine.rate, duration_s=seconds, mono=engine.mix))
    window = torch.from_numpy(first_part).to(peak.device)
    first = parts.enhance(window, 0, engine.model.encode_reference(None, peak), GuidanceSettings())
    return _Reference(window - first.waveform, "self", first.nfe, first.passes)


def _scan(blocks: Iterable[np.ndarray]) -> tuple[Tensor, int]:
    """The peak of each channel [C] and the length of consecutive blocks [C, n]."""
    peak, length = np.zeros(1, np.float32), 0
    for block in blocks:
        peak = np.maximum(peak, np.abs(block).max(axis=1, initial=0.0))
        length += block.shape[-1]
    return torch.from_numpy(peak), length


def _cut_or_pad(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The first `length` samples; zeros at the end where resampling there and back missed some."""
    left, channels = length, 1
    for block in blocks:
        channels = len(block)
        yield block[:, :left]
        left -= min(left, block.shape[-1])
    if left:
        yield np.zeros((channels, left), np.float32)


def _add_streams(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The sum of two streams of equal length whose blocks differ in length."""
    source = iter(first)
    held = next(source)
    for block in second:
        while held.shape[-1] < block.shape[-1]:
            held = np.concatenate([held, next(source)], axis=-1)
        yield held[:, : block.shape[-1]] + block
        held = held[:, block.shape[-1] :]
