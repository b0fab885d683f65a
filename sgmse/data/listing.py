"""Which audio files a folder holds, under which names they are partners, and what their headers say."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sgmse.common.errors import UserError
from sgmse.common.files import cache_folder, write_json
from sgmse.common.progress import progress
from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.containers import FOREIGN_SUFFIXES, FORMATS, conversion

Entry = TypeVar("Entry")

_NAMED = 20  # files in a sentence
_MANY = 1000  # files, from which on their headers are kept
_THREADS = 16  # they wait for the disk
_BATCH = 64  # files of a thread's task


def find(folder: str | Path, what: str = "audio") -> list[Path]:
    """All audio files below `folder`, sorted; hidden files and folders are left out, linked folders are followed.

    `what` names the files in the error, e.g. "clean speech". Raises `UserError` also for audio in a format that is not
    read here, for names that are not UTF-8 and for folders that cannot be listed: nothing is passed over in silence.
    """
    found, broken = search(folder, what)
    refuse_broken(broken)
    return found


def search(folder: str | Path, what: str = "audio") -> tuple[list[Path], list[str]]:
    """The audio files of `find`, and a sentence for each that is in a format not read here, or whose name is not UTF-8.

    Raises `UserError` where there is nothing else.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such folder (for {what}); check the path")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, but a folder is needed (for {what})")
    found: list[Path] = []
    foreign: list[Path] = []
    above: dict[str, frozenset[str]] = {}  # of each folder: where it and those above it really are
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real, around = os.path.realpath(parent), above.get(os.path.dirname(parent), frozenset())
        if real in around:  # a link that points back up
            folders.clear()
            continue
        above[parent] = around | {real}
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        own = [path for path in paths if path.suffix.lower() in FORMATS]
        converted = {path.stem for path in own}
        foreign += [p for p in paths if p.suffix.lower() in FOREIGN_SUFFIXES and p.stem not in converted]
        found += own
    unnamed = [path for path in found if not _is_utf8(path)]
    absent = [path for path in found if not os.path.isfile(path)]
    broken = [f"{path}: is in a format that is not read here; convert it, as in {conversion(path)}" for path in foreign]
    broken += map(_describe_name, unnamed)
    broken += [f"{path}: is no such file, but a link that leads nowhere or a pipe; remove it" for path in absent]
    found = sorted(set(found).difference(unnamed, absent))
    if not found and not broken:
        raise UserError(f"{folder}: holds no file ending in {', '.join(FORMATS)} (for {what}); check the path")
    if not found:
        refuse_broken(broken)
    return found, sorted(broken)


def check_named(paths: Sequence[Path]) -> None:
    """Raise `UserError` unless each is an audio file of a format that is read here, with a name of its own."""
    known: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name recordings, or one folder alone")
        if not path.is_file():
            raise UserError(f"{path}: no such file; check the path")
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"{path}: is no format that is read here; convert it, as in {conversion(path)}")
        if path.name in known:
            raise UserError(f"{path}: has the name of {known[path.name]}; enhance one of the two at a time")
        if not _is_utf8(path):
            raise UserError(_describe_name(path))
        known[path.name] = path


def _refuse_folder(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror}); check its rights or move it away")


def _is_utf8(path: Path) -> bool:
    """Whether the name is text: tables and JSON files cannot hold others."""
    return str(path).isprintable() or not any("\ud800" <= c < "\ue000" for c in str(path))


def _describe_name(path: Path) -> str:
    name = repr(os.fsencode(path))
    return f"{name}: the name is not UTF-8; rename it, as in `convmv -f latin1 -t utf8 -r --notest FOLDER`"


def composed(name: str) -> str:
    """The name with accents as one character each: systems differ in how they write them."""
    return unicodedata.normalize("NFC", name)


def name_in(folder: Path, path: Path) -> str:
    """The path of a file below `folder` without its suffix, accents composed: what partners have in common."""
    return composed(path.relative_to(folder).with_suffix("").as_posix())


