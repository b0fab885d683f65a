"""How loud a recording is, overall and by frequency band: what networks trained on normalised audio do not see.

What a noise reference says without any encoder: statistics of its level in each frequency bin.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.trunk import features

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


QUANTILES = (0.1, 0.9)
CENTRE = 3.5  # about minus the mean of everyday noise, so that the channels start around 0
CHANNELS = 2 + len(QUANTILES)  # the mean, the quantiles, and whether there is a reference


def reference_statistics(transform: SpectrogramTransform, reference: Tensor, length: Tensor) -> Tensor:
    """References [B, M] of lengths [B] → mean, 10 % and 90 % quantile of the log-magnitude over time, and 1: [B, 4, F].

    Natural logarithms of the compressed magnitudes, moved up by `CENTRE`. Only frames that lie wholly inside a
    reference count. Quantiles are linear between order statistics, as those of torch.quantile.
    """
    spectra, frames = features(transform, reference, length)
    level = spectra[:, 0] + CENTRE  # [B, F, T]
    valid = torch.arange(level.shape[-1], device=level.device) < frames[:, None]
    mean = (level * valid[:, None]).sum(dim=-1) / frames[:, None]
    ordered = level.masked_fill(~valid[:, None], torch.inf).sort(dim=-1).values
    quantiles = [_quantile(ordered, frames, q) for q in QUANTILES]
    return torch.stack([mean, *quantiles, torch.ones_like(mean)], dim=1)


def _quantile(ordered: Tensor, frames: Tensor, q: float) -> Tensor:
    """The q-quantile [B, F] of rising values [B, F, T], of which the first `frames` [B] of each item count."""
    place = q * (frames - 1)
    below = place.floor().long()
    above = torch.minimum(below + 1, frames.long() - 1)
    low, high = (ordered.gather(2, at[:, None, None].expand(-1, ordered.shape[1], 1))[..., 0] for at in (below, above))
    return low + (place - below)[:, None].to(low.dtype) * (high - low)
