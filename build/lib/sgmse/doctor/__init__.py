"""What the doctor finds: problems first, each with its remedy, then what was looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

_SHOWN = 3
_WIDTH = 112
_T = TypeVar("_T")


class Problem(NamedTuple):
    """Something wrong. falsifies: results would not mean what they say. where: the files, the first few are shown."""

    what: str
    remedy: str
    falsifies: bool = False
    where: Sequence[Path | str] = ()


UNREADABLE = Problem("cannot be read; training or enhancement would stop there", "mend or remove each as its line says")


class Report:
    """Problems and facts, collected by the checks in the order in which they are to be read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.facts: list[str] = []

    @property
    def is_falsified(self) -> bool:
        return any(problem.falsifies for problem in self.problems)

    def add_problem(self, what: str, remedy: str, falsifies: bool = False, where: Sequence[Path | str] = ()) -> None:
        self.problems.append(Problem(what, remedy, falsifies, where))

    def add_files(self, subject: str, found: Mapping[Problem, Sequence[Path | str]]) -> None:
        """Add a problem for each kind that files were found for, e.g. "train/clean: of 12 files, 2 are silent"."""
        for kind, where in found.items():
            if where:
                self.add_problem(f"{subject}, {len(where)} {kind.what}", kind.remedy, kind.falsifies, where)

    def __str__(self) -> str:
        """The report as plain text; problems that falsify results come first and are marked with !!."""
        ordered = sorted(self.problems, key=lambda problem: not problem.falsifies)
        grave = sum(problem.falsifies for problem in ordered)
        lines = ["PROBLEMS" if ordered else "NO PROBLEMS FOUND"]
        if ordered:
            lines[0] += f": {len(ordered)}, {grave} of which would falsify a result (!!)"
        for problem in ordered:
            mark = " !! " if problem.falsifies else "  - "
            lines += textwrap.wrap(problem.what, _WIDTH, initial_indent=mark, subsequent_indent="    ")
            lines += [f"      {place}" for place in problem.where[:_SHOWN]]
            if len(problem.where) > _SHOWN:
                lines.append(f"      and {len(problem.where) - _SHOWN} more")
            remedy = f"→ {problem.remedy}"
            lines += textwrap.wrap(remedy, _WIDTH, initial_indent="      ", subsequent_indent="        ")
        facts = [f"  {line}" for fact in self.facts for line in fact.splitlines()]
        return "\n".join([*lines, "", "LOOKED AT", *facts])


def sample(files: Sequence[_T], max_files: int, plural: str) -> tuple[list[_T], str]:
    """At most `max_files` of them, evenly spread, and their number: "500 of 11572 files", or "12 files" for all."""
    if len(files) <= max_files:
        return list(files), f"{len(files)} {plural}"
    chosen = [files[index * len(files) // max_files] for index in range(max_files)]
    return chosen, f"{len(chosen)} of {len(files)} {plural}"
