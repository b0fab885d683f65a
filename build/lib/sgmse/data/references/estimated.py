"""A noise reference from the noisy recording alone: its speech-free stretches, or else the noise's spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy  # its parts load when they are used
import torch

from sgmse.data import audio
from sgmse.data.mixing import crossfade, is_silent
from sgmse.data.references import NO_REFERENCE

MIN_S, MAX_S = 0.25, 4.0
GUARD_S = 0.05  # on both sides of speech, which begins and ends softly
SHORTEST_GAP_S = 0.1
SHAPED_S = 1.0
_SPEECH_PROBABILITY = 0.3  # below the detector's usual 0.5: a lost gap costs less than speech in the reference
_VAD_RATE = 16000
_FRAME_S = 0.032
_SMOOTHING_S = 0.1  # of the periodogram; on speech with steady noise 0.2 s errs by 2.4 dB, 0.1 s by 1.6 dB
_WINDOW_S = 1.5  # within which speech pauses in every bin (Martin 2001, Sec. II)

Stretch = tuple[int, int]  # [start, end) in samples


class Estimate(NamedTuple):
    """reference [M], of length 0 for a silent recording, and how it was found.

    way: "gaps" between speech, or "minimum": Gaussian noise with the spectrum that minimum statistics give.
    """

    reference: np.ndarray
    way: Literal["gaps", "minimum"]


def estimate_noise(noisy: np.ndarray, sample_rate: int, seed: int) -> Estimate:
    """The noise of `noisy` [N], as far as the recording itself tells; `seed` draws Gaussian noise where it is needed.

    Stretches without speech, if they last 0.25 s together; else 1 s of noise with the estimated spectrum.
    """
    if is_silent(noisy):
        return Estimate(NO_REFERENCE, "gaps")
    reference = join_gaps(noisy, find_speech(noisy, sample_rate), sample_rate)
    if len(reference) >= round(MIN_S * sample_rate):
        return Estimate(reference, "gaps")
    power = minimum_statistics(noisy, sample_rate)
    return Estimate(shape_noise(power, round(SHAPED_S * sample_rate), np.random.default_rng(seed)), "minimum")


def find_speech(noisy: np.ndarray, sample_rate: int) -> list[Stretch]:
    """The stretches of `noisy` [N] with speech, a guard of 50 ms included (Silero VAD)."""
    with _one_thread():
        from silero_vad import get_speech_timestamps  # torch's number of threads is set to 1 by this import

        found = get_speech_timestamps(
            torch.from_numpy(audio.resample(noisy, sample_rate, _VAD_RATE)),
            _detector(),
            threshold=_SPEECH_PROBABILITY,
            sampling_rate=_VAD_RATE,
            min_speech_duration_ms=64,
            min_silence_duration_ms=32,
            speech_pad_ms=round(1000 * GUARD_S),
        )
    scale = sample_rate / _VAD_RATE
    return [(int(part["start"] * scale), min(len(noisy), int(np.ceil(part["end"] * scale)))) for part in found]


def join_gaps(noisy: np.ndarray, spoken: list[Stretch], sample_rate: int) -> np.ndarray:
    """What lies between the stretches `spoken` (in order) of `noisy` [N], joined by cross-fades. Returns [M <= 4 s].

    Gaps below 0.1 s and digital silence are left out.
    """
    edges = [0, *(edge for stretch in spoken for edge in stretch), len(noisy)]
    gaps = [noisy[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    joined = NO_REFERENCE
    for gap in gaps:
        if len(gap) >= round(SHORTEST_GAP_S * sample_rate) and not is_silent(gap):
            joined = crossfade(joined, gap, sample_rate)
    return joined[: round(MAX_S * sample_rate)]


def minimum_statistics(noisy: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power density [F] of the noise in `noisy` [N] per sample and bin: that of white noise is its variance.

    The minimum of the smoothed periodogram within windows of 1.5 s, averaged over time (Martin 2001), which assumes
    noise that is steady over the file. The minimum lies below the mean; by how much (Martin's bias B_min) is found by
    the same steps on white noise, so that steady Gaussian noise is met without bias.
    """
    size = 2 * round(_FRAME_S / 2 * sample_rate)
    white = np.random.default_rng(0).standard_normal(max(len(noisy), size)).astype(np.float32)
    return _minimum(noisy, size) / _minimum(white, size).mean()


def shape_noise(power: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise [length] with the power density `power` [F] of `minimum_statistics`."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    place = np.linspace(0, len(power) - 1, len(spectrum))
    gains = np.sqrt(np.interp(place, np.arange(len(power)), power))
    return np.fft.irfft(gains * spectrum, length).astype(np.float32)


def _minimum(waveform: np.ndarray, size: int) -> np.ndarray:
    """The minimum over windows of the smoothed periodogram of `waveform` [N], averaged over time. Returns [F]."""
    hop = size // 4
    window = scipy.signal.get_window("hann", size)
    padded = np.pad(waveform, (0, max(0, size - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    periodogram = np.abs(np.fft.rfft(frames * window)) ** 2 / np.sum(window**2)
    frames_of = {seconds: max(1, round(seconds / _FRAME_S * size / hop)) for seconds in (_SMOOTHING_S, _WINDOW_S)}
    smoothed = scipy.ndimage.uniform_filter1d(periodogram, frames_of[_SMOOTHING_S], axis=0, mode="nearest")
    return scipy.ndimage.minimum_filter1d(smoothed, frames_of[_WINDOW_S], axis=0, mode="nearest").mean(axis=0)


@lru_cache(maxsize=1)
def _detector() -> Any:
    from silero_vad import load_silero_vad

    return load_silero_vad()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: more only wait for each other in so small a network. Afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
