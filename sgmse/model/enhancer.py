"""What a model needs to enhance: encode the reference, predict, sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.guidance import Guidance, GuidanceSettings, Guide, Negative
from sgmse.diffusion.losses import Objective
from sgmse.diffusion.precondition import Preconditioner
from sgmse.diffusion.samplers import Noise, SamplerSettings, sample
from sgmse.diffusion.sde import SDE, per_item
from sgmse.diffusion.transform import PadMode, SpectrogramTransform, pad_frames
from sgmse.encoders.base import NoiseEncoder
from sgmse.encoders.levels import reference_statistics
from sgmse.networks.ncsnpp import NCSNpp

SILENCE_RMS = 1e-5  # relative to the peak of the noisy speech; quieter references say nothing


@dataclass(frozen=True)
class Enhanced:
    """waveform [B, N]; nfe: evaluations the sampler asked for; passes: network passes per item; null_reference [B].

    distance [B]: of the references from those of the training, where guidance adapts to it.
    """

    waveform: Tensor
    nfe: int
    passes: int
    null_reference: Tensor
    distance: Tensor | None = None


@dataclass(frozen=True)
class Heard:
    """The references of a batch, encoded, and how they guide.

    Args:
        condition: None: the model takes none.
        is_null: [B], those that said nothing.
        negative: what guidance leads away from; None: no guidance.
        scale: w, a number or [B].
        distance: [B], from the references of the training, for the adaptive scale; infinite for the null.
        settings: of the guidance.
    """

    condition: Condition | None
    is_null: Tensor
    negative: Negative | None
    scale: float | Tensor
    distance: Tensor | None
    settings: GuidanceSettings


class EnhancementModel(pl.LightningModule):
    """The half of `NoiseCondScoreModel` that enhances; the other half trains it."""

    transform: SpectrogramTransform
    sde: SDE
    preconditioner: Preconditioner
    objective: Objective
    pad_mode: PadMode
    backbone: NCSNpp
    encoder: NoiseEncoder | None
    null: nn.Module | None
    settings: dict[str, Any]
    sampler: SamplerSettings
    t_eps: float
    cond_drop_prob: float

    def encode(self, reference: Tensor, length: Tensor) -> Condition | None:
        """References [B, M] with their lengths [B] → condition; items of length 0 get the null."""
        if self.encoder is None or self.null is None:
            return None
        condition: Condition = self.encoder(reference, length)
        if self.backbone.statistics_input is not None:
            condition = replace(condition, statistics=reference_statistics(self.transform, reference, length))
        return condition.where(length > 0, self.null(condition))

    def predict(self, x_t: Tensor, y: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Score (OUVE) or clean spectrogram (bridge) [B, 1, F, T] from x_t, y [B, 1, F, T], t [B]."""
        output = self.preconditioner(lambda x, y, t: self.backbone(x, y, t, condition), x_t, y, t)
        if self.objective.name == "denoiser":  # the network predicts the mean D; its score is (D − x_t) / σ²
            return (output - x_t) / per_item(self.sde.std(t), x_t) ** 2
        return output

    @torch.no_grad()
    def hear(
        self,
        reference: Tensor | None,
        peak: Tensor,
        length: Tensor | None = None,
        guidance: Guidance | float = 1.0,
    ) -> Heard:
        """What noise references [B, M] of lengths [B] (None: M) say beside noisy speech of peaks [B]. None: the null.

        A reference whose RMS is below 1e-5 of the peak says nothing and becomes the null.
        """
        guidance = Guidance.of(guidance)
        condition, usable = self._condition(reference, peak, length)
        distance = guidance.distance(condition)
        if distance is not None:
            distance = torch.where(usable, distance, torch.inf)
        scale = guidance.scale(distance)
        if guidance.weak is not None:
            negative: Negative | None = guidance.weak.negative(reference, peak, length)
        elif condition is None or self.null is None:
            negative = None
        else:
            null = self.null(condition)
            negative = Negative(null)
            if guidance.unrelated is not None:
                other = self._condition(guidance.unrelated, peak, guidance.unrelated_length)[0]
                negative = Negative(null if other is None else other.where(usable, null))
        return Heard(condition, ~usable, negative, scale, distance, guidance.settings)

    def negative(self, reference: Tensor | None, peak: Tensor, length: Tensor | None) -> Negative:
        """This model as the weaker one, with references as in `hear`."""
        return Negative(self._condition(reference, peak, length)[0], self.predict)

    def _condition(
        self, reference: Tensor | None, peak: Tensor, length: Tensor | None
    ) -> tuple[Condition | None, Tensor]:
        """References as in `hear` → condition, and which of them say something [B]."""
        reference = torch.zeros_like(peak)[:, None] if reference is None else reference / _scale(peak)[:, None]
        length = torch.full_like(peak, reference.shape[-1]) if length is None else length
        usable = (reference.square().sum(dim=-1) / length.clamp_min(1)).sqrt() > SILENCE_RMS
        return self.encode(reference, usable * length.long()), usable

    @torch.no_grad()
    def enhance_batch(
        self,
        noisy: Tensor,
        reference: Tensor | None,
        noise: Noise,
        guidance: Guidance | float = 1.0,
        sampler: SamplerSettings | None = None,
        t_eps: float | None = None,
        length: Tensor | None = None,
        reference_length: Tensor | None = None,
    ) -> Enhanced:
        """Noisy speech [B, N] and noise references [B, M] (None: the null condition) → enhanced speech [B, N].

        Both in one scale: they are divided by the peak of the noisy speech, and the result is multiplied by it.
        N must exceed n_fft / 2. `length`, `reference_length` [B]: samples of each item that are no padding (None: all);
        the result is zero beyond. `noise` drives the sampler, e.g. `gaussian(generator)`. `guidance`: a number is the w
        of classifier-free guidance.
        """
        peak = noisy.abs().amax(dim=-1)
        heard = self.hear(reference, peak, reference_length, guidance)
        return self.enhance_heard(noisy, peak, heard, noise, sampler, t_eps, length)

    @torch.no_grad()
    def enhance_heard(
        self,
        noisy: Tensor,
        peak: Tensor,
        heard: Heard,
        noise: Noise,
        sampler: SamplerSettings | None = None,
        t_eps: float | None = None,
        length: Tensor | None = None,
    ) -> Enhanced:
        """`enhance_batch` with references encoded before, and divided by peaks [B]: for the parts of a recording."""
        scale = _scale(peak)[:, None]
        lengths = [noisy.shape[-1]] * len(noisy) if length is None else length.tolist()
        y, frames = self._spectrograms(noisy / scale, lengths)
        guide = Guide(self.predict, y, heard.condition, heard.negative, heard.scale, heard.settings, self.sde)
        drawn = sample(guide, self.sde, y, noise, sampler or self.sampler, t_eps or self.t_eps)
        waveform = self._waveforms(drawn.spectrogram, frames, lengths) * scale
        return Enhanced(waveform, drawn.nfe, guide.passes, heard.is_null, heard.distance)

    def _spectrograms(self, waveform: Tensor, lengths: list[int]) -> tuple[Tensor, list[int]]:
        """Padded waveforms [B, N] → spectrograms [B, 1, F, T] and the frames of each, as many as it has alone.

        Each item is transformed and padded as if it were alone. Up to the longest follow frames from all over the item:
        the network's normalisation sees them, and so changes less than with zeros.
        """
        multiple = self.backbone.frame_multiple
        if min(lengths) == max(lengths):
            y = pad_frames(self.transform(waveform[:, : lengths[0]]), multiple, self.pad_mode)
            return y, [y.shape[-1]] * len(lengths)
        items = [
            pad_frames(self.transform(row[None, :n]), multiple, self.pad_mode)
            for row, n in zip(waveform, lengths, strict=True)
        ]
        frames = [item.shape[-1] for item in items]
        return torch.cat([_filled(item, max(frames)) for item in items]), frames

    def _waveforms(self, spectrogram: Tensor, frames: list[int], lengths: list[int]) -> Tensor:
        """The inverse of `_spectrograms`: [B, 1, F, T] → waveforms [B, N], zero beyond the length of each."""
        if min(lengths) == max(lengths):
            return self.transform.inverse(spectrogram, lengths[0])
        rows = [
            self.transform.inverse(item[None, ..., :t], n)[0]
            for item, t, n in zip(spectrogram, frames, lengths, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _filled(item: Tensor, frames: int) -> Tensor:
    """`item` [1, 1, F, T] with as many of its frames, equally spaced, behind it as are missing."""
    missing = frames - item.shape[-1]
    places = torch.linspace(0, item.shape[-1] - 1, missing, device=item.device).long()
    return torch.cat([item, item[..., places]], dim=-1)


def _scale(peak: Tensor) -> Tensor:
    """What to divide by: the peak [B], or 1 for silence."""
    return torch.where(peak > 0, peak, 1)
