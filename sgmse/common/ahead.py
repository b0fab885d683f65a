"""A loop whose next item is made while one is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items in their order, one ahead: a thread makes the next one. What that raises is raised in its place."""
    making = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        following = thread.submit(next, making, _END)
        while (item := following.result()) is not _END:
            following = thread.submit(next, making, _END)
            yield item  # type: ignore[misc]
