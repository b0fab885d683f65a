"""Where corpora keep their files. Only headers are read here."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypeVar

from sgmse.common.errors import UserError
from sgmse.data import listing
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import MANIFEST, SPLITS, Clip, Entry
from sgmse.data.corpora.published import read_esc50
from sgmse.data.listing import read_headers

_PUBLISHED = [f"{name}{suffix}" for name in ("trainset_28spk_wav", "testset_wav") for suffix in ("", ".zip")]
MIN_S = 0.1
File = TypeVar("File")
Headers = Callable[[Iterable[Path]], list[AudioInfo]]
_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A clean and a noisy file of equal length; `name` is their common relative path without suffix."""

    name: str
    clean: AudioInfo
    noisy: AudioInfo

    @property
    def is_equal(self) -> bool:
        """Whether both files have one length and one rate."""
        clean, noisy = self.clean, self.noisy
        return (clean.num_frames, clean.sample_rate) == (noisy.num_frames, noisy.sample_rate)


def embedded_dir() -> Path:
    """The folder of the small corpus that comes with the code."""
    return Path(str(files("sgmse"))) / "data" / "embedded"


def paired_files(base_dir: str | Path, split: str) -> list[Pair]:
    """The pairs of `base_dir/split/{clean,noisy}` at any depth, matched by their relative path without suffix."""
    refuse_published(Path(base_dir))
    folder = Path(base_dir) / split
    pairs = matched_pairs(folder / "clean", folder / "noisy", f" ({split})")
    return _drop_short(pairs, folder, "paired speech", lambda pair: pair.clean)


def refuse_published(folder: Path) -> None:
    """Raise `UserError` for VoiceBank-DEMAND as it is published."""
    if any((folder / f"noisy_{name}").exists() for name in _PUBLISHED):
        raise UserError(
            f"{folder}: holds VoiceBank-DEMAND as it is published; run `python scripts/prepare.py voicebank --source "
            f"{folder} --out DIR` and use DIR"
        )


def matched_pairs(clean_dir: Path, noisy_dir: Path, what: str = "") -> list[Pair]:
    """The pairs of two folders; a file without partner, or a pair of unequal rate or length, is a `UserError`."""
    clean = listing.by_name(clean_dir, f"clean speech{what}")
    noisy = listing.by_name(noisy_dir, f"noisy speech{what}")
    unmatched = [clean.get(name) or noisy[name] for name in sorted(clean.keys() ^ noisy.keys())]
    if unmatched:
        other = noisy_dir if clean_dir in unmatched[0].parents else clean_dir
        others = f" (and {len(unmatched) - 1} more files)" if len(unmatched) > 1 else ""
        raise UserError(f"{unmatched[0]}: has no partner in {other}{others}; names must agree in both folders")
    names = sorted(clean)
    headers = iter(read_headers(path for name in names for path in (clean[name], noisy[name])))
    pairs = [Pair(name, next(headers), next(headers)) for name in names]
    for _, ours, theirs in (pair for pair in pairs if not pair.is_equal):
        raise UserError(
            f"{theirs.path}: holds {theirs.num_frames} samples at {theirs.sample_rate} Hz but its clean file "
            f"{ours.num_frames} at {ours.sample_rate} Hz; a pair must have one length and one rate, so cut, resample "
            "or replace one of them"
        )
    return pairs


def split_files(folders: Sequence[str | Path], split: str, what: str) -> list[AudioInfo]:
    """The files of one split ("train" or "valid") of one or more corpora of `what` ("speech" or "noise").

    A folder with a manifest.csv gives the rows of that split; a folder that holds sub-folders train, valid or test
    the one that is asked for and nothing else; any other folder is all training data.
    """
    sources = [(Path(folder), read_headers(_find_files(Path(folder), split, what))) for folder in folders]
    if not any(infos for _, infos in sources):
        named = ", ".join(str(folder) for folder in folders) or f"no {what} folder given"
        raise UserError(
            f"{named}: no {what} for the split '{split}'; at least one {what} folder needs the sub-folders train/ "
            f"and valid/ with different recordings in each (a folder without them is used for training only)"
        )
    found = [info for folder, infos in sources for info in _drop_short(infos, folder, what, lambda info: info)]
    return list({os.path.abspath(info.path): info for info in found}.values())  # folders may be named twice, or nested


def clips(folder: str | Path, what: str = "noise", headers: Headers = read_headers) -> list[Clip]:
    """Every clip of a noise corpus with its class and the recording it comes from, to build test sets.

    Read from manifest.csv, else from the metadata of an ESC-50 tree; else the class of a file is the name of its
    folder or, directly in `folder`, the letters that its name begins with, and the file is its own source ("noise" for
    the class where there are none or one letter, and for the folders train, valid and test, which are splits).

    Args:
        what: names the files in errors. headers: reads them where no manifest does; files that it leaves out, such as
            broken ones, are left out here.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        found = manifest.read(folder / MANIFEST)
        manifest.require_files(folder / MANIFEST, found)
        return found
    named = (folder / "meta" / "esc50.csv").is_file()
    entries = read_esc50(folder) if named else [_plain_entry(folder, path) for path in listing.find(folder, what)]
    infos = {info.path: info for info in headers(entry.path for entry in entries)}
    return [entry.to_clip(infos[entry.path], source_is_named=named) for entry in entries if entry.path in infos]


def _plain_entry(folder: Path, path: Path) -> Entry:
    parents = path.relative_to(folder).parts[:-1]
    split = next((name for name in parents if name in SPLITS), "train")
    kinds = [name for name in parents if name not in SPLITS]
    letters = re.match(r"[^\W\d_]*(-[^\W\d_]+)*", path.stem)
    kind = kinds[-1] if kinds else letters[0] if letters and len(letters[0]) > 1 else "noise"
    return Entry(path, (kind,), path.relative_to(folder).with_suffix("").as_posix(), split)


def _find_files(folder: Path, split: str, what: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (for {what}); check the path")
    if (folder / split / "clean").is_dir() and (folder / split / "noisy").is_dir():
        raise UserError(
            f"{folder}: holds pairs of clean and noisy speech, not {what}; use it with --base_dir, or name "
            f"{folder / split / 'clean'} as speech"
        )
    if (folder / MANIFEST).is_file():
        rows = [clip for clip in manifest.read(folder / MANIFEST) if clip.split == split]
        manifest.require_files(folder / MANIFEST, rows)
        return [clip.path for clip in rows]
    if any((folder / name).is_dir() for name in SPLITS):
        return listing.find(folder / split, f"{what}, {split}") if (folder / split).is_dir() else []
    return listing.find(folder, f"{what}, {split}") if split == "train" else []


def _drop_short(items: list[File], folder: Path, what: str, header: Callable[[File], AudioInfo]) -> list[File]:
    """The items whose file is not too short to train on; the others are counted in a warning."""
    usable = [item for item in items if header(item).seconds >= MIN_S]
    if skipped := len(items) - len(usable):
        _log.warning("%s: %d of %d files are shorter than %s s and are skipped", folder, skipped, len(items), MIN_S)
    if items and not usable:
        raise UserError(f"{folder}: all files are shorter than {MIN_S} s (for {what}); check the corpus")
    return usable
