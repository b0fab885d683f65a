"""Several waveforms per network call: which share one, and what comes out for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model.enhancer import Enhancer

MAX_PADDING = 0.05  # of a batch's frames; the network sees it: 37–40 dB (median) from the result alone, at worst 32


class Row(NamedTuple):
    """One waveform: noisy [N], its reference [M] (None: the null), and the key its noise is drawn from.

    unrelated: the reference [M] of another file, where guidance needs one.
    """

    noisy: Tensor
    reference: Tensor | None
    key: str
    unrelated: Tensor | None = None


class RowResult(NamedTuple):
    """waveform [N]; nfe: evaluations of the sampler; passes: of the network; null: the reference said nothing.

    distance: of the reference from those of the training, where guidance adapts to it.
    """

    waveform: Tensor
    nfe: int
    passes: int
    null: bool
    distance: float | None


def buckets(lengths: Sequence[int], rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of files that are enhanced together: the longest first, alike in length, at most `batch_size` rows.

    A file of more rows is alone. With a batch size of 1 the order stays.
    """
    if batch_size == 1:
        return [[index] for index in range(len(lengths))]
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        together = found[-1] if found else []
        fits = together and sum(rows[i] for i in together) + rows[index] <= batch_size
        if fits and lengths[index] >= (1 - MAX_PADDING) * lengths[together[0]]:
            together.append(index)
        else:
            found.append([index])
    return found


def enhance_rows(
    model: Enhancer,
    rows: Sequence[Row],
    batch_size: int,
    guidance: GuidanceSettings,
    sampler: SamplerSettings,
    t_eps: float,
    weak: Enhancer | None = None,
) -> list[RowResult]:
    """Enhance rows, the next `batch_size` of them at a time; the results keep their order."""
    results: list[RowResult] = []
    for begin in range(0, len(rows), batch_size):
        batch = rows[begin : begin + batch_size]
        noisy, length = _padded([row.noisy for row in batch], model.device)
        reference, reference_length = _padded_where([row.reference for row in batch], model.device)
        other, other_length = _padded_where([row.unrelated for row in batch], model.device)
        peak = noisy.abs().amax(dim=-1)
        encoded = model.encode_reference(reference, peak, reference_length, other, other_length, weak)
        noise = FrameNoise([row.key for row in batch])
        done = model.enhance_batch(noisy, encoded, noise, guidance, sampler, t_eps, length)
        distances = [None] * len(batch) if done.distance is None else done.distance.tolist()
        found = zip(done.waveform.cpu(), batch, done.null_reference.tolist(), distances, strict=True)
        for waveform, row, null, distance in found:
            results.append(RowResult(waveform[: len(row.noisy)], done.nfe, done.passes, null, distance))
    return results


def _padded_where(waveforms: Sequence[Tensor | None], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """As `_padded`; an absent one has length 0. None where all are absent."""
    if all(waveform is None for waveform in waveforms):
        return None, None
    return _padded([torch.zeros(0) if waveform is None else waveform for waveform in waveforms], device)


def _padded(waveforms: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """[B, N] with zeros behind the shorter ones, and their lengths [B]."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms], device=device)
    return pad_sequence(list(waveforms), batch_first=True).to(device), lengths
