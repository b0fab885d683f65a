"""Waveforms in memory → enhanced waveforms: which share a network call, and what drives their noise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sgmse.common.machine import check_compiler
from sgmse.diffusion.guidance import EncodedReference
from sgmse.diffusion.noise import FrameNoise
from sgmse.enhancement.settings import Setting
from sgmse.model.chunking import Chunks, join_parts
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

Precision = Literal["32", "bf16-mixed"]


class Signal(NamedTuple):
    """One waveform: noisy [N], its reference [M] (None: the null), and the key that its noise is drawn from.

    unrelated: the reference [M] of another file, where guidance needs one.
    """

    noisy: Tensor
    reference: Tensor | None
    key: str
    unrelated: Tensor | None = None


class EnhancedSignal(NamedTuple):
    """waveform [N]; nfe: evaluations of the sampler; passes: of the network; is_null: the reference said nothing.

    distance: of the reference from those of the training, where guidance adapts to it.
    """

    waveform: Tensor
    nfe: int
    passes: int
    is_null: bool
    distance: float | None


@dataclass(frozen=True)
class Batch:
    """Signals that share network calls: noisy [B, N], samples of each [B], references encoded once for all settings."""

    keys: list[str]
    noisy: Tensor
    length: Tensor
    reference: EncodedReference


def noise_key(seed: int, name: str, sample: int = 0, channel: int = 0) -> str:
    """What the sampling noise of a waveform is drawn from, in every pass and under every setting.

    name: the path of its file below the folder of the noisy files, so that equal names in different folders differ.
    """
    return f"{seed} {name} {sample} {channel}"


def group_by_frames(
    model: Enhancer, lengths: Sequence[int], rows: Sequence[int] | None, batch_size: int
) -> list[list[int]]:
    """Places of files that share network calls: those of equally many frames, so that no file pads another.

    Results then equal those of a file alone up to rounding: each is transformed and padded on its own, and draws noise
    of its own.

    Args:
        lengths: samples of each file.
        rows: network rows of each file (channels × samples); None: one. A file of more than `batch_size` is alone.
    """
    rows = [1] * len(lengths) if rows is None else rows
    alike: dict[int, list[list[int]]] = {}
    for place, length in enumerate(lengths):
        frames = -(-(length // model.transform.hop_length + 1) // model.backbone.frame_multiple)  # padded, in multiples
        groups = alike.setdefault(frames, [[]])
        if groups[-1] and sum(rows[i] for i in groups[-1]) + rows[place] > batch_size:
            groups.append([])
        groups[-1].append(place)
    return [group for frames in sorted(alike) for group in alike[frames]]


def encode_batch(
    model: Enhancer, signals: Sequence[Signal], precision: Precision = "32", weak: Enhancer | None = None
) -> Batch:
    """Encode the references of signals that share network calls. weak: the model that guidance leads away from."""
    noisy, length = _pad([signal.noisy for signal in signals], model.device)
    reference, reference_length = _pad([signal.reference for signal in signals], model.device)
    other, other_length = _pad([signal.unrelated for signal in signals], model.device)
    assert noisy is not None
    assert length is not None
    peak = noisy.abs().amax(dim=-1)
    with autocast(model.device, precision):
        encoded = model.encode_reference(reference, peak, reference_length, other, other_length, weak)
    return Batch([signal.key for signal in signals], noisy, length, encoded)


def enhance_batch(
    model: Enhancer, batch: Batch, setting: Setting, precision: Precision = "32", chunks: Chunks | None = None
) -> list[EnhancedSignal]:
    """Enhance a batch under one setting; the results are on the CPU.

    chunks: the parts of long waveforms (None: those of `usual_chunks`), which must be of one length in a batch. Parts
    share peak and reference; nfe and passes are those of one part.
    """
    chunks = chunks or usual_chunks(model)
    spans, parts, length = chunks.spans(batch.noisy.shape[-1]), [], batch.length
    for start, end in spans:
        noise = FrameNoise(batch.keys, start // chunks.hop)  # parts draw the same noise where they overlap
        own = length if len(spans) == 1 else torch.full_like(length, end - start)
        with autocast(model.device, precision):
            found = model.enhance_batch(
                batch.noisy[:, start:end],
                batch.reference,
                noise,
                setting.guidance,
                setting.sampler,
                setting.t_eps,
                own,
            )
        parts.append(found.waveform.cpu())
    if len(parts) > 1:
        joined = np.concatenate(list(join_parts([part.numpy() for part in parts], spans, chunks.overlap)), axis=-1)
        parts = [torch.from_numpy(joined)]
    distances = [None] * len(batch.keys) if found.distance is None else found.distance.tolist()
    rows = zip(parts[0], length.tolist(), found.null_reference.tolist(), distances, strict=True)
    return [
        EnhancedSignal(waveform[:length], found.nfe, found.passes, is_null, distance)
        for waveform, length, is_null, distance in rows
    ]


def usual_chunks(model: Enhancer) -> Chunks:
    """The parts of long recordings where nobody chooses others."""
    usual, settings = EnhanceConfig(), model.settings
    rate, hop, multiple = settings["sample_rate"], settings["hop_length"], model.backbone.frame_multiple
    return Chunks.from_seconds(usual.chunk_s, usual.overlap_s, rate, hop, multiple)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which networks compute in bfloat16 where that is safe; spectrograms stay in 32 bit."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def compile_network(model: Enhancer) -> None:
    """Compile the network at its next call. Raises `UserError` where the compiler is missing."""
    check_compiler(model.device.type)
    model.backbone.compile()


def _pad(waveforms: Sequence[Tensor | None], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """[B, N] with zeros behind the shorter ones, and their lengths [B]; absent ones have length 0. None: all absent."""
    if all(waveform is None for waveform in waveforms):
        return None, None
    present = [torch.zeros(0) if waveform is None else waveform for waveform in waveforms]
    lengths = torch.tensor([len(waveform) for waveform in present], device=device)
    return pad_sequence(present, batch_first=True).to(device), lengths
