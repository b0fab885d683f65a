"""A lock that processes of several hosts wait for, such as the tasks of an array on a cluster.

It needs no locks of the file system: its file names the process and the host that hold it, and is renewed while they
live. Who only wants a folder for itself, or to share it, takes `lock.locked_folder`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

from sgmse.common.errors import UserError

LEASE_S = 60.0  # a holder on another host that has not renewed its lock for so long is dead, or cut off from the disk


class Held(UserError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, wait: bool = True, announce: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Inside, no other process of any host holds the lock file `path`.

    A lock is free as soon as its holder has ended, whatever ended it, or, where the holder ran on another host, when it
    has not been renewed for `LEASE_S`: the wait for that is bounded and is done without `wait`, too.

    Args:
        wait: wait for a holder that lives. announce: called with the holder ("process 12 on node3") before any wait.

    Raises:
        Held: another process holds the lock. UserError: the lock file cannot be written.
    """
    lock = SoftFileLease(path, lease_duration=LEASE_S)
    try:
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
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check the folder and its rights") from None
    try:
        yield
    finally:
        lock.release()
