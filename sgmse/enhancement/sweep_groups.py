"""The files of a test set in groups, with their references encoded; and one cell of the sweep for one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sgmse.data import audio
from sgmse.diffusion.guidance import EncodedReference
from sgmse.diffusion.noise import FrameNoise
from sgmse.enhancement.acceleration import Precision, autocast
from sgmse.enhancement.old.settings import Cell
from sgmse.enhancement.old.test_set import Files
from sgmse.evaluation import metrics
from sgmse.model.enhancer import Enhanced, Enhancer


@dataclass(frozen=True)
class Group:
    """Files of equally many spectrogram frames, enhanced as one batch.

    Args:
        names: of the files, below noisy/.
        noisy: [B, N] at the model's rate. length [B]: samples of each.
        reference: encoded.
        clean: waveforms [N] at the rate of the metrics.
    """

    names: list[str]
    noisy: Tensor
    length: Tensor
    reference: EncodedReference
    clean: list[np.ndarray]


@torch.no_grad()
def grouped(model: Enhancer, files: Files, batch_size: int) -> list[Group]:
    """Up to `batch_size` files of equally many frames (after padding) each, so that no file pads another's spectrogram.

    Results then equal those of the files alone up to rounding: each is transformed and padded on its own, and draws
    noise of its own. Every reference is encoded here, once.
    """
    rate, transform = model.settings["sample_rate"], model.transform
    multiple = model.backbone.frame_multiple
    noisy = [torch.from_numpy(audio.read(job.noisy, rate)) for job in files.jobs]
    frames = [-(-(len(waveform) // transform.hop_length + 1) // multiple) for waveform in noisy]
    groups = []
    for count in sorted(set(frames)):
        alike = [i for i, own in enumerate(frames) if own == count]
        groups += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    return [_group(model, files, members, noisy) for members in groups]


def _group(model: Enhancer, files: Files, members: Sequence[int], noisy: Sequence[Tensor]) -> Group:
    jobs, rate = [files.jobs[i] for i in members], model.settings["sample_rate"]
    waveforms = pad_sequence([noisy[i] for i in members], batch_first=True).to(model.device)
    peak = waveforms.abs().amax(dim=-1)
    found = [None if job.reference is None else audio.read(job.reference, rate) for job in jobs]
    return Group(
        [files.names[i] for i in members],
        waveforms,
        torch.tensor([len(noisy[i]) for i in members]),
        encode_references(model, peak, found),
        [audio.read(files.clean[i], metrics.SAMPLE_RATE) for i in members],
    )


@torch.no_grad()
def encode_references(model: Enhancer, peak: Tensor, references: Sequence[np.ndarray | None]) -> EncodedReference:
    """References [M] at the model's rate (None: the null) of files with these peaks [B], encoded."""
    found = [torch.zeros(1) if reference is None else torch.from_numpy(reference) for reference in references]
    length = torch.tensor([len(reference) for reference in found], device=model.device)
    return model.encode_reference(pad_sequence(found, batch_first=True).to(model.device), peak, length)


def enhance(model: Enhancer, group: Group, cell: Cell, t_eps: float, seed: int, precision: Precision) -> Enhanced:
    """One cell for one group. For each mono file it is what the enhancement command makes with these settings.

    Every cell draws the same noise for a file, a function of `seed` and its name.
    """
    noise = FrameNoise([f"{seed} {Path(name).name} 0 0" for name in group.names])
    with autocast(model.device, precision):
        return model.enhance_batch(
            group.noisy, group.reference, noise, cell.guidance, cell.sampler, t_eps, group.length
        )


def at_metric_rate(model: Enhancer, group: Group, waveform: Tensor) -> list[np.ndarray]:
    """Waveforms [B, N] of a group at the model's rate → each at the rate of the metrics, as long as its clean one."""
    found = []
    rows, lengths = waveform.float().cpu().numpy(), group.length.tolist()
    for row, length, clean in zip(rows, lengths, group.clean, strict=True):
        resampled = audio.resample(row[:length], model.settings["sample_rate"], metrics.SAMPLE_RATE)
        found.append(audio.to_length(resampled[None], len(clean))[0])
    return found
