"""The values that a setting may have, declared with its type, e.g. `nf: Annotated[int, Bounds(1)]`."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union

from sgmse.common.errors import UserError
from sgmse.common.registry import Registry


@dataclass(frozen=True)
class Bounds:
    """What a number, or every number of a list, may be: from `low` to `high` without the `excluded` values."""

    low: float = -math.inf
    high: float = math.inf
    excluded: tuple[float, ...] = ()

    def hold(self, value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        within = (math.isfinite(v) and self.low <= v <= self.high and v not in self.excluded for v in values)
        return len(values) > 0 and all(within)

    def __str__(self) -> str:
        low = f"more than {self.low}" if self.low in self.excluded else f"{self.low} or more"
        high = f"less than {self.high}" if self.high in self.excluded else f"at most {self.high}"
        return " and ".join(t for t, end in ((low, self.low), (high, self.high)) if math.isfinite(end))


@dataclass(frozen=True)
class Interval(Bounds):
    """A list of two numbers, the lower one first."""

    def hold(self, value: Any) -> bool:
        return len(value) == 2 and value[0] <= value[1] and super().hold(value)

    def __str__(self) -> str:
        return "two values, the lower one first" + (f", each {super().__str__()}" if math.isfinite(self.low) else "")


@dataclass(frozen=True)
class OneOf:
    """A text, or every text of a list, is one of `choices`: for choices that come from a dictionary, else a Literal.

    plug_ins: the dictionary may find more, named `package.module:NAME`; a wrong one is a `UserError` that says why.
    """

    choices: tuple[str, ...]
    plug_ins: Registry[Any] | None = field(default=None, compare=False)

    def hold(self, value: Any) -> bool:
        names = set(value if isinstance(value, list) else [value])
        others = {name for name in names - set(self.choices) if self.plug_ins is None or ":" not in name}
        for name in sorted(names - set(self.choices) - others):
            assert self.plug_ins is not None
            self.plug_ins[name]
        return not others

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}" + ("" if self.plug_ins is None else " or package.module:NAME")


@dataclass(frozen=True)
class Exists:
    """A path, or every path of a list, leads to something; told before anything slow is loaded.

    what: what it is, for the sentence. suffix: only names that end so are paths, others name a model.
    """

    what: str
    suffix: str = ""

    def missing(self, value: Any) -> Any:
        """The first that leads nowhere, or None."""
        paths = value if isinstance(value, list) else [value]
        return next((path for path in paths if str(path).endswith(self.suffix) and not Path(path).exists()), None)


@dataclass(frozen=True)
class ValueName:
    """What --help calls the value, as in `--csv FILE`, where its type and the setting's name do not tell."""

    text: str


File = Annotated[Path, ValueName("FILE")]
InputDir = Annotated[Path, Exists("folder")]
InputModel = Annotated[Path, Exists("checkpoint", ".ckpt"), ValueName("CKPT")]
FileName = Annotated[str, ValueName("FILE")]
Text = Annotated[str, ValueName("TEXT")]
Count = Annotated[int, Bounds(1)]
CountOrZero = Annotated[int, Bounds(0)]
Limit = Annotated[int, Bounds(-1)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Positive = Annotated[float, Bounds(0, excluded=(0,))]
NotNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]


def check_bounds(settings: Any) -> None:
    """Raise `UserError` for the first setting of a dataclass that is out of its bounds. None is in all bounds."""
    for name, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        check_bound(f"--{name}", hint, getattr(settings, name))


def check_bound(flag: str, hint: Any, value: Any) -> None:
    """Raise `UserError` for a value of this type that is out of its bounds. `flag`: how the setting is written."""
    for bounds in annotations_of(hint):
        if isinstance(bounds, Exists) and value is not None and (path := bounds.missing(value)) is not None:
            raise UserError(f"{path}: no such {bounds.what}; check {flag}")
        if isinstance(bounds, Bounds | OneOf) and value is not None and not bounds.hold(value):
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            wrong = f": {bounds} is needed" if isinstance(bounds, OneOf) else f" is out of range; use {bounds}"
            raise UserError(f"{flag} {shown}{wrong}")


def kinds_of(hint: Any) -> set[type]:
    """The plain types that a value, or an item of a list, may have: `list[int] | None` → int and NoneType."""
    if typing.get_origin(hint) is Literal:
        return {type(value) for value in typing.get_args(hint)}
    inner = _inner_types(hint)
    return set().union(*map(kinds_of, inner)) if inner else {hint}


def is_list(hint: Any) -> bool:
    """Whether a setting holds several values."""
    return typing.get_origin(hint) is list or any(is_list(inner) for inner in _inner_types(hint))


def choices_of(hint: Any) -> list[str]:
    """The values that a Literal or a `OneOf` allows, empty where other values are allowed too."""
    if typing.get_origin(hint) is Literal:
        return [str(value) for value in typing.get_args(hint)]
    named = [choice for found in annotations_of(hint) if isinstance(found, OneOf) for choice in found.choices]
    return named or [choice for inner in _inner_types(hint) for choice in choices_of(inner)]


def _inner_types(hint: Any) -> tuple[Any, ...]:
    """The types that an Annotated, a union or a list is made of."""
    if typing.get_origin(hint) is Annotated:
        return (hint.__origin__,)
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType, list) else ()


def annotations_of(hint: Any) -> list[Any]:
    """What `Annotated` says of a type and of those it is made of."""
    own = list(hint.__metadata__) if typing.get_origin(hint) is Annotated else []
    return own + [found for inner in _inner_types(hint) for found in annotations_of(inner)]
