"""Quality of enhanced speech: the only call of PESQ, ESTOI and SI-SDR. Waveforms are [N] at 16 kHz.

A metric that is listed in `METRICS` is scored, kept in tables, printed, drawn and shown on pages; nobody else lists
metrics. To add one, write its function and its line in `METRICS`. One with a word of its own (`asked_as`) is computed
where it is asked for: `--metrics WORD`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pesq as pesq_library
import scipy  # its parts load when they are used

from sgmse.common.errors import UserError
from sgmse.common.registry import Registry
from sgmse.evaluation import opinions

SAMPLE_RATE = 16000

_SHORTEST_ESTOI_S = 0.4  # ESTOI compares spans of 30 frames (384 ms)
_INFINITE_DB = 140.0  # float32 rounds at about -150 dB: a ratio beyond that says nothing but "none left"
_MOST_UTTERANCES = 47  # the pesq library writes beyond its memory from 51 on, and `count_utterances` may be 3 % off

SignalName = Literal["clean", "noisy", "noise"]  # noise: noisy minus clean, whatever it is: for two talkers, the other


class NotScored(Exception):
    """A metric is not defined for this pair of signals. The message says why."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good an estimate is.

    Attributes:
        name: of its column in tables. title: of its column where people read, with the unit. decimals: shown there.
        higher_is_better: which way is up.
        compute: the signals [N] that `needs` names and `estimate` [N], by name → the value, or several of which this
            metric is number `part`. It raises `NotScored` where it is not defined.
        needs: the signals beside the estimate without which it has no value.
        asked_as: the word of `--metrics` that asks for it; empty for a metric that is always computed.
        is_binary: it is 0 or 1, so that its mean is a proportion.
    """

    name: str
    title: str
    decimals: int
    higher_is_better: bool
    compute: Callable[..., float | Sequence[float]]
    needs: tuple[SignalName, ...] = ("clean",)
    part: int = 0
    asked_as: str = ""
    is_binary: bool = False

    def format(self, value: float, signed: bool = False) -> str:
        """`value` with the decimals of this metric."""
        return f"{value:{'+' if signed else ''}z.{self.decimals}f}"


def names_in(columns: Collection[object]) -> list[str]:
    """The metrics among the columns of a table, in the order of `METRICS`."""
    find_plug_ins(columns)
    return [name for name in METRICS if name in columns]


def select_metrics(words: Sequence[str]) -> tuple[str, ...]:
    """The names of the metrics that `words` (of `--metrics`) ask for, in the order of `METRICS`."""
    find_plug_ins(words)
    known = list(dict.fromkeys(metric.asked_as for metric in METRICS.values() if metric.asked_as))
    unknown = [word for word in words if word not in known]
    if unknown:
        raise UserError(f"--metrics {unknown[0]}: there is no such metric; choose from {', '.join(known)}")
    for word in words:
        opinions.check_extra(word)
    return tuple(name for name, metric in METRICS.items() if metric.asked_as in words)


def find_plug_ins(names: Iterable[object]) -> None:
    """Bring the metrics of other packages among `names` into `METRICS`: those with a colon, as their columns have."""
    for name in names:
        if isinstance(name, str) and re.fullmatch(r"[\w.]+:\w+", name):
            METRICS[name]


def score(
    clean: np.ndarray | None,
    estimate: np.ndarray,
    sample_rate: int,
    noisy: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, float | str]:
    """Score `estimate` [N] against `clean` [N]; with `noisy` [N], also by the metrics that need it or the noise.

    Without `clean` only those metrics have a value that do not need it. Returns a row: each of `names` (default:
    `STANDARD`), NaN where the metric has no value, and `reason`, which then says why. A metric without a signal that it
    needs is NaN without a reason.

    Raises `ValueError` for another rate than 16 kHz, for other shapes than [N] and for lengths that differ. Whatever
    the values are, it returns.
    """
    names = STANDARD if names is None else names
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"metrics are defined at {SAMPLE_RATE} Hz, got {sample_rate} Hz: resample first")
    signals = {name: x for name, x in (("clean", clean), ("estimate", estimate), ("noisy", noisy)) if x is not None}
    if estimate.ndim != 1 or {x.shape for x in signals.values()} != {estimate.shape}:
        shapes = {name: x.shape for name, x in signals.items()}
        raise ValueError(f"clean, estimate and noisy must have one shape [N], got {shapes}")
    for name, waveform in signals.items():
        if not np.isfinite(waveform).all():
            return unscored(f"{name} holds NaN or Inf", names)
    for name in ("clean", "estimate"):
        if name in signals and not signals[name].any():
            return unscored(f"{name} is silent", names)
    if noisy is not None and clean is not None:  # float64, because noisy minus noise must give back clean exactly
        signals["noise"] = noisy.astype(np.float64) - clean

    row, reasons = unscored("", names), []
    computed: dict[object, Sequence[float]] = {}  # several metrics may be parts of one computation
    for metric in (METRICS[name] for name in names):
        if not signals.keys() >= set(metric.needs):
            continue
        try:
            if metric.compute not in computed:
                needed = {name: signals[name] for name in (*metric.needs, "estimate")}
                computed[metric.compute] = np.atleast_1d(metric.compute(**needed)).tolist()
            row[metric.name] = _finite(computed[metric.compute][metric.part], metric)
        except NotScored as error:
            reasons.append(str(error))
    return row | {"reason": "; ".join(dict.fromkeys(reasons))}


def unscored(reason: str, names: Sequence[str]) -> dict[str, float | str]:
    """The row of a file that no metric can score."""
    return {**dict.fromkeys(names, math.nan), "reason": reason}


def si_sdr(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, eq. 5), without removal of the mean.

    Infinite where nothing (+) or everything (-) is distortion.
    """
    clean, estimate = clean.astype(np.float64), estimate.astype(np.float64)
    target = _projection(estimate, clean)
    return _decibels(target, estimate - target)


