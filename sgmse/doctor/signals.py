"""Checks of audio files: their rates, silence, clipping, offsets; and whether a noisy file holds its own clean file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmse.common.errors import UserError
from sgmse.common.progress import track
from sgmse.data import audio, levels, listing
from sgmse.data.audio import AudioInfo
from sgmse.data.containers import check_end, open_audio
from sgmse.data.corpora import Pair
from sgmse.data.mixing import is_silent, rms
from sgmse.doctor import UNREADABLE, Problem, Report, sample

_READ_S, _PAIR_READ_S = 30.0, 10.0  # of each file and of each pair, so that memory does not depend on their length
_FULL_SCALE = 0.9  # a flat top below is the sound's own
_RUN, _RUNS = 4, 2  # equal samples in a row at the peak, and how often
_LEAST_GAIN = 0.3  # of the clean file in the noisy one; at -10 dB chance reaches 0.1
_MAX_LAG_S = 1.0
_LAG = 2  # samples
_ROLE_CORRELATION = 0.1
_BIN_DB, _BAR = 5, 40

_SILENT = Problem("are silent", "remove them: they train and test nothing")
_CLIPPED = Problem(
    f"are clipped (flat tops of {_RUN} samples and more near full scale)",
    "take the unclipped recordings, or leave these out: a clipped target teaches clipping",
)
_OFFSET, _CLICK, _COARSE = (Problem(*fault) for fault in (levels.OFFSET, levels.CLICK, levels.COARSE))
_UNMATCHED = Problem(
    "have no partner of the same name", "bring both folders to the same names, or remove what is alone", True
)
TWICE = Problem("have the name of another but for its suffix or accents", "keep one of the two", True)
_UNEQUAL = Problem("differ in length or rate", "cut or resample them alike, or replace them", True)
_FOREIGN = Problem(
    "noisy files do not hold their clean file; names may be swapped",
    "compare these files with their neighbours by ear and give each its own name back",
    True,
)
_REVERSED = Problem("have clean and noisy exchanged", "move the files to the other folder", True)
_EQUAL = Problem("noisy files equal their clean file", "mix the noise in, or leave them out", True)


def find_headers(report: Report, label: str, folder: Path, what: str) -> list[AudioInfo]:
    """The headers of all audio of a folder; see `read_headers`."""
    return read_headers(report, label, *listing.search(folder, what))


def read_headers(report: Report, label: str, paths: Iterable[Path], known: Sequence[str] = ()) -> list[AudioInfo]:
    """The headers of files; those that cannot be read are a problem and left out. known: sentences about others."""
    found, broken = listing.scan_headers(paths)
    broken += known
    report.add_files(f"{label}: of {len(found) + len(broken)} files", {UNREADABLE: broken})
    return found


def check_files(report: Report, label: str, files: Sequence[AudioInfo], max_files: int) -> None:
    """How much there is and at which rates; silent and clipped files, and those with a constant offset.

    The first 30 s of each file are decoded.
    """
    minutes = sum(info.seconds for info in files) / 60
    report.facts.append(f"{label}: {len(files)} files, {minutes:.1f} min; {_count_rates(files)}")
    found: dict[Problem, list[Path | str]] = {
        UNREADABLE: [],
        _SILENT: [],
        _CLIPPED: [],
        _OFFSET: [],
        _CLICK: [],
        _COARSE: [],
    }
    chosen, number = sample(files, max_files, "files")
    for info in track(chosen, len(chosen), label):
        try:
            with open_audio(info.path) as file:
                check_end(info.path, file)
            waveform = audio.read(info.path, None, 0.0, _READ_S)
        except UserError as error:
            found[UNREADABLE].append(str(error))
            continue
        if is_silent(waveform):
            found[_SILENT].append(info.path)
            continue
        if is_clipped(waveform):
            found[_CLIPPED].append(info.path)
        for fault in levels.find_faults(info, levels.measure_level([waveform[None]])):
            found[Problem(*fault)].append(info.path)
    _, silent, clipped, shifted, *_ = map(len, found.values())
    subject = f"{label}: of {number}"
    report.facts.append(f"{subject}, {silent} silent, {clipped} clipped, {shifted} with a constant offset (DC)")
    report.add_files(subject, found)


def check_scored_rates(report: Report, files: Sequence[AudioInfo], sample_rate: int) -> None:
    """Rates of pairs and test sets, which other programs read as they are, against that of the model."""
    other = [info for info in files if info.sample_rate != sample_rate]
    if other:
        what = (
            f"{len(other)} of {len(files)} clean and noisy files are not at the model's {sample_rate} Hz "
            f"({_count_rates(other)}). They are resampled here on load, but every other program that reads or scores "
            "them takes them as they are, and scores at two rates cannot be compared"
        )
        remedy = (
            f"resample the corpus to {sample_rate} Hz once (scripts/prepare.py does it for VoiceBank-DEMAND), or train "
            "with the corpus' own --sample_rate"
        )
        # Before all others: it makes most of them meaningless.
        report.problems.insert(0, Problem(what, remedy, True, [info.path for info in other]))


def check_mixed_rates(
    report: Report, label: str, files: Sequence[AudioInfo], sample_rate: int, falsifies: bool
) -> None:
    """Rates of recordings that training mixes: higher ones are resampled on load, lower ones lack the upper band."""
    lower = [info for info in files if info.sample_rate < sample_rate]
    if lower:
        what = f"{label}: {len(lower)} of {len(files)} files are below the model's {sample_rate} Hz "
        what += f"({_count_rates(lower)}) and hold nothing above half their rate"
        remedy = "leave them out, or train with their --sample_rate"
        report.add_problem(what, remedy, falsifies, [info.path for info in lower])


def index_by_name(folder: Path, paths: Iterable[Path]) -> tuple[dict[str, Path], list[Path]]:
    """The files of a folder by what partners have in common, and those whose name another has already."""
    found: dict[str, Path] = {}
    twice = [path for path in paths if found.setdefault(listing.name_in(folder, path), path) != path]
    return found, twice


def match_pairs(report: Report, label: str, folder: Path, infos: Iterable[AudioInfo]) -> list[Pair]:
    """The pairs of a folder whose headers are known; no partner, or an unequal length or rate, is a problem."""
    known = {info.path: info for info in infos}
    places = [folder / "clean", folder / "noisy"]
    (clean, _), (noisy, _) = indexed = [index_by_name(place, listing.search(place)[0]) for place in places]
    for place, (found, twice) in zip(places, indexed, strict=True):
        report.add_files(f"{place}: of {len(found) + len(twice)} files", {TWICE: twice})
    shared = {name: {clean[name], noisy[name]} for name in sorted(clean.keys() & noisy.keys())}
    pairs = [Pair(name, known[clean[name]], known[noisy[name]]) for name in shared if shared[name] <= known.keys()]
    unmatched = [clean.get(name) or noisy[name] for name in sorted(clean.keys() ^ noisy.keys())]
    report.add_files(f"{label}: of {len(clean.keys() | noisy.keys())} names", {_UNMATCHED: unmatched})
    unequal = [pair.noisy.path for pair in pairs if not pair.is_equal]
    report.add_files(f"{label}: of {len(pairs)} pairs", {_UNEQUAL: unequal})
    return [pair for pair in pairs if pair.is_equal]


def check_pairs(report: Report, label: str, pairs: Sequence[Pair], max_files: int) -> None:
    """Alignment, swaps and the histogram of SNRs, from the first 10 s of each pair."""
    chosen, number = sample(pairs, max_files, "pairs")
    found: dict[Problem, list[Path]] = {_FOREIGN: [], _REVERSED: [], _EQUAL: []}
    snrs, lags = [], {}
    for pair in track(chosen, len(chosen), f"{label}: pairs", "pair"):
        try:
            clean, noisy = (audio.read(info.path, None, 0.0, _PAIR_READ_S) for info in (pair.clean, pair.noisy))
        except UserError:
            continue  # the check of single files says it, as it says that a file is silent
        if is_silent(clean) or is_silent(noisy):
            continue
        result, path = compare(clean, noisy, pair.clean.sample_rate), pair.noisy.path
        if np.array_equal(clean, noisy):
            found[_EQUAL].append(path)
        elif result.is_reversed:
            found[_REVERSED].append(path)
        elif result.gain < _LEAST_GAIN:
            found[_FOREIGN].append(path)
        else:
            snrs.append(result.snr_db)
            if abs(result.lag) >= _LAG:
                lags[path] = result.lag
    report.add_files(f"{label}: of {number}", found)
    if lags:
        lag, times = Counter(lags.values()).most_common(1)[0]
        delay = f"the most frequent delay of the noisy file is {lag} samples ({times} files)"
        remedy = "shift one of the two; a delay of a codec or filter is the same for all files"
        report.add_files(f"{label}: of {number}", {Problem(f"are not aligned; {delay}", remedy, True): list(lags)})
    if snrs:
        report.facts.append(f"{label}: SNR of {len(snrs)} pairs, mean {np.mean(snrs):.1f} dB\n{histogram(snrs)}")


class Comparison(NamedTuple):
    """How a clean file lies in its noisy one.

    lag: samples by which it comes later there. gain: its factor there, by regression. snr_db: ratio of energies to
    noisy - clean. is_reversed: the "clean" file is the noisy one and the other way round.
    """

    lag: int
    gain: float
    snr_db: float
    is_reversed: bool


def compare(clean: np.ndarray, noisy: np.ndarray, sample_rate: int) -> Comparison:
    """Compare two signals [N] of equal length; neither may be silent."""
    lag = _find_lag(clean, noisy, round(_MAX_LAG_S * sample_rate))
    before, after = max(0, -lag), max(0, lag)
    here = clean[before : len(clean) - after].astype(np.float64)
    there = noisy[after : len(noisy) - before].astype(np.float64)
    gain = float(here @ there) / max(float(here @ here), 1e-12)
    residual = there - here
    # In the right order the residual is noise, unlike the clean file; in the wrong one it is the noise's negative.
    with_clean, with_noisy = _correlate(residual, here), _correlate(residual, there)
    is_reversed = with_clean < -_ROLE_CORRELATION and abs(with_noisy) < -with_clean / 3
    snr_db = 20 * np.log10(rms(here) / rms(residual)) if residual.any() else np.inf
    return Comparison(lag, gain, float(snr_db), bool(is_reversed))


def is_clipped(waveform: np.ndarray) -> bool:
    """Whether `waveform` [N] stays at its peak, near full scale, for runs of samples."""
    peak = np.abs(waveform).max(initial=0.0)
    flat = (np.abs(waveform) >= peak * (1 - 1e-4)).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    return bool(peak >= _FULL_SCALE and np.sum(edges[1::2] - edges[::2] >= _RUN) >= _RUNS)


def histogram(values: Sequence[float]) -> str:
    """Rows around the multiples of 5 dB, with a bar each."""
    bins = Counter(round(value / _BIN_DB) * _BIN_DB for value in values if np.isfinite(value))
    if not bins:
        return ""
    most = max(bins.values())
    bars = {around: round(_BAR * bins[around] / most) for around in range(min(bins), max(bins) + _BIN_DB, _BIN_DB)}
    return "\n".join(f"  {around:>4} dB {'#' * bar:{_BAR}} {bins[around]}" for around, bar in bars.items())


def _count_rates(files: Sequence[AudioInfo]) -> str:
    counts = Counter(info.sample_rate for info in files)
    return ", ".join(f"{number} at {rate} Hz" for rate, number in counts.most_common())


def _find_lag(clean: np.ndarray, noisy: np.ndarray, furthest: int) -> int:
    """Samples by which `clean` [N] comes later in `noisy` [N]: the peak of their whitened cross-correlation."""
    size = 2 ** int(np.ceil(np.log2(len(clean) + furthest)))
    cross = np.fft.rfft(noisy, size) * np.conj(np.fft.rfft(clean, size))
    correlation = np.fft.irfft(cross / np.maximum(np.abs(cross), 1e-3 * np.abs(cross).max()), size)
    near = np.concatenate([correlation[-furthest:], correlation[: furthest + 1]])
    return int(np.argmax(near)) - furthest


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / max(math.sqrt((a @ a) * (b @ b)), 1e-12)
