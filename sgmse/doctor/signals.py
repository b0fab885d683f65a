"""Checks of single files: sampling rate, silence, clipping, DC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.mixing import is_silent, rms
from sgmse.doctor.page import Page, of_how_many, sample

READ_S = 30.0  # of each file, so that memory does not depend on its length
_FULL_SCALE = 0.9  # a flat top below is the sound's own
_RUN = 4  # equal samples in a row at the peak
_RUNS = 2
_DC_SHARE = 0.1  # of the RMS
_DC_FLOOR = 1e-3


def headers(page: Page, label: str, paths: Iterable[Path]) -> list[AudioInfo]:
    """The headers of files; those that cannot be read are a problem and left out."""
    found, broken = [], []
    for path in paths:
        try:
            found.append(audio.info(path))
        except UserError as error:
            broken.append(str(error))
    tell_unreadable(page, label, broken)
    return found


def read_or_none(path: Path, seconds: float) -> np.ndarray | None:
    """The first `seconds` of a file [N] at its own rate; None where it cannot be decoded, which is told elsewhere."""
    try:
        return audio.read(path, None, 0.0, seconds)
    except UserError:
        return None


def say_rates(page: Page, label: str, files: Sequence[AudioInfo]) -> None:
    """How much there is, at which rates."""
    page.fact(f"{label}: {len(files)} files, {sum(info.seconds for info in files) / 60:.1f} min; {_rates(files)}")


def check_scored_rates(page: Page, files: Sequence[AudioInfo], sample_rate: int) -> None:
    """Rates of pairs and test sets, which other programs read as they are, against that of the model."""
    other = [info for info in files if info.sample_rate != sample_rate]
    if other:
        page.problem(
            f"{len(other)} of {len(files)} clean and noisy files are not at the model's {sample_rate} Hz "
            f"({_rates(other)}). They are resampled here on load, but every other program that reads or scores them "
            "takes them as they are, and scores at two rates cannot be compared",
            f"resample the corpus to {sample_rate} Hz once (scripts/prepare.py does it for VoiceBank-DEMAND), or train "
            "with the corpus' own --sample_rate",
            [info.path for info in other],
            falsifies=True,
        )


def check_mixed_rates(page: Page, label: str, files: Sequence[AudioInfo], sample_rate: int) -> None:
    """Rates of recordings that training mixes: higher ones are resampled on load, lower ones lack the upper band."""
    lower = [info for info in files if info.sample_rate < sample_rate]
    if lower:
        page.problem(
            f"{label}: {len(lower)} of {len(files)} files are below the model's {sample_rate} Hz ({_rates(lower)}) and "
            "hold nothing above half their rate",
            "leave them out, or train with their --sample_rate",
            [info.path for info in lower],
            falsifies=label.startswith("speech"),
        )


def check_signals(page: Page, label: str, files: Sequence[AudioInfo], max_files: int) -> None:
    """Silent and clipped files, and those with a constant offset; the first 30 s of each."""
    silent, clipped, offset, broken = [], [], [], []
    looked = sample(files, max_files)
    for info in tqdm(looked, desc=label, leave=False):
        try:
            waveform = audio.read(info.path, None, 0.0, READ_S)
        except UserError as error:
            broken.append(str(error))
            continue
        if is_silent(waveform):
            silent.append(info.path)
            continue
        if is_clipped(waveform):
            clipped.append(info.path)
        if dc_share(waveform) > _DC_SHARE:
            offset.append(info.path)
    of = f"{label}: of {of_how_many(len(looked), len(files))} files"
    page.fact(f"{of}, {len(silent)} silent, {len(clipped)} clipped, {len(offset)} with a constant offset (DC)")
    tell_unreadable(page, label, broken)
    if silent:
        page.problem(f"{of}, {len(silent)} are silent", "remove them: they train and test nothing", silent)
    if clipped:
        page.problem(
            f"{of}, {len(clipped)} are clipped (flat tops of {_RUN} samples and more near full scale)",
            "take the unclipped recordings, or leave these out: a clipped target teaches clipping",
            clipped,
        )
    if offset:
        page.problem(
            f"{of}, {len(offset)} have a constant offset of more than {_DC_SHARE:.0%} of their RMS",
            "subtract the mean of each file, or high-pass it: levels and SNRs count the offset as sound",
            offset,
        )


def tell_unreadable(page: Page, label: str, sentences: Sequence[str]) -> None:
    """A problem, if there are `sentences`, each about a file."""
    if sentences:
        page.problem(
            f"{label}: {len(sentences)} files cannot be read, training or enhancement would stop there",
            "mend or remove each as its line says",
            sentences,
        )


def is_clipped(waveform: np.ndarray) -> bool:
    """Whether `waveform` [N] stays at its peak, near full scale, for runs of samples."""
    peak = np.abs(waveform).max(initial=0.0)
    if peak < _FULL_SCALE:
        return False
    flat = (np.abs(waveform) >= peak * (1 - 1e-4)).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    return int(np.sum(edges[1::2] - edges[::2] >= _RUN)) >= _RUNS


def dc_share(waveform: np.ndarray) -> float:
    """|mean| of `waveform` [N] relative to its RMS; 0 where it is below -60 dBFS."""
    mean = abs(float(np.mean(waveform, dtype=np.float64)))
    return mean / rms(waveform) if mean > _DC_FLOOR else 0.0


def _rates(files: Sequence[AudioInfo]) -> str:
    counts = Counter(info.sample_rate for info in files)
    return ", ".join(f"{count} at {rate} Hz" for rate, count in counts.most_common())
