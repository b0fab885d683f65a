"""The leak score: does a noise reference hold samples of the very noise that it helps to remove?

A large correlation alone does not tell: hum, bells and alarms correlate up to 0.99 with other stretches of themselves.
What repeats is their tones; the faint noise between them never does. So each block of the reference is also compared
with its best match bin by bin, every audible bin counting the same: shared samples agree in phase everywhere, a
repeated sound in its tones only.

Limits. Shared stretches of 0.2 s and more are found. A sound without any noise between its tones (a synthetic siren)
counts as repeating, also where it is shared. A recording into which its author has pasted the same samples twice counts
as shared, rightly. Another level, another sign and a shift by a part of a sample hide nothing; time stretching, filters
and lossy coding after the cut do.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy  # its parts load when they are used

from sgmse.data import audio
from sgmse.data.mixing import SILENCE_RMS, is_silent
from sgmse.data.references import HEAD_S

MIN_OVERLAP_S = 0.25  # the shortest reference; over 0.1 s any two rumbles correlate by 0.9 somewhere
BLOCK_S, HOP_S = 0.15, 0.05
FRAME_S = 0.032
AGREEMENT = 0.95  # of shared samples 0.97 and more, of an alarm that repeats itself up to 0.89 (measured)
AUDIBLE_SHARE = 0.3  # of a block's bins must be audible: a bare tone has too few to tell
_ORDER = 32
_ROUNDING = 2 * (2.0**-15) ** 2 / 12  # power of the rounding of the difference of two 16-bit files
_AUDIBLE = 10 * _ROUNDING  # half the weight of a bin of this power
_SHIFTS = 8  # steps per sample in which a shift by a part of a sample is looked for


class Leak(NamedTuple):
    """How much of a reference is found in its mixture's noise.

    peak: largest normalised cross-correlation, 0 to 1. lag_s: where: sample i of the reference is sample i + lag of the
    noise; of the shared samples if there are any, else of the peak. shared: whether samples are shared.
    """

    peak: float
    lag_s: float
    shared: bool


def score(reference: np.ndarray, mixture_noise: np.ndarray, sample_rate: int) -> Leak:
    """Compare `reference` [M] with the noise [N] in its mixture, e.g. noisy - clean, both at `sample_rate`."""
    reference, noise = (np.asarray(waveform, dtype=np.float64) for waveform in (reference, mixture_noise))
    if is_silent(reference) or is_silent(noise):
        return Leak(0.0, 0.0, False)
    peak, lag = correlation_peak(reference, noise, round(MIN_OVERLAP_S * sample_rate))
    shared_at = _shared_lag(reference, noise, sample_rate)
    return Leak(peak, (lag if shared_at is None else shared_at) / sample_rate, shared_at is not None)


def score_files(reference: Path, noisy: Path, clean: Path) -> Leak:
    """`score` of what enhancement uses of a reference and the noise of its mixture, noisy - clean, at the noisy rate.

    Raises `UserError` for a file that cannot be read.
    """
    rate = audio.info(noisy).sample_rate
    mixture, target = audio.read(noisy, rate), audio.read(clean, rate)
    length = min(len(mixture), len(target))
    return score(audio.read(reference, rate, duration_s=HEAD_S), mixture[:length] - target[:length], rate)


def correlation_peak(reference: np.ndarray, noise: np.ndarray, min_overlap: int) -> tuple[float, int]:
    """Largest |normalised cross-correlation| of `reference` [M] and `noise` [N], and its lag in samples.

    Each lag is normalised by the energies of the parts that overlap there, at least `min_overlap` samples (or the
    shorter of the two); lags where one of the parts is silent do not count.
    """
    lags = np.arange(1 - len(reference), len(noise))
    first, last = np.maximum(lags, 0), np.minimum(lags + len(reference), len(noise))
    energies = [_energy(noise, first, last), _energy(reference, first - lags, last - lags)]
    silence = (last - first) * SILENCE_RMS**2
    counts = (last - first >= min(min_overlap, len(reference), len(noise))) & (np.minimum(*energies) > silence)
    cross = np.abs(scipy.signal.correlate(noise, reference, method="fft"))
    coefficients = np.where(counts, cross / np.sqrt(np.maximum(energies[0] * energies[1], 1e-30)), 0.0)
    best = int(np.argmax(coefficients))
    return float(min(coefficients[best], 1.0)), int(lags[best])


def agreement(one: np.ndarray, other: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """How far two aligned blocks [K] agree in phase, and the share of their bins that is audible, both 0 to 1.

    The generalised cross-correlation with phase transform (Knapp & Carter 1976) over short frames, near lag 0. A bin
    fades out of the mean as it nears the rounding of 16-bit files.
    """
    size = 2 * round(FRAME_S / 2 * sample_rate)
    window = scipy.signal.get_window("blackmanharris", size)  # side lobes at -92 dB: a tone stays in its bins
    frames = [np.lib.stride_tricks.sliding_window_view(block, size)[:: size // 4] for block in (one, other)]
    spectra = [np.fft.rfft(overlapping * window) for overlapping in frames]
    cross = spectra[0] * np.conj(spectra[1])
    floor = _AUDIBLE * np.sum(window**2)
    weights = np.prod([np.abs(s) ** 2 / (np.abs(s) ** 2 + floor) for s in spectra], axis=0)
    phases = cross / np.maximum(np.abs(cross), 1e-30)
    by_lag = np.fft.irfft((weights * phases).sum(axis=0), _SHIFTS * size) * (_SHIFTS * size / 2)
    near_zero = np.concatenate([by_lag[-_SHIFTS:], by_lag[: _SHIFTS + 1]])
    return float(np.abs(near_zero).max() / max(weights.sum(), 1e-30)), float(weights.mean())


def _shared_lag(reference: np.ndarray, noise: np.ndarray, sample_rate: int) -> int | None:
    """The lag in samples at which a block of `reference` holds the samples of `noise`, if there is one."""
    block = min(round(BLOCK_S * sample_rate), len(reference), len(noise))
    if block < round(FRAME_S * sample_rate) + 1:
        return None
    for start, match in _best_matches(reference, noise, block, round(HOP_S * sample_rate)):
        agrees, audible = agreement(reference[start : start + block], noise[match : match + block], sample_rate)
        if agrees >= AGREEMENT and audible >= AUDIBLE_SHARE:
            return match - start
    return None


def _best_matches(reference: np.ndarray, noise: np.ndarray, block: int, hop: int) -> list[tuple[int, int]]:
    """For each block of `reference` that is not silent: its start, and where in `noise` it correlates best.

    Both are whitened by the filter that predicts the reference, so that its rumble does not decide alone.
    """
    whiten = _prediction_error_filter(reference)
    white_reference, white_noise = scipy.signal.lfilter(whiten, 1, reference), scipy.signal.lfilter(whiten, 1, noise)
    places = np.arange(len(noise) - block + 1)
    loudness = np.sqrt(np.maximum(_energy(white_noise, places, places + block), block * _ROUNDING))
    size = 1 << (len(noise) + block).bit_length()
    spectrum = np.fft.rfft(white_noise, size)
    matches = []
    for start in range(0, len(reference) - block + 1, hop):
        if not is_silent(reference[start : start + block]):
            piece = np.fft.rfft(white_reference[start : start + block], size)
            cross = np.fft.irfft(spectrum * np.conj(piece), size)[: len(places)]
            matches.append((start, int(np.argmax(np.abs(cross) / loudness))))
    return matches


def _prediction_error_filter(waveform: np.ndarray) -> np.ndarray:
    """Coefficients [33] of the filter that leaves what the 32 samples before do not predict (autocorrelation method).

    Bands below the rounding of 16-bit files are not raised to the level of the others.
    """
    power = np.abs(np.fft.rfft(waveform, 2 * len(waveform))) ** 2
    correlation = np.fft.irfft(power)[: _ORDER + 1] / len(waveform)
    correlation[0] += _AUDIBLE
    return np.concatenate([[1.0], -scipy.linalg.solve_toeplitz(correlation[:-1], correlation[1:])])


def _energy(waveform: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Energies of the stretches [first, last) of `waveform` [N]."""
    until = np.concatenate([[0.0], np.cumsum(np.square(waveform))])
    return until[last] - until[first]
