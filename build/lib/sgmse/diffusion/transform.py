"""Waveform ⇄ compressed complex spectrogram."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PadMode = Literal["zero", "reflect"]


class SpectrogramTransform(nn.Module):
    """Amplitude-compressed complex STFT: c = β |s|^α exp(i∠s), Welker et al. 2022, Eq. (2).

    Args:
        n_fft: window length in samples; n_fft // 2 + 1 frequency bins.
        hop_length: samples between frames.
        spec_factor: β.
        spec_abs_exponent: α in (0, 1].
    """

    def __init__(self, n_fft: int, hop_length: int, spec_factor: float, spec_abs_exponent: float) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.factor, self.exponent = spec_factor, spec_abs_exponent
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(n_fft, periodic=True), persistent=False)

    def stft(self, waveform: Tensor) -> Tensor:
        """Waveform [B, N] → complex STFT [B, F, T], T = N // hop_length + 1. N must exceed n_fft // 2."""
        return torch.stft(waveform, self.n_fft, self.hop_length, window=self.window, center=True, return_complex=True)

    def istft(self, spectrogram: Tensor, length: int) -> Tensor:
        """Complex STFT [B, F, T] → waveform [B, length]."""
        return torch.istft(spectrogram, self.n_fft, self.hop_length, window=self.window, center=True, length=length)

    def compress(self, spectrogram: Tensor) -> Tensor:
        """Compress the amplitudes of a complex tensor of any shape; the phase stays."""
        return self.factor * _power(spectrogram, self.exponent)

    def expand(self, spectrogram: Tensor) -> Tensor:
        """Undo `compress`."""
        return _power(spectrogram / self.factor, 1 / self.exponent)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform [B, N] → compressed spectrogram [B, 1, F, T]."""
        return self.compress(self.stft(waveform)).unsqueeze(1)

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """Compressed spectrogram [B, 1, F, T] → waveform [B, length]."""
        return self.istft(self.expand(spectrogram.squeeze(1)), length)


def pad_frames(spectrogram: Tensor, multiple: int, mode: PadMode) -> Tensor:
    """Pad the last axis of [B, C, F, T] on the right to a multiple. Reflection needs T > padding, else zeros pad."""
    missing = -spectrogram.shape[-1] % multiple
    if missing == 0:
        return spectrogram
    if mode == "reflect" and spectrogram.shape[-1] > missing:
        return F.pad(spectrogram, (0, missing, 0, 0), mode="reflect")
    return F.pad(spectrogram, (0, missing))


def _power(z: Tensor, exponent: float) -> Tensor:
    """|z|^exponent exp(i∠z). The floor keeps 0 → 0 with a finite gradient."""
    if exponent == 1:
        return z
    return z * z.abs().clamp_min(1e-12) ** (exponent - 1)
