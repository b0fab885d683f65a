"""`Results`: one table of what was done and how it scored, in an SQLite file of its folder.

A row belongs to a checkpoint, a setting and a file. Rows are added whole or not at all, and counted only under the
facts of the file: what all rows share, such as the hash of the test set. Other facts start the table anew.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure, write_csv

OLD = "results.old.sqlite"  # rows of other facts, which new ones have replaced
NOISY = "noisy"  # the setting of unprocessed files; their checkpoint is ""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE IF NOT EXISTS results (checkpoint TEXT, setting TEXT, file TEXT, time REAL, fields TEXT, "
    "PRIMARY KEY (checkpoint, setting, file))",
)
_NAME = re.compile(r"results(\.\d+-of-\d+)?\.sqlite")


class Results:
    """The table of a folder.

    Several processes that fill one folder (shards) write a file each, since network disks do not lock, and read all of
    them. Who writes without a shard takes in what shards left.

    Args:
        folder: is made.
        facts: what all rows share. Rows under other facts do not count any more: those of a shard are deleted, others
            are set aside as `OLD`, from where they come back when their facts do.
        shard: "K-of-N", the process's own part of the files.
        may_differ: names of facts that do not count, such as paths.

    Attributes:
        changed: the facts that differ from those of the rows that do not count any more; empty where all do.

    Raises:
        UserError: the folder cannot be written, or a table in it is damaged or of another command.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], shard: str | None = None, may_differ: Sequence[str] = ()
    ) -> None:
        self.folder, self.facts = folder, json.loads(json.dumps(dict(facts)))
        self.shard = shard
        self.path = folder / ("results.sqlite" if shard is None else f"results.{shard}.sqlite")
        with explain_failure(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if any(_is_of_another_command(self.facts, other) for other in read_facts(folder)):
            raise UserError(f"{folder}: holds the results of another command; choose another folder")
        differing = differing_facts(folder, self.facts, may_differ)
        self.changed = sorted({name for names in differing.values() for name in names})
        if differing and shard is not None:  # they may be at work
            raise UserError(
                f"{folder}: other shards fill it with other settings ({', '.join(self.changed)}); give all shards the "
                "same, or choose another folder"
            )
        for path in differing:
            self._set_aside(path, may_differ)
        with _transaction(self.path) as table:
            table.execute("DELETE FROM facts")
            rows = [(name, json.dumps(value)) for name, value in self.facts.items()]
            table.executemany("INSERT INTO facts VALUES (?, ?)", rows)
        if shard is None:
            self._take_in_shards()

    def _set_aside(self, path: Path, may_differ: Sequence[str]) -> None:
        """Rows of other facts become `OLD`, and rows there that are of these facts come back."""
        old, back = self.folder / OLD, self.folder / ".results.back.sqlite"
        if path.name != self.path.name:  # of a shard
            path.unlink()
            return
        returns = old.is_file() and not _names_that_differ(_read_facts(old) or {}, self.facts, may_differ)
        if returns:
            old.replace(back)
        if _query(path, "SELECT 1 FROM results LIMIT 1"):
            path.replace(old)
        else:
            path.unlink()
        if returns:
            back.replace(path)
            self.changed = []

    def describe_change(self) -> str:
        """What changed since the last run, and where its rows are."""
        return f"{', '.join(self.changed)} changed since the last run; its rows are in {self.folder / OLD}"

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, all of them or none. Each has checkpoint, setting, file and any plain values.

        A row of the same checkpoint, setting and file is replaced.
        """
        now = time.time()
        values = [(row["checkpoint"], row["setting"], row["file"], now, json.dumps(dict(row))) for row in rows]
        with _transaction(self.path) as table:
            table.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", values)

    def remove(self, files: Iterable[str]) -> None:
        """Remove the rows of files that are about to be made again, so that a stop leaves no row of what they were."""
        names = json.dumps(list(files))
        for path in _paths(self.folder):
            with _transaction(path) as table:  # in one pass: the table has no index by file alone
                table.execute("DELETE FROM results WHERE file IN (SELECT value FROM json_each(?))", (names,))

    def files(self, checkpoint: str, setting: str) -> set[str]:
        """The files that have a row under a checkpoint (its hash) and a setting (`Setting.key`)."""
        query = "SELECT file FROM results WHERE checkpoint = ? AND setting = ?"
        return {file for path in _paths(self.folder) for (file,) in _query(path, query, (checkpoint, setting))}

    def rows(self) -> list[dict[str, Any]]:
        """All rows in the order they were added; of those of one file the last."""
        return read_rows(self.folder)

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows as a table; `columns`: these, in this order."""
        frame = pd.DataFrame(self.rows())
        return frame if columns is None else frame.reindex(columns=list(columns))

    def write_csv(self, path: Path, columns: Sequence[str] | None = None) -> None:
        """Export the table as CSV."""
        write_csv(self.frame(columns), path)

    def _take_in_shards(self) -> None:
        """Bring the rows of all shards into the own file."""
        for path in [path for path in _paths(self.folder) if path != self.path]:
            with _transaction(self.path) as table:
                rows = _query(path, "SELECT * FROM results ORDER BY rowid")
                table.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", rows)
            path.unlink()


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of the tables in a folder, whatever their facts, in the order they were added."""
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    for path in _paths(folder):
        for checkpoint, setting, file, added, fields in _query(path, "SELECT * FROM results ORDER BY rowid"):
            key = (checkpoint, setting, file)
            if key not in found or found[key][0] < added:
                found[key] = (added, fields)
    ordered = sorted(found.values(), key=lambda entry: entry[0])  # stable: rows of one call keep their order
    return [json.loads(fields) for _, fields in ordered]


def read_facts(folder: Path) -> list[dict[str, Any]]:
    """What the rows of each table in a folder share."""
    return [facts for path in _paths(folder) if (facts := _read_facts(path)) is not None]


def differing_facts(folder: Path, facts: Mapping[str, Any], may_differ: Sequence[str] = ()) -> dict[Path, list[str]]:
    """The tables in a folder that belong to other facts, with the names of those that differ."""
    facts, found = json.loads(json.dumps(dict(facts))), dict[Path, list[str]]()
    for path in _paths(folder):
        stored = _read_facts(path)
        if stored is not None:
            changed = _names_that_differ(stored, facts, may_differ)
            found |= {path: changed} if changed else {}
    return found


def _names_that_differ(stored: Mapping[str, Any], facts: Mapping[str, Any], may_differ: Sequence[str]) -> list[str]:
    names = (facts.keys() | stored.keys()) - {*may_differ, "command"}
    return sorted(name for name in names if facts.get(name) != stored.get(name))


def _is_of_another_command(facts: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the rows of `other` facts are no earlier ones of ours. Earlier versions did not name their command."""
    ours, theirs = facts.get("command"), other.get("command")
    if ours is None or theirs is None:
        return ours != theirs and bool((facts.keys() ^ other.keys()) - {"command", "metrics"})
    return bool(ours != theirs)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("results*.sqlite") if _NAME.fullmatch(path.name))


def _query(path: Path, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with _transaction(path) as table:
        rows: list[tuple[Any, ...]] = table.execute(query, values).fetchall()
    return rows


def _read_facts(path: Path) -> dict[str, Any] | None:
    """What all rows of a table share; None where a process was killed before it wrote them."""
    return {name: json.loads(value) for name, value in _query(path, "SELECT name, value FROM facts")} or None


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """What is changed in the block is kept as a whole, or not at all."""
    table = None
    try:
        table = sqlite3.connect(path, timeout=60)
        for statement in _TABLES:  # a process that was killed may have left an empty file
            table.execute(statement)
        with table:
            yield table
    except sqlite3.OperationalError as error:
        raise UserError(f"{path}: cannot be read or written ({error}); check the folder and the disk") from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and its results are made again") from None
    finally:
        if table is not None:
            table.close()
