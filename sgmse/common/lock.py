"""Locks: of a folder that is worked on, and of work that processes of several hosts wait for."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from weakref import WeakSet

from filelock import SoftFileLease, Timeout

from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure

LOCK = ".lock"  # in the folder; it holds the host and the process
LEASE_S = 60.0  # a holder on another host that has not renewed its lock for so long is dead, or cut off from the disk
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network disks
_held: WeakSet[TextIO] = WeakSet()  # files of the folders that this process holds
# A forked process, such as one that prepares batches, would hold the lock on for a while after its parent was killed.
os.register_at_fork(after_in_child=lambda: [file.close() for file in _held])


class Held(UserError):
    """Another process holds the lock."""


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
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    _held.add(file)
    with file:
        with explain_failure(folder):
            _acquire(file, folder, work, shared)
        yield


def _acquire(file: TextIO, folder: Path, work: str, shared: bool) -> None:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "processes that share it"
        raise UserError(
            f"{folder}: is already being {work} by {holder}; wait for its end, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    # The file stays: a process that opened it before it was removed would hold a lock that nobody else sees.
    file.truncate(0)
    name = "" if shared else f"process {os.getpid()} on {socket.gethostname()}"
    os.write(file.fileno(), name.encode())  # unbuffered: on a full disk closing the file would fail again


@contextmanager
def hold(path: Path, wait: bool = True, announce: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Inside, no other process of any host holds the lock file `path`, such as the tasks of an array on a cluster.

    It needs no locks of the file system: the file names the process and the host that hold it, and is renewed while
    they live. A lock is free as soon as its holder has ended, whatever ended it, or, where the holder ran on another
    host, when it has not been renewed for `LEASE_S`: the wait for that is bounded and is done without `wait`, too.
    Where the folder is read-only nobody can work there, and there is no lock: what is complete can be read.

    Args:
        wait: wait for a holder that lives. announce: called with the holder ("process 12 on node3") before any wait.

    Raises:
        Held: another process holds the lock. UserError: the lock file cannot be written.
    """
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK, effective_ids=True):
        yield
        return
    lock = SoftFileLease(path, lease_duration=LEASE_S)
    with explain_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            owner = lock.owner
            holder = f"process {owner.pid} on {owner.hostname}" if owner else "another process"
            announce(holder)
            here = owner is not None and owner.hostname == socket.gethostname()
            try:
                lock.acquire(timeout=-1 if wait else 0 if here else 1.5 * LEASE_S)
            except Timeout:
                raise Held(f"{path.with_suffix('')}: {holder} is at work there; wait for it") from None
    try:
        yield
    finally:
        lock.release()
