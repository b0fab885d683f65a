"""Fixtures of the tests of enhancement: a checkpoint, a small test set, and the command."""

import pytest
from commands import call, saved_run
from small_corpora import save

from sgmse.commands import enhance as enhancement

RATE = 16000


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture(scope="session")
def undropped(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "undropped", cond_drop_prob=0.0)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "baseline", encoder="none")


@pytest.fixture
def testset(tmp_path):
    """set/{noisy,ref}: three short files each."""
    for i in range(3):
        save(tmp_path / "set" / "noisy" / f"{i}.wav", 0.3, RATE)
        save(tmp_path / "set" / "ref" / f"{i}.wav", 0.5, RATE)
    return tmp_path / "set"


@pytest.fixture
def enhance(tmp_path, capsys, ckpt):
    """Enhance into tmp_path/out; returns what was said."""

    def enhanced(test_dir, *arguments: object, ckpt: object = ckpt, out: str = "out") -> str:
        flags = ("--ckpt", ckpt, "--test_dir", test_dir, "--enhanced_dir", tmp_path / out)
        return call(enhancement.main, capsys, *flags, *arguments)

    return enhanced
