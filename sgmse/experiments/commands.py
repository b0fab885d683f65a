"""The commands of this project as processes of their own: a log each, their last line on the screen, signals passed on.

A cell that crashes, in whatever way, then takes nothing else with it, and its log opens with what to type to repeat it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from sgmse.training.interruption import EXIT_CODE, SIGNALS, Preempted

_GRACE_S = 60.0

Launch = Callable[[Sequence[str], Path, int | None], int]
"""Runs a command (what follows `python`) with a log; returns its exit code. The number is a file
descriptor that the process keeps open: the lock of its cell."""


class Failed(Exception):
    """A command ended with an error: its last words."""


class Processes:
    """Starts one process at a time, and tells it when this one is asked to stop."""

    def __init__(self) -> None:
        self.asked_to_stop = False
        self._running: subprocess.Popen[bytes] | None = None

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """SIGUSR1 and SIGTERM, which schedulers send, stop the process at hand in its own way instead of this one."""
        if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def launch(self, command: Sequence[str], log: Path, lock: int | None = None) -> int:
        """`Launch`, in a process. Its progress bars are shown, but not logged."""
        words = [sys.executable, *command]
        with log.open("ab") as file:
            self._running = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=() if lock is None else (lock,),
            )
            try:
                assert self._running.stdout is not None
                _copy(self._running.stdout.fileno(), file)
                return self._running.wait()
            finally:
                self._end()

    def _end(self) -> None:
        """After Ctrl-C the process has had it too, and is given time to end by itself."""
        assert self._running is not None
        try:
            self._running.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        self._running = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_stop = True
        if self._running is not None:
            self._running.send_signal(signal.SIGUSR1)


def call(launch: Launch, command: Sequence[str], log: Path, lock: int | None = None) -> None:
    """Run a command whose failure is an exception. Raises `Failed`, or `Preempted` for a training that was stopped."""
    shown = shlex.join(["python", *command])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shown}\n")
    code = launch(command, log, lock)
    if code == EXIT_CODE:
        raise Preempted
    if code:
        raise Failed(_last_words(log, code))


def _copy(source: int, log: BinaryIO) -> None:
    """Lines to the log; the newest of them, and of the progress bars, to the screen if there is one."""
    rest = b""
    while block := os.read(source, 65536):
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + block)
        log.writelines(line for line in lines if line.endswith(b"\n") and line.strip())
        log.flush()
        for line in lines[-1:]:
            _show(line.decode(errors="replace").strip())
    log.write(rest)
    _show("")


def _show(line: str) -> None:
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        sys.stderr.write("\r\033[K" + line[: width - 1])
        sys.stderr.flush()


def _last_words(log: Path, code: int) -> str:
    """The sentence with which a command refused its input, else the end of its traceback, or the signal."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}, maybe for lack of memory"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    refused = [line for line in lines if line.startswith("error: ")]
    words = refused[-1].removeprefix("error: ") if refused and code == 2 else lines[-1] if lines else "it said nothing"
    return f"{words[:300]} (exit code {code})"