def by_name(folder: Path, what: str) -> dict[str, Path]:
    """All audio files below `folder`, sorted, keyed by their relative path without suffix, accents composed."""
    found: dict[str, Path] = {}
    for path in find(folder, what):
        name = name_in(folder, path)
        if name in found:
            raise UserError(
                f"{path}: has the name of {found[name].name} but for its suffix or accents; keep one of the two"
            )
        found[name] = path
    return found


def find_partners(keys: Iterable[str], folder: Path, what: str) -> dict[str, Path]:
    """The file below `folder` for each key that has one: see `match_names`."""
    return match_names(keys, {path.relative_to(folder).as_posix(): path for path in find(folder, what)})


def match_names(keys: Iterable[str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entry for each of `keys`, paths without suffix: the one of that path, else of its stem, if no other has it.

    Keys without an entry are left out. Raises `UserError` where two entries would do.
    """
    keys = list(keys)
    stems = Counter(Path(composed(key)).name for key in keys)
    by_name: dict[str, list[Entry]] = {}
    for name, entry in entries.items():
        path = Path(composed(name)).with_suffix("")
        for known in {path.as_posix(), f"*/{path.name}"}:
            by_name.setdefault(known, []).append(entry)
    found = {}
    for key in keys:
        name, stem = composed(key), Path(composed(key)).name
        alike = by_name.get(name) or (by_name.get(f"*/{stem}", []) if stems[stem] == 1 else [])
        if len(alike) > 1:
            raise UserError(f"{key}: both {alike[0]} and {alike[1]} could be its partner; remove or rename one")
        if alike:
            found[key] = alike[0]
    return found


def read_headers(paths: Iterable[Path]) -> list[AudioInfo]:
    """The headers of files. Raises `UserError` that names all files that cannot be read."""
    found, broken = scan_headers(paths)
    refuse_broken(broken)
    return found


def scan_headers(paths: Iterable[Path]) -> tuple[list[AudioInfo], list[str]]:
    """The headers of files, read in parallel, and a sentence for each file that cannot be read.

    Those of many files are kept in the cache folder, by the folder that holds all of them, and read again where size
    or time differ.
    """
    paths = list(paths)
    cache, kept = None, dict[str, Any]()
    if len(paths) >= _MANY:
        folder = os.path.commonpath([os.path.abspath(path) for path in paths])
        cache = cache_folder() / "headers" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError):
            kept = json.loads(cache.read_text(encoding="utf-8"))
    entries: list[list[Any] | str] = []
    batches = [paths[begin : begin + _BATCH] for begin in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool, progress(len(paths), "headers") as counter:
        for batch in pool.map(lambda batch: [_read_header(kept, path) for path in batch], batches):
            entries += batch
            counter.update(len(batch))
    read = {os.path.abspath(path): entry for path, entry in zip(paths, entries, strict=True) if isinstance(entry, list)}
    if cache is not None and not read.items() <= kept.items():
        with suppress(UserError):  # a cache that cannot be written
            write_json(cache, read)
    found = [AudioInfo(path, *entry[2:]) for path, entry in zip(paths, entries, strict=True) if isinstance(entry, list)]
    return found, [entry for entry in entries if isinstance(entry, str)]


def _read_header(kept: Mapping[str, Any], path: Path) -> list[Any] | str:
    """Size, time and header of a file, or why it cannot be read."""
    try:
        status, entry = path.stat(), kept.get(os.path.abspath(path))
        state = [status.st_size, status.st_mtime_ns]
        if entry is not None and entry[:2] == state:
            return list(entry)
        info = audio.info(path)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); check the path and its rights"
    return [*state, info.sample_rate, info.num_frames, info.channels, info.subtype]


def refuse_broken(broken: Sequence[str]) -> None:
    """Raise `UserError` with all of these sentences, each about a file; none: all files are good."""
    if broken:
        number = f"{len(broken)} files cannot be used: " if len(broken) > 1 else ""
        raise UserError(number + join_sentences(broken))


def join_sentences(broken: Sequence[str]) -> str:
    """Sentences about files as one; of many the first ones."""
    return "; ".join([*broken[:_NAMED], *([f"and {len(broken) - _NAMED} more"] if len(broken) > _NAMED else [])])
