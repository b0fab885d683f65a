"""What a published noise corpus is, and how the metadata beside its audio are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgmse.common.download import Archive
from sgmse.common.errors import UserError
from sgmse.common.files import read_rows
from sgmse.data.corpora.manifest import Entry

ZENODO = "https://zenodo.org/records/{record}/files/{name}?download=1"


@dataclass(frozen=True)
class NoiseCorpus:
    """A published corpus. With `own_splits` its splits stay as published even if they share recordings.

    read: the folder of the corpus → its files with class, source recording and split.
    """

    title: str
    read: Callable[[Path], list[Entry]]
    page: str
    licence: str
    archives: tuple[Archive, ...] = ()
    folds: tuple[int, ...] = ()
    own_splits: bool = False


def find_root(folder: Path, corpus: str, needed: Sequence[str]) -> Path:
    """`folder` or the folder directly below it that holds all of `needed`, files or folders."""
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for root in (folder, *below):
        if all((root / name).exists() for name in needed):
            return root
    raise wrong_layout(folder, corpus, ", ".join(needed))


def wrong_layout(folder: Path, corpus: str, expected: str) -> UserError:
    if not folder.is_dir():
        return UserError(f"{folder}: no such folder (for {corpus}); check --source")
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
    return UserError(f"{folder}: is not laid out as {corpus}: expected {expected}; found {found}")


def rows_of(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a corpus' own CSV file."""
    return read_rows(path, columns, "download it again")


def entries_with_fold(
    table: Path, kind: str, source: str, splits: Mapping[int, str], file_of: Callable[[dict[str, str]], Path]
) -> list[Entry]:
    """The files of a table with the column `fold`, which decides the split, and columns for class and recording."""
    known = {str(fold): fold for fold in splits}
    entries = []
    for row in rows_of(table, ("fold", kind, source)):
        if row["fold"] not in known:
            raise UserError(f"{table}: names the fold '{row['fold']}'; the corpus has {', '.join(known)}")
        fold = known[row["fold"]]
        entries.append(Entry(file_of(row), (row[kind],), row[source], splits[fold], fold))
    return entries
