"""A model as a function of waveforms: any rate, numpy or torch in, the same out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.common.machine import device as find_device
from sgmse.data import audio
from sgmse.diffusion.noise import FrameNoise
from sgmse.model.chunking import Chunks, Span, joined
from sgmse.model.enhancer import EnhancementModel, Heard

Waveform = TypeVar("Waveform", np.ndarray, Tensor)


class WaveformModel(EnhancementModel):
    """`from_checkpoint` and `enhance`, for use from Python."""

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto", encoder_checkpoint: str | None = None) -> Self:
        """The model of a checkpoint, ours or one of sp-uhh/sgmse, with averaged weights, in evaluation mode.

        Args:
            path: the checkpoint.
            device: cpu, cuda, or auto: cuda where there is one.
            encoder_checkpoint: weights of a frozen clap or panns encoder, if not where they were in training or cached.

        Raises:
            UserError: the file is no checkpoint of a model like this, or the device is absent.
        """
        # by name, because these build models and so stand above this module
        checkpoints = importlib.import_module("sgmse.model.checkpoints")
        place = find_device(device)
        return cast(Self, checkpoints.load_model(Path(path), encoder_checkpoint).model.to(place))

    @torch.no_grad()
    def enhance(
        self,
        waveform: Waveform,
        sr: int,
        noise_ref: np.ndarray | Tensor | str | Path | None = None,
        noise_ref_sr: int | None = None,
        guidance_scale: float = 1.0,
        seed: int = 0,
        chunk_s: float = 0.0,
        overlap_s: float = 1.0,
    ) -> Waveform:
        """Noisy speech [N] or [C, N] → enhanced speech of the same type, shape, rate, device and floating dtype.

        >>> model = NoiseCondScoreModel.from_checkpoint("logs/run/checkpoints/best_pesq.ckpt")
        >>> enhanced = model.enhance(noisy, 48000, noise_ref="fan.wav", guidance_scale=1.5)

        Each channel is enhanced on its own; above half the model's rate the result is empty.

        Args:
            waveform: [N] or [C, N], floating point, in ±1 or any other scale.
            sr: its rate in Hz; it is resampled to the model's and back.
            noise_ref: a recording of the noise alone, in the scale of `waveform`: [M], or a file. None: no reference,
                for a model without encoder or trained with dropping.
            noise_ref_sr: the rate of `noise_ref`; None: `sr`. A file knows its own.
            guidance_scale: w in u + w (c − u): 0 ignores the reference, 1 uses it, more follows it harder.
            seed: drives samplers that draw noise.
            chunk_s: enhance longer waveforms in cross-faded parts of so many seconds; 0: as a whole.
            overlap_s: seconds that neighbouring parts share.

        Raises:
            UserError: a shape, type, rate or value that cannot be used, or a reference where the model takes none.
        """
        noisy = _array(waveform, "waveform", sr)
        reference = None if noise_ref is None else self._reference(noise_ref, noise_ref_sr or sr)
        self._check(noisy, reference, sr, guidance_scale, chunk_s, overlap_s)
        settings = self.settings
        rate, hop = settings["sample_rate"], settings["hop_length"]
        chunks = Chunks.of(chunk_s, overlap_s, rate, hop, self.backbone.frame_multiple)
        channels = torch.from_numpy(audio.resample(np.atleast_2d(noisy), sr, rate)).to(self.device)
        peak, spans = channels.abs().amax(dim=-1), chunks.spans(channels.shape[-1])
        heard = self.hear(
            None if reference is None else reference.expand(len(channels), -1), peak, None, guidance_scale
        )
        parts = (self._part(channels, span, peak, heard, seed) for span in spans)
        joint = np.concatenate(list(joined(parts, spans, chunks.overlap)), axis=-1)
        result = audio.to_length(audio.resample(joint, rate, sr), noisy.shape[-1]).reshape(noisy.shape)
        if isinstance(waveform, Tensor):
            return torch.from_numpy(result).to(waveform)
        return result.astype(waveform.dtype, copy=False)

    def _part(self, channels: Tensor, span: Span, peak: Tensor, heard: Heard, seed: int) -> np.ndarray:
        """The enhancement of a part of `channels` [C, N]: [C, end − start]."""
        start, end = span
        noise = FrameNoise(
            [f"{seed} {channel}" for channel in range(len(channels))], start // self.settings["hop_length"]
        )
        return self.enhance_heard(channels[:, start:end], peak, heard, noise).waveform.cpu().numpy()

    def _reference(self, noise_ref: np.ndarray | Tensor | str | Path, sr: int) -> Tensor:
        """[1, M] at the model's rate."""
        rate = self.settings["sample_rate"]
        if isinstance(noise_ref, str | Path):
            return torch.from_numpy(audio.read(noise_ref, rate))[None].to(self.device)
        array = _array(noise_ref, "noise_ref", sr)
        if array.ndim != 1:
            raise UserError(f"noise_ref has the shape {list(array.shape)}; give one recording [M]")
        return torch.from_numpy(audio.resample(array, sr, rate))[None].to(self.device)

    def _check(
        self, noisy: np.ndarray, reference: Tensor | None, sr: int, w: float, chunk_s: float, overlap_s: float
    ) -> None:
        """Raise `UserError` for what the model cannot do."""
        rate, n_fft = self.settings["sample_rate"], self.settings["n_fft"]
        if noisy.shape[-1] * rate // sr <= n_fft // 2:
            raise UserError(f"waveform is shorter than one frame ({n_fft / rate * 1000:.0f} ms); give a longer one")
        if reference is not None and reference.shape[-1] < n_fft:
            raise UserError(f"noise_ref is shorter than one frame ({n_fft / rate * 1000:.0f} ms); give a longer one")
        if chunk_s < 0 or (chunk_s and not 0 < overlap_s < chunk_s):
            raise UserError(
                f"chunk_s {chunk_s:g} and overlap_s {overlap_s:g} do not fit; the overlap must be more than 0 and less "
                "than the chunk"
            )
        if not np.isfinite(w):
            raise UserError(f"guidance_scale {w} is no finite number; give one")
        if self.encoder is None and (reference is not None or w != 1):
            raise UserError("the model has no noise encoder; leave noise_ref and guidance_scale out")
        if self.encoder is not None and self.cond_drop_prob == 0 and (reference is None or w != 1):
            raise UserError(
                "the model was trained without dropping references, so its null condition is untrained; give a "
                "noise_ref and leave guidance_scale out"
            )


def _array(waveform: np.ndarray | Tensor, name: str, sr: int) -> np.ndarray:
    """float32 on the CPU. Raises `UserError` for another shape than [N] or [C, N], integers, NaN, or a rate below 1."""
    array = waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} holds values of type {array.dtype}; convert them to floating point")
    if array.ndim not in (1, 2) or not array.size:
        raise UserError(f"{name} has the shape {list(array.shape)}; give [N] or [C, N]")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or Inf values; remove them")
    if sr < 1:
        raise UserError(f"the rate of {name} is {sr} Hz; give its samples per second")
    return array.astype(np.float32)
