"""Writes what comes out for a recording, at its own rate, length and format: whole, or as a stream of parts.

Where several samples are drawn, it measures how far they disagree: where they do, the model invents. The measure is the
standard deviation over samples of the compressed magnitude |s|^α, relative to the root mean square of its mean over
samples. 0: every sample is the same. Measured after 300 steps of the cpu preset with bridge_sde in 3 steps, 4 samples:
0.14–0.17 for clean speech, 0.15–0.23 at 10 dB, 0.20–0.27 at 0 dB, up to 0.32 at −15 dB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmse.common.progress import track
from sgmse.data import audio
from sgmse.data.references import HEAD_S
from sgmse.diffusion.guidance import EncodedReference, GuidanceSettings
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.enhancement.engine import Enhanced, to_rows
from sgmse.enhancement.request import Request
from sgmse.enhancement.signals import autocast, noise_key
from sgmse.enhancement.test_set import Item
from sgmse.model import enhancer
from sgmse.model.chunking import Span, cut_parts, join_parts

Row = dict[str, Any]


def compare_samples(transform: SpectrogramTransform, samples: Tensor) -> tuple[Tensor, Tensor]:
    """How far samples [K, C, n] disagree: their standard deviation [F, T], averaged over channels, for a picture.

    Also returns the sums [2] over frames and bins of variance and power, for `disagreement`; sums of parts add up.
    """
    magnitude = transform(samples.flatten(0, 1)).abs().squeeze(1).unflatten(0, samples.shape[:2])
    variance, power = magnitude.var(dim=0, correction=1).mean(dim=0), magnitude.mean(dim=0).square().mean(dim=0)
    deviation = variance.sqrt() / power.mean().sqrt().clamp_min(torch.finfo(power.dtype).tiny)
    return deviation, torch.stack([variance.sum(), power.sum()]).cpu()


def disagreement(sums: Tensor) -> float:
    """The measure out of the sums [2] of a recording; 0 for silence."""
    variance, power = sums.tolist()
    return (variance / power) ** 0.5 if power > 0 else 0.0


def write_whole(request: Request, enhanced: Enhanced) -> Row:
    """Write an enhanced file, and the picture of its samples' disagreement. Returns its columns of the table."""
    item, engine, output = enhanced.item, request.engine, request.output(enhanced.item.name)
    info, rate, spread = audio.info(item.noisy), engine.rate, None
    if request.config.keep_highband and info.sample_rate > rate:
        original = np.atleast_2d(audio.read(item.noisy, None, mono=engine.mix))
        change = audio.resample(enhanced.waveform - enhanced.noisy, rate, info.sample_rate)
        # an MP3 may hold a little less than its header says
        waveform = audio.to_length(original, info.num_frames) + audio.to_length(change, info.num_frames)
    else:
        waveform = audio.to_length(audio.resample(enhanced.waveform, rate, info.sample_rate), info.num_frames)
    one_or_all = waveform[0] if len(waveform) == 1 else waveform
    peak = audio.write(output, one_or_all, info.sample_rate, _subtype(info, output))
    seconds = enhanced.noisy.shape[-1] / rate
    if engine.num_samples > 1:
        from sgmse.evaluation.figures import draw_disagreement  # matplotlib takes a second to load

        deviation, sums = compare_samples(engine.model.transform, enhanced.samples.to(engine.model.device))
        picture = request.out_dir / "disagreement" / f"{item.name}.png"
        draw_disagreement(deviation.cpu().numpy(), seconds, rate, picture)
        spread = disagreement(sums)
    row = {"audio_s": seconds, "peak": peak, "disagreement": spread, "distances": enhanced.distances}
    row |= {"nfe": enhanced.nfe, "passes": enhanced.passes}
    return row | {"reference": enhanced.source, "is_null": enhanced.is_null}


