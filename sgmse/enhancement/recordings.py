"""One recording to enhance: reading it, its noise reference, and writing what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.references.estimated import estimated
from sgmse.diffusion.noise import seed_of
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.guided import RunGuidance
from sgmse.enhancement.old.lookup import Protocol
from sgmse.enhancement.old.test_set import Job
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

HEAD_S = 120.0  # of a recording that is enhanced in parts, its own reference is made from so much of its beginning


@dataclass(frozen=True)
class Work:
    """What is the same for all recordings of a run. chunks: the parts of long ones."""

    model: Enhancer
    sampler: SamplerSettings
    t_eps: float
    guidance: RunGuidance
    config: EnhanceConfig
    protocol: Protocol
    chunks: Chunks

    @property
    def rate(self) -> int:
        rate: int = self.model.settings["sample_rate"]
        return rate

    @property
    def mix(self) -> bool:
        return self.config.channels == "mix"

    def keys(self, job: Job, channels: int, sample: int = 0) -> list[str]:
        """What the noise of each channel is drawn from: every pass of a file draws the same."""
        return [f"{self.config.seed} {job.output.name} {sample} {channel}" for channel in range(channels)]

    def channels(self, info: audio.AudioInfo) -> int:
        return 1 if self.mix else info.channels

    def keeps_highband(self, info: audio.AudioInfo) -> bool:
        return self.config.keep_highband and info.sample_rate > self.rate


class Done(NamedTuple):
    """What became of one file: length, cost, peak, whether its reference was the null, and what the reference was.

    distance: of the reference from those of the training, where guidance adapts to it.
    """

    seconds: float
    nfe: int
    passes: int
    peak: float
    null: bool
    reference: str | None
    disagreement: float | None
    distance: float | None


class Reference(NamedTuple):
    """waveform: [C or 1, M] at the model's rate, None: the null. nfe, passes: what it cost. name: for the ledger."""

    waveform: Tensor | None
    name: str | None = None
    nfe: int = 0
    passes: int = 0


def recorded(work: Work, job: Job, mono: np.ndarray) -> Reference:
    """The reference of a recording under every protocol but `self`; `mono` [N]: its channels' average, or its head."""
    if work.protocol == "estimated":
        estimate = estimated(mono, work.rate, seed_of(f"{work.config.seed} {job.output.name}"))
        return Reference(_row(estimate.reference), estimate.way)
    if job.reference is None:
        return Reference(None)
    if work.protocol != "own_noise":
        return Reference(_row(audio.read(job.reference, work.rate)), str(job.reference.resolve()))
    clean = audio.read(job.reference, work.rate, duration_s=len(mono) / work.rate)
    if len(clean) != len(mono):
        raise UserError(f"{job.reference}: is {len(clean)} samples long, its noisy file {len(mono)}; check it")
    return Reference(_row(mono - clean), str(job.reference.resolve()))


def unrelated(work: Work, job: Job) -> Tensor | None:
    """[1, M]: the reference of another file, where guidance leads away from it; of a long one, from its beginning."""
    if not work.guidance.needs_other or work.protocol == "none":
        return None
    other = work.guidance.other(job)
    from_noisy = work.protocol in ("estimated", "own_noise")
    mono = audio.read(other.noisy, work.rate, duration_s=HEAD_S) if from_noisy else np.zeros(0, np.float32)
    return recorded(work, other, mono).waveform


def write_whole(work: Work, job: Job, noisy: np.ndarray, enhanced: np.ndarray) -> float:
    """Write `enhanced` [C, N] at the rate and length of the file; `noisy` [C, N] is the file. Returns the peak."""
    info = audio.info(job.noisy)
    if work.keeps_highband(info):
        original = np.atleast_2d(audio.read(job.noisy, None, mono=work.mix))
        change = audio.resample(enhanced - noisy, work.rate, info.sample_rate)
        waveform = original + audio.to_length(change, info.num_frames)
    else:
        waveform = audio.to_length(audio.resample(enhanced, work.rate, info.sample_rate), info.num_frames)
    subtype = kept_subtype(info, job.output)
    return audio.write(job.output, waveform[0] if len(waveform) == 1 else waveform, info.sample_rate, subtype)


def kept_subtype(info: audio.AudioInfo, output: Path) -> str | None:
    """The sample format of the input; None, the usual one, where a compressed file becomes a WAV."""
    compressed = output.suffix.lower() == ".wav" and info.subtype.startswith(("MPEG", "VORBIS"))
    return None if compressed else info.subtype


def mean_of(samples: Sequence[Tensor]) -> Tensor:
    """The mean over samples [C, N]; a single one as it is."""
    return samples[0] if len(samples) == 1 else torch.stack(list(samples)).mean(dim=0)


def _row(waveform: np.ndarray) -> Tensor | None:
    """[1, M]; None for an empty one."""
    return torch.from_numpy(np.ascontiguousarray(waveform))[None] if len(waveform) else None
