"""Checks of clean and noisy files: does each noisy file hold its own clean file, at the same place, plus noise?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.mixing import is_silent, rms
from sgmse.doctor.page import Page, of_how_many, sample
from sgmse.doctor.signals import read_or_none

READ_S = 10.0
LEAST_GAIN = 0.3  # of the clean file in the noisy one; at -10 dB chance reaches 0.1
_MAX_LAG_S = 1.0
_LAG = 2  # samples
_ROLE_CORRELATION = 0.1
_BIN_DB = 5
_BAR = 40


class Comparison(NamedTuple):
    """How a clean file lies in its noisy one.

    lag: samples by which it comes later there. gain: its factor there, by regression. snr_db: ratio of energies to
    noisy - clean. is_reversed: the "clean" file is the noisy one and the other way round.
    """

    lag: int
    gain: float
    snr_db: float
    is_reversed: bool


def matched(
    page: Page, label: str, folder: Path, infos: Mapping[Path, AudioInfo]
) -> list[tuple[str, AudioInfo, AudioInfo]]:
    """(name, clean, noisy) of every pair in `folder`; no partner, or an unequal length or rate, is a problem.

    `infos`: the files that can be read; others are left out.
    """
    clean_dir, noisy_dir = folder / "clean", folder / "noisy"
    clean, noisy = audio.by_name(clean_dir, f"{label}, clean"), audio.by_name(noisy_dir, f"{label}, noisy")
    alone = sorted(clean.keys() ^ noisy.keys())
    if alone:
        page.problem(
            f"{label}: {len(alone)} files have no partner of the same name",
            "bring both folders to the same names, or remove what is alone",
            [clean.get(name) or noisy[name] for name in alone],
            falsifies=True,
        )
    both = [name for name in sorted(clean.keys() & noisy.keys()) if {clean[name], noisy[name]} <= infos.keys()]
    pairs = [(name, infos[clean[name]], infos[noisy[name]]) for name in both]
    unequal = [n.path for _, c, n in pairs if (c.num_frames, c.sample_rate) != (n.num_frames, n.sample_rate)]
    if unequal:
        page.problem(
            f"{label}: {len(unequal)} of {len(pairs)} pairs differ in length or rate",
            "cut or resample them alike, or replace them",
            unequal,
            falsifies=True,
        )
    return [pair for pair in pairs if pair[2].path not in set(unequal)]


def compare(clean: np.ndarray, noisy: np.ndarray, sample_rate: int) -> Comparison:
    """Compare two signals [N] of equal length; neither may be silent."""
    lag = _lag(clean, noisy, round(_MAX_LAG_S * sample_rate))
    before, after = max(0, -lag), max(0, lag)
    here = clean[before : len(clean) - after].astype(np.float64)
    there = noisy[after : len(noisy) - before].astype(np.float64)
    gain = _dot(here, there) / max(_dot(here, here), 1e-12)
    residual = there - here
    with_clean, with_noisy = _correlation(residual, here), _correlation(residual, there)
    is_reversed = with_clean < -_ROLE_CORRELATION and abs(with_noisy) < -with_clean / 3
    snr_db = 20 * np.log10(rms(here) / rms(residual)) if residual.any() else np.inf
    return Comparison(lag, gain, float(snr_db), bool(is_reversed))


def check_pairs(page: Page, label: str, pairs: Sequence[tuple[str, AudioInfo, AudioInfo]], max_files: int) -> None:
    """Alignment, swaps and the histogram of SNRs, from the first 10 s of each pair."""
    looked = sample(pairs, max_files)
    found: dict[str, list[Path]] = {"foreign": [], "reversed": [], "shifted": [], "equal": []}
    snrs, lags = [], []
    for _, clean_info, noisy_info in tqdm(looked, desc=f"{label}: pairs", leave=False):
        clean, noisy = (read_or_none(info.path, READ_S) for info in (clean_info, noisy_info))
        if clean is None or noisy is None or is_silent(clean) or is_silent(noisy):
            continue  # told by the check of single files
        result = compare(clean, noisy, clean_info.sample_rate)
        if np.array_equal(clean, noisy):
            found["equal"].append(noisy_info.path)
        elif result.is_reversed:
            found["reversed"].append(noisy_info.path)
        elif result.gain < LEAST_GAIN:
            found["foreign"].append(noisy_info.path)
        else:
            snrs.append(result.snr_db)
            if abs(result.lag) >= _LAG:
                found["shifted"].append(noisy_info.path)
                lags.append(result.lag)
    of = of_how_many(len(looked), len(pairs))
    _tell(page, f"{label}: of {of} pairs", found, lags)
    if snrs:
        page.fact(f"{label}: SNR of {len(snrs)} pairs, mean {np.mean(snrs):.1f} dB\n{histogram(snrs)}")


_WRONG = {
    "foreign": (
        "noisy files do not hold their clean file; names may be swapped",
        "compare these files with their neighbours by ear and give each its own name back",
    ),
    "reversed": ("have clean and noisy exchanged", "move the files to the other folder"),
    "equal": ("noisy files equal their clean file", "mix the noise in, or leave them out"),
}


def _tell(page: Page, of: str, found: dict[str, list[Path]], lags: list[int]) -> None:
    for name, (what, remedy) in _WRONG.items():
        if found[name]:
            page.problem(f"{of}, {len(found[name])} {what}", remedy, found[name], falsifies=True)
    if found["shifted"]:
        common, times = Counter(lags).most_common(1)[0]
        page.problem(
            f"{of}, {len(found['shifted'])} are not aligned; the most frequent delay of the noisy file is {common} "
            f"samples ({times} files)",
            "shift one of the two; a delay of a codec or filter is the same for all files",
            found["shifted"],
            falsifies=True,
        )


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
    return _dot(a, b) / max(np.sqrt(_dot(a, a) * _dot(b, b)), 1e-12)


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b))
