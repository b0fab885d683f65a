"""What a sweep has done so far."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv, write_json
from sgmse.evaluation.metrics import MAIN

KEY = ["sampler", "N", "guidance_scale", "interval"]
COLUMNS = [*KEY, "file", "audio_s", "seconds", "nfe", "passes", *MAIN, "reason"]
SCORES = dict.fromkeys(MAIN, "float")


class Table(NamedTuple):
    """name: of the files. key: columns that tell a cell from the others. types: of columns, where they are not text."""

    name: str
    key: list[str]
    columns: list[str]
    types: dict[str, str]


_COSTS = {"audio_s": "float", "seconds": "float", "nfe": "int", "passes": "int"}
SWEEP = Table("sweep", KEY, COLUMNS, {"N": "int", "guidance_scale": "float", **_COSTS, **SCORES})


class Kept:
    """DIR/NAME.csv, a row per cell and file, beside DIR/NAME.json, the settings that all cells share.

    Cells found there with the same settings are done. With other settings everything is done again.
    """

    def __init__(self, out_dir: Path, shared: dict[str, Any], table: Table = SWEEP) -> None:
        self.path, self.shared = out_dir / f"{table.name}.csv", out_dir / f"{table.name}.json"
        self.table, self.frame = table, pd.DataFrame(columns=table.columns)
        self.changed: list[str] = []
        if os.path.isfile(self.path) and os.path.isfile(self.shared):  # False, too, where the path is none
            before = _read_json(self.shared)
            self.changed = sorted(k for k in shared.keys() | before.keys() if shared.get(k) != before.get(k))
            if not self.changed:
                self.frame = read_csv(self.path, table)
        if self.frame.empty:  # old rows go first, so that a stop in between cannot pair them with the new settings
            _remove(self.path)
        write_json(self.shared, shared)

    def has(self, key: tuple[object, ...]) -> bool:
        return key in set(self.frame[self.table.key].itertuples(index=False, name=None))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Write the table anew with the rows of a cell."""
        new = pd.DataFrame(rows, columns=self.table.columns).astype(self.table.types)
        self.frame = new if self.frame.empty else pd.concat([self.frame, new], ignore_index=True)
        write_csv(self.frame, self.path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written anew ({error.strerror}); choose another --out") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: is not valid JSON; remove it, or choose another folder") from None
    return content if isinstance(content, dict) else {}


def read_csv(path: Path, table: Table) -> pd.DataFrame:
    """The rows that a command of this kind wrote, each file once per cell."""
    types = dict.fromkeys(table.columns, "str") | table.types
    empty = {name: [""] for name in table.types}
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=empty)
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read as a CSV table; remove it, or choose another folder") from None
    if list(frame.columns) != table.columns:
        raise UserError(f"{path}: has other columns than this command writes; remove it, or choose another folder")
    if frame.duplicated([*table.key, "file"]).any():
        raise UserError(f"{path}: holds a file twice; remove it, or choose another folder")
    return frame
