"""Where corpora keep their files. Only headers are read here."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.errors import UserError

MIN_S = 0.1
_SPLITS = ("train", "valid", "test")
_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A clean and a noisy file of equal length; `name` is their common relative path without suffix."""

    name: str
    clean: AudioInfo
    noisy: AudioInfo


def embedded_dir() -> Path:
    """The folder of the small corpus that comes with the code."""
    return Path(__file__).parent / "embedded"


def paired_files(base_dir: str | Path, split: str) -> list[Pair]:
    """The pairs of `base_dir/split/{clean,noisy}` at any depth, matched by their relative path without suffix."""
    folder = Path(base_dir) / split
    clean = audio.by_name(folder / "clean", f"clean speech ({split})")
    noisy = audio.by_name(folder / "noisy", f"noisy speech ({split})")
    unmatched = sorted(clean.keys() ^ noisy.keys())
    if unmatched:
        name = unmatched[0]
        present, absent = (clean[name], "noisy") if name in clean else (noisy[name], "clean")
        others = f" (and {len(unmatched) - 1} more files)" if len(unmatched) > 1 else ""
        raise UserError(f"{present}: has no partner in {folder / absent}{others}; names must agree in both folders")
    pairs = [_pair(name, audio.info(clean[name]), audio.info(noisy[name])) for name in sorted(clean)]
    usable = [pair for pair in pairs if pair.clean.seconds >= MIN_S]
    _report_skipped(len(pairs) - len(usable), len(pairs), folder)
    if not usable:
        raise UserError(f"{folder}: all files are shorter than {MIN_S} s; check the corpus")
    return usable


def split_files(folders: Sequence[str | Path], split: str, what: str) -> list[AudioInfo]:
    """The files of one split ("train" or "valid") of one or more corpora of `what` ("speech" or "noise").

    A folder that holds sub-folders train, valid or test gives the one that is asked for and nothing else; a folder
    without them is all training data.
    """
    sources = [source for folder in folders for source in _sources(Path(folder), split, what)]
    if not sources:
        named = ", ".join(str(folder) for folder in folders) or f"no {what} folder given"
        raise UserError(
            f"{named}: no {what} for the split '{split}'; at least one {what} folder needs the sub-folders train/ "
            f"and valid/ with different recordings in each (a folder without them is used for training only)"
        )
    return [info for source in sources for info in _infos(source, f"{what}, {split}")]


def _sources(folder: Path, split: str, what: str) -> Iterable[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (for {what}); check the path")
    if any((folder / name).is_dir() for name in _SPLITS):
        return [folder / split] if (folder / split).is_dir() else []
    return [folder] if split == "train" else []


def _infos(folder: Path, what: str) -> list[AudioInfo]:
    infos = [audio.info(path) for path in audio.find(folder, what)]
    usable = [info for info in infos if info.seconds >= MIN_S]
    _report_skipped(len(infos) - len(usable), len(infos), folder)
    if not usable:
        raise UserError(f"{folder}: all files are shorter than {MIN_S} s (for {what}); check the corpus")
    return usable


def _pair(name: str, clean: AudioInfo, noisy: AudioInfo) -> Pair:
    if clean.sample_rate != noisy.sample_rate:
        raise UserError(
            f"{noisy.path}: has {noisy.sample_rate} Hz but its clean file {clean.sample_rate} Hz; resample one of them"
        )
    if clean.num_frames != noisy.num_frames:
        raise UserError(
            f"{noisy.path}: holds {noisy.num_frames} samples but its clean file {clean.num_frames}; "
            "a pair must have one length, so cut or replace one of them"
        )
    return Pair(name, clean, noisy)


def _report_skipped(skipped: int, total: int, folder: Path) -> None:
    if skipped:
        _log.warning("%s: %d of %d files are shorter than %s s and are skipped", folder, skipped, total, MIN_S)
