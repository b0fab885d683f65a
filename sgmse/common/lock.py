"""One process at a time in a folder that is worked on, or several that share it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from sgmse.common.errors import UserError

LOCK = ".lock"  # in the folder; it holds the host and the process
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network disks


@contextmanager
def locked_folder(folder: Path, work: str, shared: bool = False) -> Iterator[None]:
    """Hold `folder`, which is made, until the end of the block, or of the process, however that ends.

    Args:
        folder: no other process can hold it meanwhile.
        work: what is done there, for the sentence: "trained", "filled".
        shared: others that share the folder, such as shards of one run, may hold it at the same time.

    Raises:
        UserError: another process holds the folder; the sentence names its host and number. Or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    with _open_lock(folder / LOCK, folder, work, shared) as file:
        if not shared:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        try:
            yield
        finally:
            if not shared:  # others may share it still
                with suppress(OSError):
                    (folder / LOCK).unlink()


def _read_holder(file: TextIO) -> str:
    """Who holds a lock; those that share it leave no name, but a killed process may have left its own."""
    file.seek(0)
    text = file.read()
    found = re.fullmatch(r"process (\d+) on (.*)", text)
    is_dead = found is not None and found[2] == socket.gethostname() and not Path("/proc", found[1]).exists()
    return "processes that share it" if not text or is_dead else text


def _open_lock(path: Path, folder: Path, work: str, shared: bool) -> TextIO:
    """The lock file, open and locked."""
    while True:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(file)
            file.close()
            raise UserError(
                f"{folder}: is already being {work} by {holder}; wait for its end, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        # Whoever held it before may have removed the file after this one was opened: that lock would hold nobody off.
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()
