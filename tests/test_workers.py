"""Processes that score files: what one file does to its process is no other file's loss."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sgmse.common.errors import UserError
from sgmse.common.workers import Workers, in_processes


def end_process(task: int) -> int:
    """Of the worker, for the task 1."""
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * task


def test_a_process_that_dies_costs_its_own_file_alone() -> None:
    assert list(in_processes(end_process, range(9), 2, "tasks", lambda _: -1)) == [0, -1, *range(20, 90, 10)]


def test_a_process_that_dies_is_an_error_where_there_is_no_row_for_it() -> None:
    with Workers(2) as workers, pytest.raises(UserError, match="--jobs 1"):
        list(workers.map(end_process, range(3)))


class Inventory:
    """A function that holds much, and counts how often it is sent."""

    sent = 0

    def __call__(self, task: int) -> int:
        return 2 * task

    def __getstate__(self) -> dict[str, int]:
        Inventory.sent += 1
        return {}


def test_what_a_function_holds_goes_to_each_process_once_and_not_with_every_task() -> None:
    assert list(in_processes(Inventory(), range(40), 2, "tasks")) == list(range(0, 80, 2))
    assert 1 <= Inventory.sent <= 2


PARENT = """
import os, time
from sgmse.common.workers import Workers

def pid_of(_):
    return os.getpid()

if __name__ == "__main__":
    with Workers(2) as workers:
        print(*workers.map(pid_of, range(8)), flush=True)
        time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = set(parent.stdout.readline().split())
    assert workers
    parent.kill()
    parent.wait()
    for _ in range(100):
        alive = [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
        if not alive:
            return
        time.sleep(0.1)
    pytest.fail(f"still alive: {alive}")