def write_in_parts(request: Request, item: Item) -> Row:
    """Enhance and write a recording of any length in the memory of one part. Returns its columns of the table.

    It has one normalisation and one encoded reference for all of it; nfe and passes are those of one part.
    """
    engine, model, info = request.engine, request.engine.model, audio.info(item.noisy)
    peaks, length = _scan(audio.read_blocks(item.noisy, engine.rate, engine.mix))
    peak, spans = peaks.to(model.device), engine.chunks.spans(length)
    keeps = request.config.keep_highband and info.sample_rate > engine.rate
    with autocast(model.device, engine.precision):
        row, reference = _make_reference(request, item, peak)
        waveform, other = (
            None if rows is None else rows.to(peak.device).expand(len(peak), -1)
            for rows in (reference, engine.unrelated(request.test_set, request.setting, item))
        )
        encoded = model.encode_reference(waveform, peak, unrelated=other, weak=engine.weak)
        noisy = cut_parts(audio.read_blocks(item.noisy, engine.rate, engine.mix), spans)
        parts = _enhance_parts(request, item, zip(noisy, spans, strict=True), encoded, keeps, row)
        enhanced = join_parts(track(parts, len(spans), item.noisy.name, "part"), spans, engine.chunks.overlap)
        blocks = _cut_or_pad(audio.resample_blocks(enhanced, len(peak), engine.rate, info.sample_rate), info.num_frames)
        if keeps:
            original = _cut_or_pad(audio.read_blocks(item.noisy, None, engine.mix), info.num_frames)
            blocks = _add_streams(original, blocks)
        output = request.output(item.name)
        written = audio.write_blocks(output, blocks, info.sample_rate, len(peak), _subtype(info, output))
    return row | {"audio_s": info.seconds, "peak": written, "is_null": bool(encoded.is_null.any())}


def _enhance_parts(
    request: Request,
    item: Item,
    parts: Iterable[tuple[np.ndarray, Span]],
    reference: EncodedReference,
    difference: bool,
    row: Row,
) -> Iterator[np.ndarray]:
    """Parts [C, n] → the mean of their samples [C, n], or by how much that differs from the input.

    The last part leaves in `row` what it cost, all samples, besides what the reference did.
    """
    engine, before, sums = request.engine, dict(row), torch.zeros(2)
    for part, (start, _) in parts:
        window = torch.from_numpy(part).to(reference.peak.device)
        guidance = request.setting.guidance
        samples = [
            _enhance_part(request, item, window, start, reference, guidance, k) for k in range(engine.num_samples)
        ]
        row |= {name: before[name] + sum(getattr(sample, name) for sample in samples) for name in ("nfe", "passes")}
        distance, waveforms = samples[0].distance, torch.stack([sample.waveform for sample in samples])
        row["distances"] = [] if distance is None else distance.tolist()
        if len(samples) > 1:
            sums += compare_samples(engine.model.transform, waveforms)[1]
            row["disagreement"] = disagreement(sums)
        mean = waveforms[0] if len(samples) == 1 else waveforms.mean(dim=0)
        yield (mean - window if difference else mean).cpu().numpy()


def _enhance_part(
    request: Request,
    item: Item,
    window: Tensor,
    start: int,
    reference: EncodedReference,
    guidance: GuidanceSettings,
    sample: int = 0,
) -> enhancer.Enhanced:
    """One sample of a part [C, n] that begins at `start`; parts draw the same noise where they overlap."""
    setting = request.setting
    keys = [noise_key(setting.seed, item.name, sample, channel) for channel in range(len(window))]
    noise = FrameNoise(keys, start // request.engine.chunks.hop)
    return request.engine.model.enhance_batch(window, reference, noise, guidance, setting.sampler, setting.t_eps)


def _make_reference(request: Request, item: Item, peak: Tensor) -> tuple[Row, Tensor | None]:
    """What the reference is and cost, and its waveform [C or 1, M] at the model's rate; None: the null.

    As for whole recordings, but what is made from the recording itself comes from its beginning.
    """
    engine, setting = request.engine, request.setting
    row: Row = {"disagreement": None, "nfe": 0, "passes": 0}
    if setting.protocol != "self":
        head = audio.read(item.noisy, engine.rate, duration_s=HEAD_S)
        found = request.test_set.reference(item, setting.protocol, engine.rate, setting.seed, head)
        return row | {"reference": found.source}, to_rows(found.waveform)
    seconds = engine.chunks.size / engine.rate
    first_part = np.atleast_2d(audio.read(item.noisy, engine.rate, duration_s=seconds, mono=engine.mix))
    window = torch.from_numpy(first_part).to(peak.device)
    null = engine.model.encode_reference(None, peak)
    first = _enhance_part(request, item, window, 0, null, GuidanceSettings())
    row |= {"reference": "self", "nfe": first.nfe, "passes": first.passes}
    return row, window - first.waveform


def _subtype(info: audio.AudioInfo, output: Path) -> str | None:
    """The sample format of the input; None, the usual one, where a compressed file becomes a WAV."""
    return None if info.is_lossy and output.suffix.lower() == ".wav" else info.subtype


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
