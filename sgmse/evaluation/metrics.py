"""Quality of enhanced speech: the only call of PESQ, ESTOI and SI-SDR. Waveforms are [N] at 16 kHz."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pesq as pesq_library
import pystoi

SAMPLE_RATE = 16000
METRICS = ("pesq", "estoi", "si_sdr", "si_sir", "si_sar")

_SHORTEST_ESTOI_S = 0.4  # ESTOI compares spans of 30 frames (384 ms)
_INFINITE_DB = 140.0  # float32 rounds at about -150 dB: a ratio beyond that says nothing but "none left"


class NotScored(Exception):
    """A metric is not defined for this pair of signals. The message says why."""


@dataclass(frozen=True)
class Scores:
    """Metrics of one file; NaN where one is not available, and then `reason` says why."""

    pesq: float = math.nan
    estoi: float = math.nan
    si_sdr: float = math.nan
    si_sir: float = math.nan
    si_sar: float = math.nan
    reason: str = ""


def score(clean: np.ndarray, estimate: np.ndarray, sample_rate: int, noise: np.ndarray | None = None) -> Scores:
    """Score `estimate` [N] against `clean` [N]; with `noise` [N], SI-SIR and SI-SAR as well.

    Raises `ValueError` for another rate than 16 kHz, for other shapes than [N] and for lengths that differ. Whatever
    the values are, it returns: a metric that they do not allow is NaN, with a reason.
    """
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"metrics are defined at {SAMPLE_RATE} Hz, got {sample_rate} Hz: resample first")
    if clean.ndim != 1 or clean.shape != estimate.shape or (noise is not None and noise.shape != clean.shape):
        shapes = [None if x is None else x.shape for x in (clean, estimate, noise)]
        raise ValueError(f"clean, estimate and noise must have one shape [N], got {shapes}")
    for name, waveform in (("clean", clean), ("estimate", estimate), ("noise", noise)):
        if waveform is not None and not np.isfinite(waveform).all():
            return Scores(reason=f"{name} holds NaN or Inf")
    for name, waveform in (("clean", clean), ("estimate", estimate)):
        if not waveform.any():
            return Scores(reason=f"{name} is silent")

    reasons: list[str] = []

    def attempt(metric: Callable[[np.ndarray, np.ndarray], float]) -> float:
        try:
            return metric(clean, estimate)
        except NotScored as error:
            reasons.append(str(error))
            return math.nan

    pesq, extended_stoi, sdr = attempt(pesq_wb), attempt(estoi), _finite(si_sdr(clean, estimate), "SI-SDR", reasons)
    sir = sar = math.nan
    if noise is not None and not noise.any():
        reasons.append("SI-SIR, SI-SAR: the noise is silent")
    elif noise is not None:
        _, sir, sar = energy_ratios(estimate, clean, noise)
        sir, sar = _finite(sir, "SI-SIR", reasons), _finite(sar, "SI-SAR", reasons)
    return Scores(pesq, extended_stoi, sdr, sir, sar, "; ".join(reasons))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, eq. 5), without removal of the mean.

    Infinite where nothing (+) or everything (-) is distortion.
    """
    reference, estimate = reference.astype(np.float64), estimate.astype(np.float64)
    target = _projection(estimate, reference)
    return _decibels(target, estimate - target)


def energy_ratios(estimate: np.ndarray, clean: np.ndarray, noise: np.ndarray) -> tuple[float, float, float]:
    """SI-SDR, SI-SIR and SI-SAR in dB (Le Roux et al. 2019, section 2.3).

    What is not a multiple of `clean` is split into its projection on the span of clean and noise (interference) and
    the rest (artifacts). The two are orthogonal, so 1/SDR = 1/SIR + 1/SAR as energies.
    """
    estimate, clean, noise = (x.astype(np.float64) for x in (estimate, clean, noise))
    target = _projection(estimate, clean)
    residual = estimate - target
    beside = noise - _projection(noise, clean)  # clean and this one are an orthogonal basis of the span
    if np.dot(beside, beside) < 1e-20 * np.dot(noise, noise):
        beside = np.zeros_like(noise)  # the noise is a multiple of clean: what is left of it is rounding
    interference = _projection(residual, beside)
    artifacts = residual - interference
    return _decibels(target, residual), _decibels(target, interference), _decibels(target, artifacts)


def pesq_wb(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Wide-band PESQ (MOS-LQO, ITU-T P.862.2). Raises `NotScored` where it finds no utterance or fails."""
    try:
        value = float(pesq_library.pesq(SAMPLE_RATE, clean, estimate, "wb"))
    except pesq_library.NoUtterancesError:
        raise NotScored("PESQ found no utterance") from None
    except pesq_library.PesqError as error:
        detail = error.args[0] if error.args else type(error).__name__
        raise NotScored(f"PESQ: {detail.decode() if isinstance(detail, bytes) else detail}") from None
    except ValueError as error:  # its time alignment divides by the energy of a signal that may be silent
        raise NotScored(f"PESQ: {error}") from None
    if math.isnan(value):
        raise NotScored("PESQ returned NaN")
    return value


def estoi(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Extended STOI (Jensen and Taal 2016). Raises `NotScored` for too little speech."""
    if len(clean) < _SHORTEST_ESTOI_S * SAMPLE_RATE:
        raise NotScored(f"ESTOI: shorter than {_SHORTEST_ESTOI_S} s")
    with warnings.catch_warnings(record=True) as caught, _fixed_global_random_state():
        warnings.simplefilter("always")
        value = float(pystoi.stoi(clean, estimate, SAMPLE_RATE, extended=True))
    # The library answers 1e-5, a number like any other, when silence removal leaves too few frames.
    if any("Not enough STFT frames" in str(warning.message) for warning in caught):
        raise NotScored("ESTOI: too little speech")
    if math.isnan(value):
        raise NotScored("ESTOI returned NaN")
    return value


@contextmanager
def _fixed_global_random_state() -> Iterator[None]:
    """ESTOI dithers with numpy's global generator: same input, same score, and nobody else's draws change."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _projection(signal: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The multiple of `onto` [N] that is nearest to `signal` [N]."""
    energy = np.dot(onto, onto)
    return (np.dot(signal, onto) / energy if energy > 0 else 0.0) * onto


def _decibels(signal: np.ndarray, distortion: np.ndarray) -> float:
    """Ratio of two energies in dB; infinite, not an error, where one of them is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.dot(signal, signal) / np.dot(distortion, distortion)))


def _finite(ratio: float, name: str, reasons: list[str]) -> float:
    """`ratio` in dB, or NaN and a reason where it is infinite up to rounding: one such file would drown a mean."""
    if abs(ratio) < _INFINITE_DB:
        return ratio
    reasons.append(f"{name} is {'minus ' if ratio < 0 else ''}infinite")
    return math.nan