def energy_ratios(clean: np.ndarray, estimate: np.ndarray, noise: np.ndarray) -> tuple[float, float, float]:
    """SI-SDR, SI-SIR and SI-SAR in dB (Le Roux et al. 2019, section 2.3).

    What is not a multiple of `clean` is split into its projection on the span of clean and noise (interference) and
    the rest (artifacts). The two are orthogonal, so 1/SDR = 1/SIR + 1/SAR as energies.
    """
    if not noise.any():
        raise NotScored("SI-SIR, SI-SAR: the noise is silent")
    estimate, clean, noise = (x.astype(np.float64) for x in (estimate, clean, noise))
    target = _projection(estimate, clean)
    residual = estimate - target
    beside = noise - _projection(noise, clean)  # clean and this one are an orthogonal basis of the span
    if np.dot(beside, beside) < 1e-20 * np.dot(noise, noise):
        beside = np.zeros_like(noise)  # the noise is a multiple of clean: what is left of it is rounding
    interference = _projection(residual, beside)
    artifacts = residual - interference
    return _decibels(target, residual), _decibels(target, interference), _decibels(target, artifacts)


def is_right_talker(clean: np.ndarray, estimate: np.ndarray, noise: np.ndarray) -> float:
    """1 where `estimate` is nearer to `clean` than to `noise`, the other talker, by SI-SDR; 0 where it is not.

    0.5 where it is equally near. A deterministic model that does not know which of the two to keep gives one output
    for both roles of a mixture, and so has a mean of exactly 0.5 over a set made by `make_testset.py swap`.
    """
    if not noise.any():
        raise NotScored("right talker: there is no other talker, the noise is silent")
    lead = si_sdr(clean, estimate) - si_sdr(noise, estimate)
    return 0.5 if lead == 0 or math.isnan(lead) else float(lead > 0)


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


def _finite(value: float, metric: Metric) -> float:
    """`value`; `NotScored` where it is a ratio that is infinite up to rounding: one such file would drown a mean."""
    if math.isnan(value):
        raise NotScored(f"{metric.title.split()[0]} is not a number")
    if abs(value) < _INFINITE_DB:
        return value
    raise NotScored(f"{metric.title.split()[0]} is {'minus ' if value < 0 else ''}infinite")


_OURS = (
    Metric("pesq", "PESQ", 3, True, pesq_wb),
    Metric("estoi", "ESTOI", 3, True, estoi),
    Metric("si_sdr", "SI-SDR dB", 2, True, si_sdr),
    Metric("si_sir", "SI-SIR dB", 2, True, energy_ratios, needs=("clean", "noise"), part=1),
    Metric("si_sar", "SI-SAR dB", 2, True, energy_ratios, needs=("clean", "noise"), part=2),
    Metric(
        "right_talker",
        "right talker",
        3,
        True,
        is_right_talker,
        needs=("clean", "noise"),
        asked_as="right_talker",
        is_binary=True,
    ),
    *(
        Metric(f"dnsmos_{name}", f"DNSMOS {title}", 2, True, opinions.dnsmos, (), part, asked_as="dnsmos")
        for part, (name, title) in enumerate(zip(opinions.DNSMOS, ("SIG", "BAK", "OVRL", "P.808"), strict=True))
    ),
    Metric("distillmos", "DistillMOS", 2, True, opinions.distillmos, needs=(), asked_as="distillmos"),
    Metric("speaker_similarity", "same voice", 3, True, opinions.speaker_similarity, asked_as="speaker_similarity"),
)
METRICS = Registry(
    "--metrics",
    Metric,
    {metric.name: metric for metric in _OURS},
    adopt=lambda name, metric: replace(metric, name=name, asked_as=name),
)
STANDARD = tuple(name for name, metric in METRICS.items() if not metric.asked_as)
MAIN = tuple(name for name in STANDARD if METRICS[name].needs == ("clean",))  # those that every file can have
FIRST = MAIN[0]  # the one that rankings and verdicts go by
