"""How far a loop is, on stderr: a bar on a terminal, elsewhere a plain line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

LINE_EVERY_S = 60.0
Task = TypeVar("Task")


class Counter(Protocol):
    """What counts."""

    def update(self, count: int) -> Any:
        """So many more are done."""


class _Lines:
    """Prints a line a minute, as `describe` says."""

    def __init__(self, total: int | None, what: str, unit: str, first: int) -> None:
        self.total, self.what, self.unit, self.first, self.done = total, what, unit, first, first
        self.started = self.shown = time.monotonic()

    def update(self, count: int) -> None:
        self.done, now = self.done + count, time.monotonic()
        if now - self.shown >= LINE_EVERY_S:
            self.shown = now
            with suppress(OSError):  # nobody reads it
                print(self.describe(now), file=sys.stderr, flush=True)

    def describe(self, now: float) -> str:
        """For example "scoring: 300 of 824 files, 1.6 files/s, end in 0:05:27"."""
        rate, is_bytes = (self.done - self.first) / max(now - self.started, 1e-9), self.unit == "B"
        done, total, speed = (
            tqdm.format_sizeof(amount, "B") if is_bytes else f"{amount:.{digits}g}"
            for amount, digits in ((self.done, 15), (self.total or 0, 15), (rate, 3))
        )
        units = "" if is_bytes else f" {self.unit}s"
        text = f"{self.what}: {done}" + ("" if self.total is None else f" of {total}") + f"{units}, {speed}{units}/s"
        if self.total is None or not rate:
            return text
        return f"{text}, end in {timedelta(seconds=round(max(0, self.total - self.done) / rate))}"


@contextmanager
def progress(total: int | None, what: str, unit: str = "file", first: int = 0) -> Iterator[Counter]:
    """Show how many of `total` are done. unit: "B" for bytes; first: how many were done before."""
    if not sys.stderr.isatty():
        yield _Lines(total, what, unit, first)
        return
    with tqdm(total=total, desc=what, unit=unit, initial=first, unit_scale=unit == "B", leave=False) as bar:
        yield bar


def track(tasks: Iterable[Task], total: int, what: str, unit: str = "file") -> Iterator[Task]:
    """`tasks`, of which there are `total`, and how many are done."""
    with progress(total, what, unit) as counter:
        for task in tasks:
            yield task
            counter.update(1)
