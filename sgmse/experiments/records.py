"""What YAML files declare, checked: names against those that exist, values against the types of a dataclass."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar

from sgmse.common.errors import UserError

Record = TypeVar("Record")


def require(names: Iterable[str], known: Iterable[str], where: str, kind: str, hint: str = "") -> None:
    """Raise `UserError` for the first of `names` that is not in `known`, with the nearest that is, in any case."""
    lower = {str(other).lower(): str(other) for other in known}
    for name in names:
        if name not in lower.values():
            close = difflib.get_close_matches(str(name).lower(), lower, n=1)
            near = f"; did you mean {lower[close[0]]}?" if close else ""
            raise UserError(f"{where}{name}: no such {kind}{near}{hint}")


def make_record(cls: type[Record], content: Any, path: Path, where: str = "") -> Record:
    """A dataclass from what a YAML file holds, unchanged.

    Raises `UserError`, naming the setting, for one that does not exist, is missing, or has another type.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: {where}{content}: lines such as `NAME: VALUE` are needed")
    hints = typing.get_type_hints(cls)
    require(content, hints, f"{path}: {where}", "setting")
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in content:
            if f.default is MISSING and f.default_factory is MISSING:
                raise UserError(f"{path}: {where}{f.name}: is missing; add it")
        elif not _fits(content[f.name], hints[f.name]):
            hint = (
                str(hints[f.name]).replace("typing.", "") if typing.get_args(hints[f.name]) else hints[f.name].__name__
            )
            raise UserError(f"{path}: {where}{f.name} {content[f.name]}: a value of type {hint} is needed")
    return cls(**content)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value that YAML holds is of a type that a dataclass declares. A whole number is a float, too."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if is_dataclass(hint):  # `make_record` reads its content by itself
        return isinstance(value, dict)
    if origin is Literal:
        return value in parts
    if origin in (UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def align_columns(table: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table to print, its columns aligned on the left."""
    rows = list(table)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
