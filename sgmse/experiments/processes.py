"""A training as a process of its own: a log, its last line on the screen, signals passed on.

A training that crashes, in whatever way, takes nothing else with it, and its log opens with what to type to repeat it.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from sgmse.training.interruption import EXIT_CODE, SIGNALS, Preempted

_GRACE_S = 60.0  # after Ctrl-C, which the command has had too


class Failed(Exception):
    """A command ended with an error: its last words."""


class Launcher:
    """Runs one command at a time. A signal of the scheduler stops that command in its own way, else this process."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._signalled = False
        self._pid = os.getpid()

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Inside, SIGUSR1 and SIGTERM end a running command and then, or at once, raise `Preempted`."""
        if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __call__(self, command: Sequence[str], log: Path) -> None:
        """Run a command (what follows `python`), whose lines are appended to `log`; its progress bars are shown only.

        Raises `Failed`, or `Preempted` where a signal stopped the command or this process.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(['python', *command])}\n".encode())
            file.flush()
            code = self._run([sys.executable, *command], file)
        if code == EXIT_CODE or self._signalled:
            raise Preempted
        if code:
            raise Failed(_last_words(log, code))

    def _run(self, words: Sequence[str], log: BinaryIO) -> int:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(words, **streams) as self._running:  # type: ignore[call-overload]
            try:
                assert self._running.stdout is not None
                _copy(self._running.stdout.fileno(), log)
                return self._running.wait()
            except KeyboardInterrupt:
                try:
                    self._running.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    self._running.kill()
                raise
            finally:
                self._running = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a copy in a process that scores
            return
        self._signalled = True
        if self._running is None:
            raise Preempted
        self._running.send_signal(signal.SIGUSR1)


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
    last = "it printed nothing" if lines[-1].startswith("$ python") else lines[-1]
    words = refused[-1].removeprefix("error: ") if refused and code == 2 else last
    return f"{words[:300]} (exit code {code})"
