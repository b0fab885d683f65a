"""Trainings of moments through the real command, and how two of them are compared."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sgmse.commands import train

TINY = """--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --batch_size 2 --num_workers 0
--num_valid_items 4 --num_eval_files 1 --N 1 --warmup_steps 2 --lr 0.01 --device cpu --lr_decay none""".split()


@pytest.fixture(autouse=True, scope="module")
def _few_references():
    """The statistics of the training references, at each validation, from 8 of them; for modules that import this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgmse.diffusion.adaptive.NUM_REFERENCES", 8)
        yield


def start(folder: Path, *arguments: object, settings: Sequence[str] = TINY) -> int:
    """The exit code of the command that trains in `folder`."""
    before = sys.argv
    sys.argv = ["train.py", *settings, "--run_dir", str(folder), *map(str, arguments)]
    try:
        train.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def load(folder: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """With `weights_only=True`: our checkpoints hold data, not code."""
    content: dict[str, Any] = torch.load(folder / "checkpoints" / name, weights_only=True)
    return content


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """The same step, raw weights and averages, bit for bit."""
    assert a["state_dict"]
    assert a["global_step"] == b["global_step"]
    assert a["average"]["num_updates"] == b["average"]["num_updates"]
    for one, other in ((a["state_dict"], b["state_dict"]), (a["average"]["weights"], b["average"]["weights"])):
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def differ(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether any raw weight does."""
    return any(not torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
