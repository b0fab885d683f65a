"""Bounds of settings, declared with their types, e.g. `nf: Annotated[int, Bounds(1)]`; names to choose from."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

from sgmse.common.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """What a number, or every number of a list, may be: from `low` to `high` without the `excluded` values."""

    low: float = -math.inf
    high: float = math.inf
    excluded: tuple[float, ...] = ()

    def hold(self, value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return len(values) > 0 and all(self.low <= v <= self.high and v not in self.excluded for v in values)

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


def check_bounds(settings: Any) -> None:
    """Raise `UserError` for the first setting of a dataclass that is out of its bounds. None is in all bounds."""
    for f in dataclasses.fields(settings):
        choices, value = f.metadata.get("choices"), getattr(settings, f.name)
        if choices is not None and value not in choices:
            raise UserError(f"--{f.name} {value}: one of {', '.join(choices)} is needed")
    for name, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        for bounds in getattr(hint, "__metadata__", ()):
            if isinstance(bounds, Bounds) and value is not None and not bounds.hold(value):
                shown = " ".join(map(str, value)) if isinstance(value, list) else value
                raise UserError(f"--{name} {shown} is out of range; use {bounds}")
