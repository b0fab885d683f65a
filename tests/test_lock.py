"""A folder that is worked on belongs to one process, or to several that share it."""

import os
import subprocess
import sys

import pytest

from sgmse.common.errors import UserError
from sgmse.common.lock import LOCK, locked_folder


def test_another_process_is_refused_with_the_number_of_the_holder(tmp_path):
    with locked_folder(tmp_path, "trained"):
        with pytest.raises(UserError, match=rf"{tmp_path}: is already being trained by process {os.getpid()} on"):
            locked_folder(tmp_path, "trained").__enter__()
        with pytest.raises(UserError, match="already being filled"):
            locked_folder(tmp_path, "filled", shared=True).__enter__()


def test_afterwards_the_folder_is_free_and_holds_no_lock(tmp_path):
    for _ in range(2):
        with locked_folder(tmp_path, "trained"):
            assert (tmp_path / LOCK).is_file()
        assert not list(tmp_path.iterdir())


def test_shards_share_a_folder_and_hold_off_others(tmp_path):
    share, other = (locked_folder(tmp_path, "filled", shared=True) for _ in range(2))
    with share, other, pytest.raises(UserError, match="processes that share it"):
        locked_folder(tmp_path, "filled").__enter__()
    with locked_folder(tmp_path, "filled"):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    code = f"""
import os, pathlib
from sgmse.common.lock import locked_folder
with locked_folder(pathlib.Path({str(tmp_path)!r}), "trained"):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with locked_folder(tmp_path, "trained"):
        pass
