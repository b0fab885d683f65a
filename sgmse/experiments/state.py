"""What has been done: a small file per cell, and a lock, so that two processes never work at the same one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgmse.common.files import write_json

BEAT_S = 30.0
STALE_S = 300.0  # ten missed beats: the process on the other host is dead, or cut off from the disk

Status = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Record:
    """A cell's file. hash: of what its result depends on. product: what later cells need of its result.

    seconds: what it took, all its starts counted that ended by themselves.
    """

    cell: str
    status: Status
    hash: str
    started: str
    seconds: float = 0.0
    error: str = ""
    product: dict[str, Any] = field(default_factory=dict)


class State:
    """The folder RUN_DIR/state. Every file appears whole, so that array tasks may read and write at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, cell: str) -> Record | None:
        """What is known of a cell; None for one that was never begun, or whose file is damaged."""
        try:
            record = Record(**json.loads((self.folder / f"{cell}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return record if isinstance(record.product, dict) else None

    def write(self, record: Record) -> None:
        write_json(self.folder / f"{record.cell}.json", asdict(record))

    def lock(self, cell: str) -> Lock:
        return Lock(self.folder / f"{cell}.lock")


class Lock:
    """Held by at most one process, and by those that it passes `fd` on to.

    On one host the kernel keeps it (flock): it is free when the last process that holds it has ended, whatever ended
    it. Other hosts see who holds it by the file's content, and that he lives by its time, renewed every `BEAT_S`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.fd = path, -1
        self._released = threading.Event()

    def acquire(self) -> str:
        """Take the lock, and return "" when that worked, else who holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        holder = _holder(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return holder or "another process"
        except OSError:
            pass  # a file system without locks: the content has to do
        here = socket.gethostname()
        if holder and not holder.endswith(f" on {here}") and time.time() - os.fstat(fd).st_mtime < STALE_S:
            os.close(fd)
            return holder
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {here}".encode(), 0)
        self.fd = fd
        self._released.clear()
        self._beating = threading.Thread(target=self._beat, args=(fd,), daemon=True)
        self._beating.start()
        return ""

    def release(self) -> None:
        self._released.set()
        self._beating.join()
        with suppress(OSError):
            os.ftruncate(self.fd, 0)
        os.close(self.fd)
        self.fd = -1

    def _beat(self, fd: int) -> None:
        while not self._released.wait(BEAT_S):
            with suppress(OSError):
                os.utime(fd)


def _holder(fd: int) -> str:
    return os.pread(fd, 1000, 0).decode(errors="replace")
