"""Checks of clean and noisy files: does each noisy file hold its own clean file, at the same place, plus noise?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import Pair
from sgmse.data.mixing import is_silent, rms
from sgmse.doctor.report import Problem, Report, count, sample

READ_S = 10.0
LEAST_GAIN = 0.3  # of the clean file in the noisy one; at -10 dB chance reaches 0.1
_MAX_LAG_S = 1.0
_LAG = 2  # samples
_ROLE_CORRELATION = 0.1
_BIN_DB = 5
_BAR = 40

_ALONE = Problem(
    "have no partner of the same name", "bring both folders to the same names, or remove what is alone", True
)
_UNEQUAL = Problem("differ in length or rate", "cut or resample them alike, or replace them", True)
_FOREIGN = Problem(
    "noisy files do not hold their clean file; names may be swapped",
    "compare these files with their neighbours by ear and give each its own name back",
    True,
)
_REVERSED = Problem("have clean and noisy exchanged", "move the files to the other folder", True)
_EQUAL = Problem("noisy files equal their clean file", "mix the noise in, or leave them out", True)


class Comparison(NamedTuple):
    """How a clean file lies in its noisy one.

    lag: samples by which it comes later there. gain: its factor there, by regression. snr_db: ratio of energies to
    noisy - clean. is_reversed: the "clean" file is the noisy one and the other way round.
    """

    lag: int
    gain: float
    snr_db: float
    is_reversed: bool


def match_pairs(report: Report, label: str, folder: Path, readable: Mapping[Path, AudioInfo]) -> list[Pair]:
    """The pairs of a folder whose files are `readable`; no partner, or an unequal length or rate, is a problem."""
    paths, alone = corpora.match_names(folder / "clean", folder / "noisy", f" ({label})")
    pairs = [
        Pair(name, readable[clean], readable[noisy])
        for name, (clean, noisy) in paths.items()
        if {clean, noisy} <= readable.keys()
    ]
    equal = [pair for pair in pairs if pair.is_equal]
    report.files(f"{label}: of {len(paths) + len(alone)} names", {_ALONE: alone})
    unequal = [pair.noisy.path for pair in pairs if not pair.is_equal]
    report.files(f"{label}: of {len(pairs)} pairs", {_UNEQUAL: unequal})
    return equal


def check_pairs(report: Report, label: str, pairs: Sequence[Pair], max_files: int) -> None:
    """Alignment, swaps and the histogram of SNRs, from the first 10 s of each pair."""
    looked_at = sample(pairs, max_files)
    found: dict[Problem, list[Path]] = {_FOREIGN: [], _REVERSED: [], _EQUAL: []}
    snrs, lags = [], {}
    for pair in tqdm(looked_at, desc=f"{label}: pairs", leave=False):
        try:
            clean, noisy = (audio.read(info.path, None, 0.0, READ_S) for info in (pair.clean, pair.noisy))
        except UserError:
            continue  # the check of single files says it, as it says that a file is silent
        if is_silent(clean) or is_silent(noisy):
            continue
        result, path = compare(clean, noisy, pair.clean.sample_rate), pair.noisy.path
        if np.array_equal(clean, noisy):
            found[_EQUAL].append(path)
        elif result.is_reversed:
            found[_REVERSED].append(path)
        elif result.gain < LEAST_GAIN:
            found[_FOREIGN].append(path)
        else:
            snrs.append(result.snr_db)
            if abs(result.lag) >= _LAG:
                lags[path] = result.lag
    subject = f"{label}: of {count(len(looked_at), len(pairs))} pairs"
    report.files(subject, found)
    if lags:
        common, times = Counter(lags.values()).most_common(1)[0]
        report.problem(
            f"{subject}, {len(lags)} are not aligned; the most frequent delay of the noisy file is {common} samples "
            f"({times} files)",
            "shift one of the two; a delay of a codec or filter is the same for all files",
            falsifies=True,
            where=list(lags),
        )
    if snrs:
        report.fact(f"{label}: SNR of {len(snrs)} pairs, mean {np.mean(snrs):.1f} dB\n{histogram(snrs)}")


def compare(clean: np.ndarray, noisy: np.ndarray, sample_rate: int) -> Comparison:
    """Compare two signals [N] of equal length; neither may be silent."""
    lag = _lag(clean, noisy, round(_MAX_LAG_S * sample_rate))
    before, after = max(0, -lag), max(0, lag)
    here = clean[before : len(clean) - after].astype(np.float64)
    there = noisy[after : len(noisy) - before].astype(np.float64)
    gain = float(here @ there) / max(float(here @ here), 1e-12)
    residual = there - here
    # In the right order the residual is noise, unlike the clean file; in the wrong one it is the noise's negative.
    with_clean, with_noisy = _correlation(residual, here), _correlation(residual, there)
    is_reversed = with_clean < -_ROLE_CORRELATION and abs(with_noisy) < -with_clean / 3
    snr_db = 20 * np.log10(rms(here) / rms(residual)) if residual.any() else np.inf
    return Comparison(lag, gain, float(snr_db), bool(is_reversed))


def histogram(values: Sequence[float]) -> str:
    """Rows around the multiples of 5 dB, with a bar each."""
    bins = Counter(round(value / _BIN_DB) * _BIN_DB for value in values if np.isfinite(value))
    if not bins:
        return ""
    most = max(bins.values())
    bars = {around: round(_BAR * bins[around] / most) for around in range(min(bins), max(bins) + _BIN_DB, _BIN_DB)}
    return "\n".join(f"  {around:>4} dB {'#' * bar:{_BAR}} {bins[around]}" for around, bar in bars.items())


def _lag(clean: np.ndarray, noisy: np.ndarray, furthest: int) -> int:
    """Samples by which `clean` [N] comes later in `noisy` [N]: the peak of their whitened cross-correlation."""
    size = 2 ** int(np.ceil(np.log2(len(clean) + furthest)))
    cross = np.fft.rfft(noisy, size) * np.conj(np.fft.rfft(clean, size))
    correlation = np.fft.irfft(cross / np.maximum(np.abs(cross), 1e-3 * np.abs(cross).max()), size)
    near = np.concatenate([correlation[-furthest:], correlation[: furthest + 1]])
    return int(np.argmax(near)) - furthest


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / max(math.sqrt((a @ a) * (b @ b)), 1e-12)
