"""`Enhancer`: encode the reference once, predict, sample; waveforms in, waveforms out."""

from __future__ import annotations

import numbers
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sgmse.common.errors import UserError
from sgmse.common.machine import device as find_device
from sgmse.data import audio
from sgmse.diffusion.adaptive import Familiarity
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.guidance import EncodedReference, GuidanceSettings, Guide
from sgmse.diffusion.losses import OBJECTIVES
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.samplers import Noise, SamplerSettings, sample
from sgmse.diffusion.sde import per_item
from sgmse.encoders.levels import reference_statistics
from sgmse.encoders.pretrained import reference_prefix
from sgmse.encoders.weights import other_weights
from sgmse.model.build import (
    make_backbone,
    make_encoder,
    make_null,
    make_preconditioner,
    make_sde,
    make_transform,
)
from sgmse.model.checkpoints import read_checkpoint
from sgmse.model.chunking import Chunks, join_parts
from sgmse.model.pretrained import find_model, read_folder
from sgmse.model.waveforms import check_parts, read_reference, to_array, to_spectrograms, to_waveforms, too_short
from sgmse.networks import BACKBONES
from sgmse.networks.ncsnpp import NCSNpp
from sgmse.networks.published import rename
from sgmse.settings.checks import check_model
from sgmse.settings.config import ModelConfig

SILENCE_RMS = 1e-5  # relative to the peak of the noisy speech; quieter references say nothing

Waveform = TypeVar("Waveform", np.ndarray, Tensor)


@dataclass(frozen=True)
class Enhanced:
    """waveform [B, N]; nfe: evaluations the sampler asked for; passes: network passes per item; null_reference [B].

    distance [B]: of the references from those of the training, where guidance adapts to it; infinite for the null.
    """

    waveform: Tensor
    nfe: int
    passes: int
    null_reference: Tensor
    distance: Tensor | None = None


