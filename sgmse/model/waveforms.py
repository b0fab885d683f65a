"""Waveforms on their way into the model and out of it: batches of unequal lengths, and what Python code may hand in."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.references import HEAD_S
from sgmse.diffusion.transform import PadMode, SpectrogramTransform, pad_frames


def to_spectrograms(
    transform: SpectrogramTransform, waveform: Tensor, lengths: Sequence[int], multiple: int, pad_mode: PadMode
) -> tuple[Tensor, list[int]]:
    """Padded waveforms [B, N] → spectrograms [B, 1, F, T] and the frames of each, as many as it has alone.

    Each item is transformed and padded to a `multiple` of frames as if it were alone. Up to the longest follow frames
    from all over the item: the network's normalisation sees them, and so changes less than with zeros.
    """
    if min(lengths) == max(lengths):
        y = pad_frames(transform(waveform[:, : lengths[0]]), multiple, pad_mode)
        return y, [y.shape[-1]] * len(lengths)
    items = [
        pad_frames(transform(row[None, :length]), multiple, pad_mode)
        for row, length in zip(waveform, lengths, strict=True)
    ]
    frames = [item.shape[-1] for item in items]
    filled = []
    for item in items:
        missing = max(frames) - item.shape[-1]
        places = torch.linspace(0, item.shape[-1] - 1, missing, device=item.device).long()
        filled.append(torch.cat([item, item[..., places]], dim=-1))
    return torch.cat(filled), frames


def to_waveforms(
    transform: SpectrogramTransform, spectrogram: Tensor, frames: Sequence[int], lengths: Sequence[int]
) -> Tensor:
    """The inverse of `to_spectrograms`: [B, 1, F, T] → waveforms [B, N], zero beyond the length of each."""
    if min(lengths) == max(lengths):
        return transform.inverse(spectrogram, lengths[0])
    rows = [
        transform.inverse(item[None, ..., :count], length)[0]
        for item, count, length in zip(spectrogram, frames, lengths, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def to_array(waveform: np.ndarray | Tensor, name: str, sr: int) -> np.ndarray:
    """float32 on the CPU. Raises `UserError` for another shape than [N] or [C, N], integers, NaN, or a rate below 1."""
    if isinstance(waveform, Tensor):  # numpy knows no bfloat16
        waveform = (waveform.float() if waveform.is_floating_point() else waveform).detach().cpu().numpy()
    array = np.asarray(waveform)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} holds values of type {array.dtype}; convert them to floating point")
    if array.ndim not in (1, 2) or not array.size:
        raise UserError(f"{name} has the shape {list(array.shape)}; give [N] or [C, N]")
    with np.errstate(over="ignore"):  # what 32 bit cannot hold becomes Inf
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN, Inf or values beyond 32 bit; remove them")
    if not isinstance(sr, numbers.Real) or not 1 <= sr < np.inf:
        raise UserError(f"the rate of {name} is {sr} Hz; give its samples per second")
    return array


def read_reference(noise_ref: np.ndarray | Tensor | str | Path, sr: int, rate: int, n_fft: int) -> Tensor:
    """A recording of noise [M] at the rate `sr`, or a file, which knows its own → [1, M] at `rate`.

    Raises `UserError` for what is no single recording, or less than one frame of the transform.
    """
    if isinstance(noise_ref, str | Path):
        reference = audio.read(noise_ref, rate, duration_s=HEAD_S)
    else:
        array = to_array(noise_ref, "noise_ref", sr)
        if array.ndim != 1:
            raise UserError(f"noise_ref has the shape {list(array.shape)}; give one recording [M]")
        reference = audio.resample(array[: round(HEAD_S * sr)], sr, rate)
    if len(reference) < n_fft:
        raise too_short("noise_ref", n_fft, rate)
    return torch.from_numpy(reference)[None]


def too_short(name: str, n_fft: int, rate: int) -> UserError:
    """What to say about less than one frame of the transform."""
    return UserError(f"{name} is shorter than one frame ({n_fft / rate * 1000:.0f} ms); give a longer one")


def check_parts(chunk_s: float, overlap_s: float) -> None:
    """Raise `UserError` for parts that cannot be joined."""
    for name, value in (("chunk_s", chunk_s), ("overlap_s", overlap_s)):
        if not isinstance(value, numbers.Real) or not np.isfinite(value):
            raise UserError(f"{name} {value} is no finite number; give seconds")
    if chunk_s < 0 or (chunk_s and not 0 < overlap_s < chunk_s):
        raise UserError(
            f"chunk_s {chunk_s:g} and overlap_s {overlap_s:g} do not fit; the overlap must be more than 0 and less "
            "than the chunk"
        )
