"""How loud a recording is, overall and by frequency band: what networks trained on normalised audio do not see."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_BANDS = 8
_N_FFT, _HOP = 512, 256
_FLOOR = 1e-5  # of the RMS; the peak of the noisy speech is 1


def level(waveform: Tensor, length: Tensor) -> Tensor:
    """log10 of the RMS of the first `length` [B] samples of `waveform` [B, M]; a tenth of the RMS is one less. [B]."""
    inside = torch.arange(waveform.shape[-1], device=waveform.device) < length[:, None]
    power = (waveform * inside).square().sum(dim=-1) / length.clamp_min(1)
    return (power + _FLOOR**2).log10() / 2


def band_levels(waveform: Tensor, length: Tensor, sample_rate: int) -> Tensor:
    """log10 of the RMS in `NUM_BANDS` bands of equal width on the mel scale, from 0 Hz to half the rate.

    Args:
        waveform: [B, M], zero-padded; length: valid samples of each, [B]. Frames that reach beyond are left out.

    Returns:
        [B, NUM_BANDS]
    """
    waveform = F.pad(waveform, (0, max(0, _N_FFT - waveform.shape[-1])))
    window = torch.hann_window(_N_FFT, device=waveform.device, dtype=waveform.dtype)
    spectrum = torch.stft(waveform, _N_FFT, _HOP, window=window, center=False, return_complex=True)
    frames = ((length - _N_FFT) // _HOP + 1).clamp_min(1)
    inside = torch.arange(spectrum.shape[-1], device=waveform.device) < frames[:, None]
    power = (spectrum.abs().square() * inside[:, None]).sum(dim=-1) / frames[:, None]  # [B, bins]
    power = 2 * power / (_N_FFT * window.square().sum())  # its sum over the bins is the mean square of the signal
    bands = power @ _bands(sample_rate).to(power)
    return (bands + _FLOOR**2).log10() / 2


@lru_cache(maxsize=4)
def _bands(sample_rate: int) -> Tensor:
    """[bins, NUM_BANDS]: 1 where a bin belongs to a band."""
    mel = 2595 * torch.log10(1 + torch.linspace(0, sample_rate / 2, _N_FFT // 2 + 1) / 700)
    index = (mel / mel[-1] * NUM_BANDS).long().clamp_max(NUM_BANDS - 1)
    return F.one_hot(index, NUM_BANDS).float()