class Enhancer(nn.Module):
    """Score model s(x_t, y, z_r, t) of clean speech x given noisy speech y and the embedding z_r of a noise reference.

    With no encoder it is SGMSE+ (or its bridge). Tensors of waveforms are at the model's rate.

    Args:
        config: what the model is made of.
        sampler: the sampler used by default.
        load_pretrained: False when a checkpoint is loaded next: weights that it holds are read from nowhere else.

    Attributes:
        settings: plain values that rebuild this model; stored in its checkpoints.
        familiarity: statistics of the training references, for the adaptive guidance scale; None: not known.
        checkpoint_sha256, averaged, published: of the checkpoint it comes from: the first 16 digits of its
            hash, whether it held an average, whether it is one of sp-uhh/sgmse.

    Raises:
        UserError: settings that do not work together.
    """

    def __init__(self, config: ModelConfig, sampler: SamplerSettings, load_pretrained: bool = True) -> None:
        super().__init__()
        check_model(config, sampler)
        self.settings, self.sampler = asdict(config) | asdict(sampler), sampler
        self.t_eps = config.t_eps
        self.cond_drop_prob = 0.0 if config.encoder == "none" else config.cond_drop_prob
        self.objective = OBJECTIVES[config.resolved_objective()]
        self.pad_mode = BACKBONES[config.backbone].pad_mode
        try:
            self.transform, self.sde = make_transform(config), make_sde(config)
            self.preconditioner = make_preconditioner(config, self.sde)
            self.backbone = make_backbone(config)
            self.encoder = make_encoder(config, self.transform, load_pretrained)
            self.null = make_null(config)
        except ValueError as error:
            raise UserError(f"{error}") from None
        self.familiarity: Familiarity | None = None
        self.checkpoint_sha256, self.averaged, self.published = "", False, False

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto", encoder_checkpoint: str | None = None) -> Self:
        """The model of a checkpoint, ours or one of sp-uhh/sgmse, with averaged weights, in evaluation mode.

        Args:
            path: the checkpoint, or what else `find_model` finds: a folder, a name, a Hugging Face repository.
            device: cpu, cuda, or auto: cuda where there is one.
            encoder_checkpoint: weights of a frozen clap or panns encoder, if not where they were in training or cached.

        Raises:
            UserError: the file is no checkpoint of a model like this, or the device is absent.
        """
        place, path = find_device(device), find_model(path)
        try:
            model = cls._load(path, encoder_checkpoint)
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).strip("'\"").split())[:200]
            raise UserError(
                f"{path}: does not fit the model its settings describe ({reason}); use another checkpoint"
            ) from None
        if not all(torch.isfinite(weight).all() for weight in model.state_dict().values()):
            raise UserError(
                f"{path}: holds weights that are no numbers, its training diverged; use an earlier checkpoint"
            )
        return model.eval().to(place)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto") -> Self:
        """`from_checkpoint` under the name of other libraries: `Enhancer.from_pretrained("small")`."""
        return cls.from_checkpoint(name, device)

    @classmethod
    def _load(cls, path: Path, encoder_checkpoint: str | None) -> Self:
        checkpoint = read_folder(path) if path.is_dir() else read_checkpoint(path)
        config, own_place = checkpoint.config, checkpoint.config.encoder_checkpoint
        moved = own_place not in (None, "random") and not Path(str(own_place)).exists()
        if encoder_checkpoint is not None or moved:
            config = replace(config, encoder_checkpoint=encoder_checkpoint)
        model = cls(config, checkpoint.sampler, load_pretrained=False)
        found = None if model.encoder is None else model.encoder.identity
        if config.freeze_encoder and found != checkpoint.encoder_identity:
            raise other_weights(path, config.encoder, checkpoint.encoder_identity, found)
        if checkpoint.published:
            assert isinstance(model.backbone, NCSNpp)
            model.backbone.load_state_dict(rename(model.backbone, checkpoint.weights))
        else:
            model.load_state_dict(checkpoint.weights)
        if checkpoint.familiarity is not None:
            model.familiarity = Familiarity.from_state(checkpoint.familiarity)
        model.checkpoint_sha256, model.published = checkpoint.sha256, checkpoint.published
        model.averaged = checkpoint.averaged
        return model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # ---- the network with its reference ----

    def encode(self, reference: Tensor, length: Tensor) -> Condition | None:
        """References [B, M] with their lengths [B] → condition; items of length 0 get the null."""
        if self.encoder is None or self.null is None:
            return None
        condition: Condition = self.encoder(reference, length)
        if self.backbone.statistics_input is not None:
            condition = replace(condition, statistics=reference_statistics(self.transform, reference, length))
        if self.settings["reference_prepend"]:
            prefix = reference_prefix(self.transform, reference, length, self.settings["sample_rate"])
            condition = replace(condition, prefix=prefix)
        return condition.where(length > 0, self.null(condition))

    def predict(self, x_t: Tensor, y: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Score (OUVE) or clean spectrogram (bridge) [B, 1, F, T] from x_t, y [B, 1, F, T], t [B]."""
        front = None if condition is None else condition.prefix
        before, noisy = (x_t, y) if front is None else (torch.cat([front, z], dim=-1) for z in (x_t, y))
        output = self.preconditioner(lambda *inputs: self.backbone(*inputs, condition), before, noisy, t)
        output = output[..., output.shape[-1] - y.shape[-1] :]  # what comes out for the reference is cut off
        if self.objective.predicts == "mean":  # D ≈ μ; the score that belongs to it is (D − x_t) / σ²
            return (output - x_t) / per_item(self.sde.std(t), x_t) ** 2
        return output

    # ---- batches ----

    @torch.no_grad()
    def encode_reference(
        self,
        reference: Tensor | None,
        peak: Tensor,
        length: Tensor | None = None,
        unrelated: Tensor | None = None,
        unrelated_length: Tensor | None = None,
        weak: Enhancer | None = None,
    ) -> EncodedReference:
        """Encode the noise references of a batch, in the scale of its noisy speech.

        A reference whose RMS is below 1e-5 of the peak says nothing and becomes the null.

        Args:
            reference: [B, M]; None: the null.
            peak: [B], of the noisy speech.
            length: [B], samples of each reference; None: M.
            unrelated, unrelated_length: references of other files, which guidance leads away from (icg).
            weak: the weaker model, whose prediction guidance leads away from (auto).
                With neither of them guidance leads away from the null (cfg).
        """
        condition, usable = self._condition(reference, peak, length)
        encoded = EncodedReference(peak, ~usable, condition)
        if weak is not None:
            negative = weak._condition(reference, peak, length)[0]
            return replace(encoded, negative=negative, worse_network=weak.predict)
        if condition is None or self.null is None:
            return encoded
        null = self.null(condition)
        if unrelated is None:
            return replace(encoded, negative=null)
        other, is_known = self._condition(unrelated, peak, unrelated_length)
        assert other is not None
        # a silent other reference would be the null, which a model may not know: without guidance then
        return replace(encoded, negative=other.where(is_known, condition).where(usable, null))

    def _condition(
        self, reference: Tensor | None, peak: Tensor, length: Tensor | None
    ) -> tuple[Condition | None, Tensor]:
        """References as in `encode_reference` → condition, and which of them say something [B]."""
        reference = torch.zeros_like(peak)[:, None] if reference is None else reference / _scale(peak)[:, None]
        length = torch.full_like(peak, reference.shape[-1]) if length is None else length
        usable = (reference.square().sum(dim=-1) / length.clamp_min(1)).sqrt() > SILENCE_RMS
        return self.encode(reference, usable * length.long()), usable

    @torch.no_grad()
    def enhance_batch(
        self,
        noisy: Tensor,
        reference: EncodedReference,
        noise: Noise,
        guidance: GuidanceSettings | None = None,
        sampler: SamplerSettings | None = None,
        t_eps: float | None = None,
        length: Tensor | None = None,
    ) -> Enhanced:
        """Enhance noisy speech [B, N], N > n_fft / 2, with its encoded references. Digital silence stays silent.

        Args:
            noisy: whole recordings, or parts of those whose peaks `reference` knows.
            noise: drives the sampler, e.g. `gaussian(generator)`.
            guidance: how hard the reference is followed; None: w = 1.
            sampler, t_eps: None: those of the model.
            length: [B], samples of each item that are no padding; None: all. The result is zero beyond.
        """
        guidance = guidance or GuidanceSettings()
        lengths = [noisy.shape[-1]] * len(noisy) if length is None else length.tolist()
        multiple = self.backbone.frame_multiple
        normalised = noisy / _scale(reference.peak)[:, None]
        y, frames = to_spectrograms(self.transform, normalised, lengths, multiple, self.pad_mode)
        distance = self._distance(reference) if guidance.is_adaptive else None
        scale = guidance.scale if distance is None else guidance.scale_at(distance)
        guide = Guide(self.predict, y, reference, scale, guidance, self.sde)
        drawn = sample(guide, self.sde, y, noise, sampler or self.sampler, t_eps or self.t_eps)
        # a peak of 0 makes silence of what the sampler drew
        waveform = to_waveforms(self.transform, drawn.spectrogram, frames, lengths) * reference.peak[:, None]
        return Enhanced(waveform, drawn.nfe, guide.passes, reference.is_null, distance)

    def _distance(self, reference: EncodedReference) -> Tensor | None:
        """[B]: how far references are from those of the training; infinite for the null, None without an encoder."""
        if reference.condition is None:
            return None
        if self.familiarity is None:
            raise UserError("the model knows no statistics of its training references; give a number as guidance scale")
        return torch.where(reference.is_null, torch.inf, self.familiarity.distance(reference.condition.vector))

    # ---- recordings at any rate, from Python ----

    @torch.no_grad()
    def enhance(
        self,
        waveform: Waveform,
        sr: int,
        noise_ref: np.ndarray | Tensor | str | Path | None = None,
        noise_ref_sr: int | None = None,
        guidance_scale: float = 1.0,
        seed: int = 0,
        chunk_s: float = 30.0,
        overlap_s: float = 1.0,
    ) -> Waveform:
        """Noisy speech [N] or [C, N] → enhanced speech of the same type, shape, rate, device and floating dtype.

        >>> model = NoiseCondScoreModel.from_checkpoint("logs/run/checkpoints/best_pesq.ckpt")
        >>> enhanced = model.enhance(noisy, 48000, noise_ref="fan.wav")

        Each channel is enhanced on its own; above half the model's rate the result is empty.

        Args:
            waveform: [N] or [C, N], floating point, in ±1 or any other scale.
            sr: its rate in Hz; it is resampled to the model's and back.
            noise_ref: a recording of the noise alone, in the scale of `waveform`: [M], or a file; of both the first two
                minutes count. None: no reference, for a model without encoder or trained with dropping.
            noise_ref_sr: the rate of `noise_ref`; None: `sr`. A file knows its own.
            guidance_scale: w in u + w (c − u): 0 ignores the reference, 1 uses it, more follows it harder.
            seed: drives samplers that draw noise.
            chunk_s: enhance longer waveforms in cross-faded parts of so many seconds; 0: as a whole.
            overlap_s: seconds that neighbouring parts share.

        Raises:
            UserError: a shape, type, rate or value that cannot be used, or a reference where the model takes none.
        """
        rate, n_fft, hop = (self.settings[name] for name in ("sample_rate", "n_fft", "hop_length"))
        noisy = to_array(waveform, "waveform", sr)
        reference_rate = sr if noise_ref_sr is None else noise_ref_sr
        reference = None if noise_ref is None else read_reference(noise_ref, reference_rate, rate, n_fft)
        if noisy.shape[-1] * rate // sr <= n_fft // 2:
            raise too_short("waveform", n_fft, rate)
        check_parts(chunk_s, overlap_s)
        self._check_reference(reference is not None, guidance_scale)
        channels = torch.from_numpy(audio.resample(np.atleast_2d(noisy), sr, rate)).to(self.device)
        reference = None if reference is None else reference.to(self.device).expand(len(channels), -1)
        encoded = self.encode_reference(reference, channels.abs().amax(dim=-1))
        guidance = GuidanceSettings(guidance_scale=guidance_scale)
        chunks = Chunks.from_seconds(chunk_s, overlap_s, rate, hop, self.backbone.frame_multiple)
        spans = chunks.spans(channels.shape[-1])
        parts = []
        for start, end in spans:
            keys = [f"{seed} {channel}" for channel in range(len(channels))]
            noise = FrameNoise(keys, start // hop)  # parts draw the same noise where they overlap
            parts.append(self.enhance_batch(channels[:, start:end], encoded, noise, guidance).waveform.cpu().numpy())
        whole = np.concatenate(list(join_parts(parts, spans, chunks.overlap)), axis=-1)
        result = audio.to_length(audio.resample(whole, rate, sr), noisy.shape[-1]).reshape(noisy.shape)
        if isinstance(waveform, Tensor):
            return torch.from_numpy(result).to(waveform)
        return result.astype(np.asarray(waveform).dtype, copy=False)

    def _check_reference(self, given: bool, w: float) -> None:
        """Raise `UserError` where the model cannot follow a reference, or its absence, with the scale w."""
        if not isinstance(w, numbers.Real) or not np.isfinite(w):
            raise UserError(f"guidance_scale {w} is no finite number; give one")
        if self.encoder is None and (given or w != 1):
            raise UserError("the model has no noise encoder; leave noise_ref and guidance_scale out")
        if self.encoder is not None and self.cond_drop_prob == 0 and (not given or w != 1):
            raise UserError(
                "the model was trained without dropping references, so its null condition is untrained; give a "
                "noise_ref and leave guidance_scale out"
            )


def _scale(peak: Tensor) -> Tensor:
    """What to divide by: the peak [B], or 1 for silence."""
    return torch.where(peak > 0, peak, 1)
