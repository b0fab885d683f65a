"""Processes that compute one row per task: a task that kills its process loses its own row and no other."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from sgmse.common.errors import UserError
from sgmse.common.machine import cores
from sgmse.common.progress import track

_function: Callable[..., object]  # of a worker process
Task = TypeVar("Task")
Row = TypeVar("Row")


class Workers:
    """Processes for as long as the `with` block; they end with their parent, however it ends.

    Args:
        jobs: how many (None: one per core). 1 computes in this process, where a crash ends everything.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or cores()
        self._pool: ProcessPoolExecutor | None = None
        self._function: object = None  # that the processes of the pool hold

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Task], Row], tasks: Sequence[Task], crashed: Callable[[Task], Row] | None = None
    ) -> Iterator[Row]:
        """`function` of each task, in the order of `tasks`.

        `crashed` gives the row of a task during which its process died; without it that is a `UserError`.
        """
        if self.jobs == 1:
            yield from map(function, tasks)
            return
        done = 0
        while done < len(tasks):
            try:
                for row in self._executor(function).map(_compute, tasks[done:]):
                    done += 1
                    yield row
            except BrokenProcessPool:
                self._pool = None
                # The pool does not tell whose process died. It hands out tasks in order, so that one of the next
                # ones did: they are computed one after the other, and then nobody else can have.
                suspects = tasks[done : done + 2 * self.jobs + 1]
                for row in _compute_one_by_one(function, suspects, crashed):
                    done += 1
                    yield row

    def _executor(self, function: Callable[..., object]) -> ProcessPoolExecutor:
        if self._pool is not None and self._function is not function:
            self._pool.shutdown()
            self._pool = None
        if self._pool is None:
            self._pool, self._function = _new_pool(self.jobs, function), function
        return self._pool


def in_processes(
    function: Callable[[Task], Row],
    tasks: Sequence[Task],
    jobs: int | None,
    what: str,
    crashed: Callable[[Task], Row] | None = None,
) -> Iterator[Row]:
    """`Workers.map` in processes of their own, with a progress bar named `what`."""
    with Workers(min(jobs or cores(), max(len(tasks), 1))) as workers:
        rows = workers.map(function, tasks, crashed)
        yield from track(rows, len(tasks), what)


def _compute_one_by_one(
    function: Callable[[Task], Row], tasks: Sequence[Task], crashed: Callable[[Task], Row] | None
) -> Iterator[Row]:
    pool = _new_pool(1, function)
    try:
        for task in tasks:
            try:
                row: Row = pool.submit(_compute, task).result()
            except BrokenProcessPool as error:
                if crashed is None:
                    raise UserError("a process died, maybe for lack of memory; try again with --jobs 1") from error
                row, pool = crashed(task), _new_pool(1, function)
            yield row
    finally:
        pool.shutdown()


def _new_pool(jobs: int, function: Callable[..., object]) -> ProcessPoolExecutor:
    """Processes that hold `function`: it may hold a whole inventory, which must not travel with every task."""
    # Forking a process that holds threads or a CUDA context may hang, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(function,))
    with _one_thread_each():  # all processes start with the first task
        pool.submit(os.getpid)
    return pool


def _start_worker(function: Callable[..., object]) -> None:
    global _function
    _function = function
    _end_with_parent()


def _compute(task: Any) -> Any:
    return _function(task)


def _end_with_parent() -> None:
    """Let this worker end when the process that started it does, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside compute with one thread: together they fill the cores already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
