"""The doctor's page: problems first, each with its remedy, then what was looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SHOWN = 3
_WIDTH = 112


@dataclass(frozen=True)
class Problem:
    """Something wrong. falsifies: results would not mean what they say. where: the files, the first few are shown."""

    what: str
    remedy: str
    where: tuple[str, ...] = ()
    falsifies: bool = False


@dataclass
class Page:
    """Problems and facts, collected by the checks in the order in which they are to be read."""

    problems: list[Problem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    @property
    def falsified(self) -> bool:
        return any(problem.falsifies for problem in self.problems)

    def problem(self, what: str, remedy: str, where: Sequence[Path | str] = (), falsifies: bool = False) -> None:
        self.problems.append(Problem(what, remedy, tuple(str(place) for place in where), falsifies))

    def fact(self, text: str) -> None:
        self.facts.append(text)

    def text(self) -> str:
        """The page as plain text; problems that falsify results come first and are marked with !!."""
        ordered = sorted(self.problems, key=lambda problem: not problem.falsifies)
        grave = sum(problem.falsifies for problem in ordered)
        lines = ["PROBLEMS" if ordered else "NO PROBLEMS FOUND"]
        if ordered:
            lines[0] += f": {len(ordered)}, {grave} of which would falsify a result (!!)"
        for problem in ordered:
            lines += _wrapped(problem.what, " !! " if problem.falsifies else "  - ")
            lines += [f"      {place}" for place in problem.where[:_SHOWN]]
            if len(problem.where) > _SHOWN:
                lines.append(f"      and {len(problem.where) - _SHOWN} more")
            lines += _wrapped(f"→ {problem.remedy}", "      ")
        lines += ["", "LOOKED AT"]
        for fact in self.facts:
            lines += [f"  {line}" for line in fact.splitlines()]
        return "\n".join(lines)


def _wrapped(text: str, mark: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent="    " if mark.strip() else mark + "  ")


def sample(files: Sequence, max_files: int) -> list:
    """At most `max_files` of them, evenly spread."""
    if len(files) <= max_files:
        return list(files)
    return [files[index * len(files) // max_files] for index in range(max_files)]


def of_how_many(looked: int, total: int) -> str:
    return f"{looked}" if looked == total else f"{looked} of {total}"
