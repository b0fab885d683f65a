"""A recording of any length in the memory of one part: read, enhanced and written as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.data import audio, streams
from sgmse.diffusion.guidance import EncodedReference, GuidanceSettings
from sgmse.diffusion.noise import FrameNoise
from sgmse.enhancement.disagreement import Disagreement
from sgmse.enhancement.old.test_set import Job
from sgmse.enhancement.recordings import HEAD_S, Done, Reference, Work, kept_subtype, mean_of, recorded, unrelated
from sgmse.model.chunking import Span, cut_parts, join_parts
from sgmse.model.enhancer import Enhanced


def enhance_long(work: Work, job: Job) -> Done:
    """Enhance a recording part by part, with one normalisation and one encoded reference for all of it."""
    info = audio.info(job.noisy)
    peaks, length = _scan(streams.read(job.noisy, work.rate, work.mix))
    peak = peaks.to(work.model.device)
    spans = work.chunks.spans(length)
    reference = _reference(work, job, peak)
    waveform = reference.waveform
    waveform = None if waveform is None else waveform.to(peak.device).expand(len(peak), -1)
    other = unrelated(work, job)
    other = None if other is None else other.to(peak.device).expand(len(peak), -1)
    encoded = work.model.encode_reference(waveform, peak, unrelated=other, weak=work.guidance.weak)
    parts = _Parts(work, job, spans, encoded)
    noisy = cut_parts(streams.read(job.noisy, work.rate, work.mix), spans)
    keeps = work.keeps_highband(info)
    enhanced = join_parts(parts.enhanced(noisy, difference=keeps), spans, work.chunks.overlap)
    blocks = streams.resampled(enhanced, len(peak), work.rate, info.sample_rate)
    blocks = _exactly(blocks, info.num_frames)
    if keeps:
        blocks = _added(streams.read(job.noisy, None, work.mix), blocks)
    written = streams.write(job.output, blocks, info.sample_rate, len(peak), kept_subtype(info, job.output))
    nfe, passes = reference.nfe + parts.nfe, reference.passes + parts.passes
    distance = None if parts.distance is None else parts.distance.mean().item()
    disagreement = parts.disagreement.value if work.config.num_samples > 1 else None
    return Done(info.seconds, nfe, passes, written, bool(encoded.is_null.any()), reference.name, disagreement, distance)


class _Parts:
    """Enhances the parts of one recording and keeps what they cost: nfe and passes of one part, all samples."""

    def __init__(self, work: Work, job: Job, spans: list[Span], reference: EncodedReference) -> None:
        self.work, self.job, self.spans, self.reference = work, job, spans, reference
        self.disagreement = Disagreement(work.model.transform)
        self.nfe = self.passes = 0
        self.distance: Tensor | None = None

    def enhanced(self, noisy: Iterable[np.ndarray], difference: bool) -> Iterator[np.ndarray]:
        """Parts [C, n] → the mean of their samples [C, n], or by how much that differs from the input."""
        numbered = zip(noisy, self.spans, strict=True)
        for part, (start, _) in tqdm(numbered, total=len(self.spans), desc=self.job.noisy.name, leave=False):
            window = torch.from_numpy(part).to(self.reference.peak.device)
            samples = [self._sample(window, start, k) for k in range(self.work.config.num_samples)]
            self.nfe, self.passes = sum(s.nfe for s in samples), sum(s.passes for s in samples)
            self.distance = samples[0].distance
            waveforms = [sample.waveform for sample in samples]
            if len(waveforms) > 1:
                self.disagreement.add(torch.stack(waveforms))
            mean = mean_of(waveforms)
            yield (mean - window if difference else mean).cpu().numpy()

    def _sample(self, window: Tensor, start: int, sample: int) -> Enhanced:
        return enhance_part(self.work, self.job, window, start, self.reference, self.work.guidance.settings, sample)


def enhance_part(
    work: Work,
    job: Job,
    window: Tensor,
    start: int,
    reference: EncodedReference,
    guidance: GuidanceSettings,
    sample: int = 0,
) -> Enhanced:
    """One sample of a part [C, n] that begins at `start`; parts draw the same noise where they overlap."""
    noise = FrameNoise(work.keys(job, len(window), sample), start // work.chunks.hop)
    return work.model.enhance_batch(window, reference, noise, guidance, work.sampler, work.t_eps)


def _reference(work: Work, job: Job, peak: Tensor) -> Reference:
    """As for short recordings, but what is made from the recording itself comes from its beginning."""
    if work.protocol != "self":
        return recorded(work, job, audio.read(job.noisy, work.rate, duration_s=HEAD_S))
    seconds = work.chunks.size / work.rate
    head = torch.from_numpy(np.atleast_2d(audio.read(job.noisy, work.rate, duration_s=seconds, mono=work.mix)))
    head = head.to(peak.device)
    first = enhance_part(work, job, head, 0, work.model.encode_reference(None, peak), GuidanceSettings())
    return Reference(head - first.waveform, "self", first.nfe, first.passes)


def _scan(blocks: Iterable[np.ndarray]) -> tuple[Tensor, int]:
    """The peak of each channel [C] and the length of consecutive blocks [C, n]."""
    peak, length = np.zeros(1, np.float32), 0
    for block in blocks:
        peak = np.maximum(peak, np.abs(block).max(axis=1, initial=0.0))
        length += block.shape[-1]
    return torch.from_numpy(peak), length


def _exactly(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The first `length` samples; zeros at the end where resampling there and back missed some."""
    left, channels = length, 1
    for block in blocks:
        channels = len(block)
        yield block[:, :left]
        left -= min(left, block.shape[-1])
    if left:
        yield np.zeros((channels, left), np.float32)


def _added(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The sum of two streams of equal length whose blocks differ in length."""
    source = iter(first)
    held = next(source)
    for block in second:
        while held.shape[-1] < block.shape[-1]:
            held = np.concatenate([held, next(source)], axis=-1)
        yield held[:, : block.shape[-1]] + block
        held = held[:, block.shape[-1] :]
