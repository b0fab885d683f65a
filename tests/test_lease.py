"""A lock of several hosts: one holder at a time, named; free when its holder is dead."""

import os
import subprocess
import sys

import pytest

from sgmse.common import lease
from sgmse.common.errors import UserError
from sgmse.common.lease import Held, hold


def test_a_lock_that_is_held_names_its_holder_and_is_free_afterwards(tmp_path):
    path = tmp_path / "deep" / "train.lease"
    with hold(path), pytest.raises(Held, match=f"process {os.getpid()} on"), hold(path, wait=False):
        pass
    with hold(path, wait=False):
        pass


def test_a_lock_is_free_when_its_process_was_killed(tmp_path):
    script = "import sys, time; from pathlib import Path; from sgmse.common.lease import hold\n"
    script += "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, tmp_path / "a"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Held, match=f"process {holder.pid} on"), hold(tmp_path / "a", wait=False):
            pass
        holder.kill()
    with hold(tmp_path / "a", wait=False):
        pass


def test_a_lock_of_another_host_is_taken_over_when_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    path = tmp_path / "a"
    path.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=x\nduration=0.5\n")
    told = []
    with hold(path, wait=False, announce=told.append):
        assert told == ["process 1 on elsewhere"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"), hold(tmp_path / "file" / "a"):
        pass
