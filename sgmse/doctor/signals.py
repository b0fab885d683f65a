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
from sgmse.doctor.report import UNREADABLE, Problem, Report, count, sample

READ_S = 30.0  # of each file, so that memory does not depend on its length
_FULL_SCALE = 0.9  # a flat top below is the sound's own
_RUN = 4  # equal samples in a row at the peak
_RUNS = 2
_DC_SHARE = 0.1  # of the RMS
_DC_FLOOR = 1e-3

_SILENT = Problem("are silent", "remove them: they train and test nothing")
_CLIPPED = Problem(
    f"are clipped (flat tops of {_RUN} samples and more near full scale)",
    "take the unclipped recordings, or leave these out: a clipped target teaches clipping",
)
_OFFSET = Problem(
    f"have a constant offset of more than {_DC_SHARE:.0%} of their RMS",
    "subtract the mean of each file, or high-pass it: levels and SNRs count the offset as sound",
)


def read_headers(report: Report, label: str, paths: Iterable[Path]) -> list[AudioInfo]:
    """The headers of files; those that cannot be read are a problem and left out."""
    found, broken = [], []
    for path in paths:
        try:
            found.append(audio.info(path))
        except UserError as error:
            broken.append(str(error))
    report.files(f"{label}: of {len(found) + len(broken)} files", {UNREADABLE: broken})
    return found


def check_files(report: Report, label: str, files: Sequence[AudioInfo], max_files: int) -> None:
    """How much there is and at which rates; silent and clipped files, and those with a constant offset.

    The first 30 s of each file are decoded.
    """
    report.fact(f"{label}: {len(files)} files, {sum(info.seconds for info in files) / 60:.1f} min; {_rates(files)}")
    found: dict[Problem, list[Path]] = {_SILENT: [], _CLIPPED: [], _OFFSET: []}
    broken, looked_at = [], sample(files, max_files)
    for info in tqdm(looked_at, desc=label, leave=False):
        try:
            waveform = audio.read(info.path, None, 0.0, READ_S)
        except UserError as error:
            broken.append(str(error))
            continue
        if is_silent(waveform):
            found[_SILENT].append(info.path)
            continue
        if is_clipped(waveform):
            found[_CLIPPED].append(info.path)
        if dc_share(waveform) > _DC_SHARE:
            found[_OFFSET].append(info.path)
    subject = f"{label}: of {count(len(looked_at), len(files))} files"
    silent, clipped, offset = map(len, found.values())
    report.fact(f"{subject}, {silent} silent, {clipped} clipped, {offset} with a constant offset (DC)")
    report.files(subject, {UNREADABLE: broken})
    report.files(subject, found)


def check_scored_rates(report: Report, files: Sequence[AudioInfo], sample_rate: int) -> None:
    """Rates of pairs and test sets, which other programs read as they are, against that of the model."""
    other = [info for info in files if info.sample_rate != sample_rate]
    if other:
        report.problem(
            f"{len(other)} of {len(files)} clean and noisy files are not at the model's {sample_rate} Hz "
            f"({_rates(other)}). They are resampled here on load, but every other program that reads or scores them "
            "takes them as they are, and scores at two rates cannot be compared",
            f"resample the corpus to {sample_rate} Hz once (scripts/prepare.py does it for VoiceBank-DEMAND), or train "
            "with the corpus' own --sample_rate",
            falsifies=True,
            where=[info.path for info in other],
            first=True,
        )


def check_mixed_rates(
    report: Report, label: str, files: Sequence[AudioInfo], sample_rate: int, falsifies: bool
) -> None:
    """Rates of recordings that training mixes: higher ones are resampled on load, lower ones lack the upper band."""
    lower = [info for info in files if info.sample_rate < sample_rate]
    if lower:
        report.problem(
            f"{label}: {len(lower)} of {len(files)} files are below the model's {sample_rate} Hz ({_rates(lower)}) and "
            "hold nothing above half their rate",
            "leave them out, or train with their --sample_rate",
            falsifies,
            [info.path for info in lower],
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
    return ", ".join(f"{number} at {rate} Hz" for rate, number in counts.most_common())
