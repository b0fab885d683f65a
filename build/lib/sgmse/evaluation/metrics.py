"""Quality of enhanced speech: the only call of PESQ, ESTOI and SI-SDR. Waveforms are [N] at 16 kHz.

A metric that is listed in `METRICS` is scored, kept in tables, printed, drawn and shown on pages; nobody else lists
metrics. To add one, write its function and its line in `METRICS`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pesq as pesq_library
import scipy  # its parts load when they are used

SAMPLE_RATE = 16000

_SHORTEST_ESTOI_S = 0.4  # ESTOI compares spans of 30 frames (384 ms)
_INFINITE_DB = 140.0  # float32 rounds at about -150 dB: a ratio beyond that says nothing but "none left"
_MOST_UTTERANCES = 47  # the pesq library writes beyond its memory from 51 on, and `count_utterances` may be 3 % off


class NotScored(Exception):
    """A metric is not defined for this pair of signals. The message says why."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good an estimate is.

    Attributes:
        name: of its column in tables. title: of its column where people read, with the unit. decimals: shown there.
        higher_is_better: which way is up.
        compute: (clean [N], estimate [N], noise [N] or None) → value; raises `NotScored` where it is not defined.
        needs_noise: whether it needs the noise of the mixture, which only a noisy file beside the clean one gives.
    """

    name: str
    title: str
    decimals: int
    higher_is_better: bool
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]
    needs_noise: bool = False

    def format(self, value: float, signed: bool = False) -> str:
        """`value` with the decimals of this metric."""
        return f"{value:{'+' if signed else ''}z.{self.decimals}f}"


def score(
    clean: np.ndarray, estimate: np.ndarray, sample_rate: int, noise: np.ndarray | None = None
) -> dict[str, float | str]:
    """Score `estimate` [N] against `clean` [N] with every metric; with `noise` [N], those that need it as well.

    Returns a row: each name in `METRICS`, NaN where the metric has no value, and `reason`, which then says why. A
    metric without the noise that it needs is NaN without a reason.

    Raises `ValueError` for another rate than 16 kHz, for other shapes than [N] and for lengths that differ. Whatever
    the values are, it returns.
    """
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"metrics are defined at {SAMPLE_RATE} Hz, got {sample_rate} Hz: resample first")
    if clean.ndim != 1 or clean.shape != estimate.shape or (noise is not None and noise.shape != clean.shape):
        shapes = [None if x is None else x.shape for x in (clean, estimate, noise)]
        raise ValueError(f"clean, estimate and noise must have one shape [N], got {shapes}")
    for name, waveform in (("clean", clean), ("estimate", estimate), ("noise", noise)):
        if waveform is not None and not np.isfinite(waveform).all():
            return unscored(f"{name} holds NaN or Inf")
    for name, waveform in (("clean", clean), ("estimate", estimate)):
        if not waveform.any():
            return unscored(f"{name} is silent")

    row, reasons = unscored(""), []
    for name, metric in METRICS.items():
        if metric.needs_noise and noise is None:
            continue
        try:
            row[name] = float(metric.compute(clean, estimate, noise))
        except NotScored as error:
            reasons.append(str(error))
    return row | {"reason": "; ".join(dict.fromkeys(reasons))}


def unscored(reason: str) -> dict[str, float | str]:
    """The row of a file that no metric can score."""
    return {**dict.fromkeys(METRICS, math.nan), "reason": reason}


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
    """Wide-band PESQ (MOS-LQO, ITU-T P.862.2). Raises `NotScored` where it finds no utterance, too many, or fails."""
    utterances = count_utterances(clean)
    if utterances > _MOST_UTTERANCES:
        raise NotScored(f"PESQ has room for 50 utterances, this recording has about {utterances}: score it in parts")
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
    import pystoi  # it loads scipy.signal, which takes a second

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


def count_utterances(clean: np.ndarray) -> int:
    """About how many utterances PESQ will find in `clean` [N]: stretches of speech of 200 ms or more, joined over
    pauses of up to 200 ms (the activity detection of ITU-T P.862, 10.1.4, on an approximation of its filter).

    On concatenated read speech it is within 3 % of what the library counts.
    """
    window = SAMPLE_RATE // 250  # 4 ms
    if len(clean) < 50 * 100 * window:
        return 0  # 200 ms of speech and 200 ms of pause each: fifty do not fit
    # PESQ pads both ends with 300 ms and more of silence, which its first threshold, the mean level, takes in.
    band = scipy.signal.butter(2, (300, 3300), "bandpass", fs=SAMPLE_RATE, output="sos")
    telephone = scipy.signal.sosfilt(band, clean - clean.mean())
    padded = np.pad(telephone, (75 * window, 155 * window))
    levels = (padded[: len(padded) // window * window].reshape(-1, window) ** 2).mean(axis=1)
    threshold, levels = levels.mean(), np.maximum(levels, 1e-4 * levels.max())
    for _ in range(12):  # what lies two deviations above the rest is speech
        quiet = levels[levels <= threshold]
        threshold = 1.001 * (quiet.mean() + 2 * quiet.std()) if len(quiet) else threshold
    speech = levels > threshold
    if speech.all() or not speech.any():
        return 1
    is_faint = levels[speech].mean() >= 1000 * levels[~speech].mean()  # then stretches near the threshold are noise
    for start, end in _stretches(speech):
        if end - start <= 4 or (is_faint and levels[start:end].mean() < 3 * threshold):
            speech[start:end] = False
    for start, end in _stretches(~speech):
        speech[start:end] |= start > 0 and end < len(speech) and end - start <= 50
    return sum(end - start >= 46 for start, end in _stretches(speech))  # 50 with the edges that PESQ then adds


def _stretches(flags: np.ndarray) -> np.ndarray:
    """Start and end [K, 2] of the stretches in which `flags` [N] are true."""
    return np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int))).reshape(-1, 2)


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


def _finite(ratio: float, name: str) -> float:
    """`ratio` in dB; `NotScored` where it is infinite up to rounding: one such file would drown a mean."""
    if abs(ratio) < _INFINITE_DB:
        return ratio
    raise NotScored(f"{name} is {'minus ' if ratio < 0 else ''}infinite")


def _energy_ratio(place: int, name: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]:
    """The metric that is the number at `place` of `energy_ratios`."""

    def compute(clean: np.ndarray, estimate: np.ndarray, noise: np.ndarray | None) -> float:
        if noise is None or not noise.any():
            raise NotScored("SI-SIR, SI-SAR: the noise is silent")
        return _finite(energy_ratios(estimate, clean, noise)[place], name)

    return compute


METRICS = {
    metric.name: metric
    for metric in (
        Metric("pesq", "PESQ", 3, True, lambda clean, estimate, _: pesq_wb(clean, estimate)),
        Metric("estoi", "ESTOI", 3, True, lambda clean, estimate, _: estoi(clean, estimate)),
        Metric("si_sdr", "SI-SDR dB", 2, True, lambda clean, estimate, _: _finite(si_sdr(clean, estimate), "SI-SDR")),
        Metric("si_sir", "SI-SIR dB", 2, True, _energy_ratio(1, "SI-SIR"), needs_noise=True),
        Metric("si_sar", "SI-SAR dB", 2, True, _energy_ratio(2, "SI-SAR"), needs_noise=True),
    )
}
MAIN = tuple(name for name, metric in METRICS.items() if not metric.needs_noise)  # those that every file can have
FIRST = MAIN[0]  # the one that rankings and verdicts go by
