"""manifest.csv: which clips a corpus holds, of what kind they are, what they were cut from, and their split."""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure, file_digest, read_rows, write_rows
from sgmse.common.progress import track
from sgmse.data import audio

MANIFEST = "manifest.csv"
SPLITS = ("train", "valid", "test")
COLUMNS = ("path", "kind", "source", "split", "fold", "sample_rate", "seconds", "sha256")
_State = tuple[str, int, int]  # path, size and time
_JOURNAL = ".manifest.part"  # what an interrupted measurement has done


@dataclass(frozen=True)
class Entry:
    """A file as a corpus' own metadata describe it. `kinds`: every class that it belongs to, the one to name first."""

    path: Path
    kinds: tuple[str, ...]
    source: str
    split: str
    fold: int | None = None

    def to_clip(self, info: audio.AudioInfo, sha256: str = "", source_is_named: bool = True) -> Clip:
        """The row of a manifest that this entry becomes once its header, and maybe its bytes, have been read."""
        kind, rate = self.kinds[0], info.sample_rate
        return Clip(self.path, kind, self.source, self.split, rate, info.seconds, sha256, self.fold, source_is_named)


@dataclass(frozen=True)
class Clip:
    """A row of a manifest. `source` is the recording that the clip was cut from; `sha256` is that of the file's bytes.

    `sha256` is empty for clips of a folder without manifest: they are hashed when somebody asks. Where no metadata name
    the recording (`source_is_named` is False), its name says nothing about other folders.
    """

    path: Path
    kind: str
    source: str
    split: str
    sample_rate: int
    seconds: float
    sha256: str = ""
    fold: int | None = None
    source_is_named: bool = True

    def digest(self) -> str:
        """The SHA-256 of the file's bytes, computed where the manifest does not tell."""
        return self.sha256 or file_digest(self.path)


def write(folder: Path, clips: Sequence[Clip]) -> Path:
    """Write `folder`/manifest.csv whole or not at all; paths below `folder` become relative to it.

    What `measure` kept there is forgotten.
    """
    root = Path(os.path.abspath(folder))
    rows = []
    for clip in clips:
        full = Path(os.path.abspath(clip.path))
        name = full.relative_to(root) if full.is_relative_to(root) else full
        rows.append(asdict(clip) | {"path": name.as_posix(), "seconds": f"{clip.seconds:.3f}"})
    write_rows(folder / MANIFEST, COLUMNS, rows)
    (folder / _JOURNAL).unlink(missing_ok=True)
    return folder / MANIFEST


def require_own(folder: Path) -> None:
    """Raise `UserError` where `write` would replace a manifest.csv that is none of a corpus."""
    if (folder / MANIFEST).is_file():
        read_rows(folder / MANIFEST, COLUMNS, "choose another folder, or remove the file")


def read(path: Path) -> list[Clip]:
    """The rows of a manifest, with paths made absolute. Raises `UserError` for other columns, values or splits."""
    remedy = f"make it with scripts/prepare.py, with the columns {', '.join(COLUMNS)}"
    return [_clip(path, line, row) for line, row in enumerate(read_rows(path, COLUMNS, remedy), 2)]


def require_files(
    named_by: Path | str,
    files: Iterable[Clip | Entry],
    remedy: str = "bring the audio back or make the manifest anew with scripts/prepare.py",
) -> None:
    """Raise `UserError` when files that `named_by`, a table or the metadata of a corpus, names are gone."""
    absent = [file.path for file in files if not file.path.is_file()]
    if absent:
        others = f" and {len(absent) - 1} more files" if len(absent) > 1 else ""
        raise UserError(f"{named_by}: names {absent[0]}{others}, which cannot be found; {remedy}")


def measure(entries: Sequence[Entry], folder: Path) -> list[Clip]:
    """Read the header and hash the bytes of every entry, with a progress bar.

    The hashes are kept in `folder` until `write`, so that an interrupted measurement goes on where it stopped.
    """
    digests = _read_journal(folder)
    clips = []
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / _JOURNAL, "a", encoding="utf-8") as file:
            for entry in track(entries, len(entries), "hashing"):
                info, status = audio.info(entry.path), entry.path.stat()
                state = (str(entry.path), status.st_size, status.st_mtime_ns)  # of the file whose hash this is
                if state not in digests:
                    digests[state] = file_digest(entry.path)
                    file.write("\n" + json.dumps([state, digests[state]]))  # the line before may have been cut
                clips.append(entry.to_clip(info, digests[state]))
    return clips


def require_present(flag: str, wanted: Iterable[object], present: set, folder: Path) -> None:
    """Raise `UserError` for a class, fold or split of `wanted` that no clip of `folder` has."""
    for value in wanted:
        if value not in present:
            near = difflib.get_close_matches(str(value), map(str, present), 3) or sorted(map(str, present))[:10]
            known = f"it has {len(present)}, e.g. {', '.join(near)}" if near else "it names none"
            raise UserError(f"--{flag} {value}: {folder} has none; {known}")


def describe(clips: Sequence[Clip]) -> str:
    """Number of clips per split, of classes, of recordings, hours, and rates."""
    hours = sum(clip.seconds for clip in clips) / 3600
    rates = "/".join(f"{rate / 1000:g}" for rate in sorted({clip.sample_rate for clip in clips}))
    kinds, sources = ({getattr(clip, name) for clip in clips} for name in ("kind", "source"))
    counts = count_per_split(clips)
    return f"{counts} clips, {len(kinds)} classes, {len(sources)} recordings, {hours:.1f} h at {rates} kHz"


def count_per_split(clips: Sequence[Clip]) -> str:
    """E.g. "120 train, 20 valid"."""
    counts = Counter(clip.split for clip in clips)
    return ", ".join(f"{counts[name]} {name}" for name in SPLITS if counts[name])


def shared_sources(clips: Sequence[Clip]) -> list[tuple[Clip, Clip]]:
    """One pair of clips in different splits for every recording that both splits hold cuts of."""
    first: dict[str, dict[str, Clip]] = defaultdict(dict)  # by recording and split
    for clip in clips:
        first[clip.source].setdefault(clip.split, clip)
    return [pair for by_split in first.values() for pair in combinations(by_split.values(), 2)]


def _clip(path: Path, line: int, row: dict[str, str]) -> Clip:
    try:
        fold = int(row["fold"]) if row["fold"] else None
        if row["split"] not in SPLITS:
            raise ValueError(f"the split '{row['split']}' is none of {', '.join(SPLITS)}")
        full = Path(os.path.abspath(path.parent / row["path"]))
        rate, seconds = int(row["sample_rate"]), float(row["seconds"])
        return Clip(full, row["kind"], row["source"], row["split"], rate, seconds, row["sha256"], fold)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: line {line} is damaged ({error}); make it anew with scripts/prepare.py") from error


def _read_journal(folder: Path) -> dict[_State, str]:
    digests: dict[_State, str] = {}
    if (folder / _JOURNAL).is_file():
        for line in (folder / _JOURNAL).read_text(encoding="utf-8").splitlines():
            try:
                state, digest = json.loads(line)
            except ValueError:
                continue  # cut by the interruption
            digests[tuple(state)] = digest
    return digests
