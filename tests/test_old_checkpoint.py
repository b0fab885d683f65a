"""A checkpoint that an early version of train.py wrote: it is still enhanced with, and its training still goes on."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).parent.parent
OLD = ROOT / "tests" / "golden" / "old_checkpoint"  # 3 steps on the embedded corpus; sequence encoder, cross-attention
EMBEDDED = ROOT / "sgmse" / "data" / "embedded" / "test"
ITEM, SAMPLES = "008", 16000


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """RUN/checkpoints/last.ckpt beside RUN/config.yaml, as the training left them."""
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.decompress((OLD / "last.ckpt.xz").read_bytes()))
    shutil.copyfile(OLD / "config.yaml", tmp_path / "run" / "config.yaml")
    return path


def command(folder: Path, script: str, *flags: object) -> str:
    """Run a command in `folder`; returns what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def enhanced(folder: Path, ckpt: Path) -> np.ndarray:
    """What the command makes of one second of an embedded file with its reference."""
    for part in ("noisy", "ref"):
        samples, rate = soundfile.read(EMBEDDED / part / f"{ITEM}.flac", dtype="int16")
        (folder / "set" / part).mkdir(parents=True)
        soundfile.write(folder / "set" / part / "one.wav", samples[:SAMPLES], rate, subtype="FLOAT")
    where = ("--test_dir", folder / "set", "--enhanced_dir", folder / "out")
    command(folder, "enhancement_noise_cond.py", "--ckpt", ckpt, *where, "--device", "cpu")
    return soundfile.read(folder / "out" / "one.wav", dtype="float32")[0]


def test_an_old_checkpoint_gives_the_waveform_that_it_gave(tmp_path, ckpt):
    expected = np.load(OLD / "enhanced.npz")
    waveform = enhanced(tmp_path, ckpt)
    assert len(waveform) == SAMPLES
    peak = float(expected["peak"])
    assert np.abs(waveform - expected["samples"] / 32767 * peak).max() < 2e-4 * peak


def test_training_goes_on_from_an_old_checkpoint(tmp_path, ckpt):
    before = torch.load(ckpt, weights_only=True)
    command(tmp_path, "train.py", "--ckpt", ckpt, "--max_steps", 4)
    after = torch.load(ckpt, weights_only=True)
    assert (before["global_step"], after["global_step"]) == (3, 4)
    steps = {int(state["step"]) for state in after["optimizer_states"][0]["state"].values()}
    assert steps == {4}, "the state of the optimiser is carried over"
    moved = [(after["state_dict"][name] - weight).abs().max().item() for name, weight in before["state_dict"].items()]
    assert 0 < max(moved) < 0.01, "one small step from where the training stopped"
