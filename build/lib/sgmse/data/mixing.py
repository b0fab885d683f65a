"""Mixing speech and noise: pure functions on mono waveforms [N], randomness comes in as a generator."""

from __future__ import annotations

import numpy as np

SILENCE_RMS = 1e-4  # -80 dBFS; a 16-bit file holds nothing but its own rounding below
LARGEST_SNR_DB = 60  # to either side: beyond it the fainter one nears the rounding of 16-bit files
FADE_S = 0.02


def rms(waveform: np.ndarray) -> float:
    """Root mean square of `waveform` [N]; 0 for an empty one."""
    # Not a dot product: the linear algebra library would start its own threads in every loader process.
    return float(np.sqrt(np.mean(np.square(waveform), dtype=np.float64))) if waveform.size else 0.0


def is_silent(waveform: np.ndarray) -> bool:
    """Whether `waveform` [N] is digital silence: zeros, or no more than the rounding of a 16-bit file."""
    return rms(waveform) < SILENCE_RMS


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """`waveform` [K] without the digital zeros at both ends, with which some corpora fill clips to equal length.

    A waveform of nothing but zeros becomes empty.
    """
    loud = np.flatnonzero(np.abs(waveform) > SILENCE_RMS)
    return waveform[loud[0] : loud[-1] + 1] if loud.size else waveform[:0]


def snr_gain(clean_rms: float, noise_rms: float, snr_db: float) -> float:
    """The factor on a noise of `noise_rms` that gives the ratio of energies `snr_db` to speech of `clean_rms`."""
    if min(clean_rms, noise_rms) < SILENCE_RMS:
        raise ValueError("a signal-to-noise ratio is undefined for silence; draw another crop")
    return clean_rms / noise_rms * 10 ** (-snr_db / 20)


def crossfade(first: np.ndarray, second: np.ndarray, sample_rate: int) -> np.ndarray:
    """`first` [A] followed by `second` [B] over an equal-power cross-fade of F <= 20 ms. Returns [A + B - F]."""
    fade = min(round(FADE_S * sample_rate), len(first) // 2, len(second) // 2)
    rise, fall = _equal_power(fade)
    overlap = first[len(first) - fade :] * fall + second[:fade] * rise
    return np.concatenate([first[: len(first) - fade], overlap, second[fade:]])


def loop_crossfade(noise: np.ndarray, length: int, sample_rate: int) -> np.ndarray:
    """The first `length` samples of `noise` [K] repeated endlessly, copies joined by equal-power cross-fades."""
    if len(noise) >= length:
        return noise[:length]
    if len(noise) == 0:
        raise ValueError("an empty noise cannot be looped")
    fade = min(round(FADE_S * sample_rate), len(noise) // 2)
    rise, fall = _equal_power(fade)
    period = noise[: len(noise) - fade].copy()
    period[:fade] = period[:fade] * rise + noise[len(noise) - fade :] * fall
    looped = np.resize(period, length)
    looped[: min(fade, length)] = noise[: min(fade, length)]  # nothing comes before the first copy
    return looped


def crop_or_pad(waveform: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of `waveform` [K], or all of it at a random place between zeros. Returns [length]."""
    spare = len(waveform) - length
    start = int(rng.integers(abs(spare) + 1))
    if spare >= 0:
        return waveform[start : start + length]
    return place(waveform, length, start)


def place(waveform: np.ndarray, length: int, start: int) -> np.ndarray:
    """`waveform` [K], K <= length - start, from sample `start` on between zeros. Returns [length]."""
    placed = np.zeros(length, dtype=waveform.dtype)
    placed[start : start + len(waveform)] = waveform
    return placed


def _equal_power(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rising and falling gains [length], whose squares sum to one: the level of unrelated noises stays constant."""
    angle = (np.arange(length, dtype=np.float32) + 0.5) * (np.pi / 2 / max(length, 1))
    return np.sin(angle, dtype=np.float32), np.cos(angle, dtype=np.float32)
