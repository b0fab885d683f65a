"""Files that appear whole or not at all, and their digests. Text is UTF-8."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from sgmse.common.errors import UserError

if TYPE_CHECKING:  # writing text must not load them
    import pandas as pd
    from matplotlib.figure import Figure

_LONGEST_STEM = 200  # bytes: with token and suffix a temporary name stays below the 255 of most file systems


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block ends without an error.

    After an error `path` is as it was before. Raises `UserError` where it cannot be written.
    """
    with temporary_file(path) as part:
        yield part
        os.replace(part, path)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`, which is removed at the end. A failure becomes a `UserError` about `path`."""
    part = _temporary_path(path)
    try:
        with explain_failure(path, part):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def explain_failure(path: Path, *also: Path) -> Iterator[None]:
    """Inside, a failure to write becomes a `UserError` about `path`; one that names a file elsewhere stays as it is.

    also: temporary files and folders that stand for `path`.
    """
    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        name = getattr(error, "filename", None)
        named, places = path if name is None else Path(os.fsdecode(name)), (path, *also)
        if not any(place == named or named in place.parents or place in named.parents for place in places):
            raise
        raise UserError(
            f"{path}: cannot be written ({failure_of(error)}); check the folder, its rights and the disk"
        ) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` and move it there when the block ends without an error.

    A `folder` that is there already is replaced. Raises `UserError` where it cannot be written.
    """
    part, old = _temporary_path(folder), _temporary_path(folder)
    try:
        with explain_failure(folder, part, old):
            part.mkdir(parents=True)
            yield part
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
    except UserError as error:  # about a file in the temporary folder, which is gone when the sentence is read
        raise UserError(str(error).replace(str(part), str(folder))) from error
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Delete what processes that were killed left of `whole_file(path)` or `whole_folder(path)`."""
    for leftover in path.parent.glob(f".{glob.escape(_stem(path))}.*.part"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def keep_text(path: Path, text: str) -> None:
    """Write a text, unless the file holds it already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1))


def require_own_folder(folder: Path, marks: Iterable[str]) -> None:
    """Raise `UserError` unless --out is new or empty or holds what the command writes, and can be written.

    marks: patterns of names that the command, and no other, leaves in a folder.
    """
    with temporary_file(folder / "results") as part:
        part.touch()
    held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if held and not any(fnmatch(name, mark) for name in held for mark in marks):
        raise UserError(f"{folder}: holds {held[0]} and nothing of this command; choose another --out")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, without its index."""
    with whole_file(path) as part:
        frame.to_csv(part, index=False)


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as CSV. What a row holds beside the columns is left out, what it lacks stays empty."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path, columns: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file, of which there is one at least, with these columns at least.

    Raises `UserError`, which ends in `remedy`, for any other file, and what the system says of one it cannot read.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {remedy}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file; {remedy}") from error
    missing = [name for name in columns if name not in (reader.fieldnames or [])]
    if missing:
        raise UserError(f"{path}: lacks the column {missing[0]} of {', '.join(columns)}; {remedy}")
    if not rows:
        raise UserError(f"{path}: holds no row; {remedy}")
    return rows


def read_table(path: Path, columns: Iterable[str], remedy: str, **how: Any) -> pd.DataFrame:
    """A CSV table with these columns at least. how: further arguments of `pandas.read_csv`.

    Raises `UserError`, which ends in `remedy`, for any other file.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, **how)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({failure_of(error)}); {remedy}") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}; {remedy}")
    return table


def cache_folder() -> Path:
    """$SGMSE_CACHE, else sgmse/ in $XDG_CACHE_HOME, else in ~/.cache."""
    if chosen := os.environ.get("SGMSE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sgmse")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def failure_of(error: Exception) -> str:
    """The system's own words for `error`, without the path that our message names already."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    text = str(text).strip().rstrip(".")
    return "the system refused it, as on a full disk" if text == "System error" else text  # libsndfile's words


def _temporary_path(path: Path) -> Path:
    """A name that no other process and no other host takes."""
    return path.with_name(f".{_stem(path)}.{secrets.token_hex(4)}.part")


def _stem(path: Path) -> str:
    """The name, or a hash of it where a temporary name would become too long."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST_STEM else hashlib.sha256(name).hexdigest()[:16]
