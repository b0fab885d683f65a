"""A folder that is worked on belongs to one process, or to several that share it; a lock of several hosts to one."""

import os
import signal
import subprocess
import sys

import pytest

from sgmse.common import lock
from sgmse.common.errors import UserError
from sgmse.common.lock import Held, hold, locked_folder


def test_another_process_is_refused_with_the_number_of_the_holder(tmp_path):
    with locked_folder(tmp_path, "trained"):
        with pytest.raises(UserError, match=rf"{tmp_path}: is already being trained by process {os.getpid()} on"):
            locked_folder(tmp_path, "trained").__enter__()
        with pytest.raises(UserError, match="already being filled"):
            locked_folder(tmp_path, "filled", shared=True).__enter__()
    with locked_folder(tmp_path, "trained"):
        pass


def test_shards_share_a_folder_and_hold_off_others(tmp_path):
    with locked_folder(tmp_path, "trained"):
        pass  # leaves its name
    share, other = (locked_folder(tmp_path, "filled", shared=True) for _ in range(2))
    with share, other, pytest.raises(UserError, match="processes that share it"):
        locked_folder(tmp_path, "filled").__enter__()
    with locked_folder(tmp_path, "filled"):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    script = "import os, sys; from pathlib import Path; from sgmse.common.lock import hold, locked_folder\n"
    script += "with locked_folder(Path(sys.argv[1]), 'trained'), hold(Path(sys.argv[1]) / 'a'):\n"
    script += "    print('held', flush=True); sys.stdin.read()"
    command, pipe = [sys.executable, "-c", script, tmp_path], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on"), locked_folder(tmp_path, "trained"):
            pass
        with pytest.raises(Held, match=f"process {holder.pid} on"), hold(tmp_path / "a", wait=False):
            pass
        holder.kill()
    with locked_folder(tmp_path, "trained"), hold(tmp_path / "a", wait=False):
        pass


def test_a_forked_process_does_not_hold_the_folder_on(tmp_path):
    """As those that prepare batches, which live on for seconds where the training is killed."""
    with locked_folder(tmp_path, "trained"):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"forked")
            signal.pause()
        os.read(reading, 6)
    try:
        with locked_folder(tmp_path, "trained"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_is_held_names_its_holder_and_is_free_afterwards(tmp_path):
    path = tmp_path / "deep" / "train.lease"
    with hold(path), pytest.raises(Held, match=f"process {os.getpid()} on"), hold(path, wait=False):
        pass
    with hold(path, wait=False):
        pass


def test_a_lock_of_another_host_is_taken_over_when_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_S", 0.5)
    path = tmp_path / "a"
    path.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=x\nduration=0.5\n")
    holders = []
    with hold(path, wait=False, announce=holders.append):
        assert holders == ["process 1 on elsewhere"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for lock_of in (hold, lambda path: locked_folder(path, "filled")):
        with pytest.raises(UserError, match="file"), lock_of(tmp_path / "file" / "a"):
            pass
