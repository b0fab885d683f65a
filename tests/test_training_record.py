"""What a run leaves says what happened: killed anywhere, moved, resumed with other settings, or diverged."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from commands import call, refusal
from training_runs import TINY, _few_references, assert_same, load  # noqa: F401, an autouse fixture

from sgmse.commands import train

STEPS = [*TINY, "--max_steps", "6", "--val_every_n_steps", "2", "--save_every_n_steps", "100"]
CHILD = """
import os, signal, sys, threading
from sgmse.diffusion import adaptive
from sgmse.training import saving, validation
adaptive.NUM_REFERENCES = 8
place, count = sys.argv.pop(1), int(sys.argv.pop(1))

def kill_at(owner, name, when):
    original, calls = getattr(owner, name), []
    def wrapped(*arguments, **settings):
        calls.append(1)
        if when == "before" and len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **settings)
        if when == "after" and len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, wrapped)

from sgmse.model.score_model import NoiseCondScoreModel
PLACES = {
    "in a step": (NoiseCondScoreModel, "training_step", "before"),
    "in a validation": (validation, "enhance_batch", "before"),
    "before a checkpoint is put in its place": (os, "replace", "before"),
    "after a checkpoint was put in its place": (os, "replace", "after"),
    "between the files and the row": (saving.RunFiles, "_add_row", "before"),
    "after the row": (saving.RunFiles, "_add_row", "after"),
}
if place in PLACES:
    kill_at(*PLACES[place])
from sgmse.commands import train
from sgmse.training import run  # what takes long to import
if place == "at a random moment":
    threading.Timer(count / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
train.main()
"""
KILLS = [
    *(("in a step", count) for count in (2, 4, 6)),
    *(("in a validation", count) for count in (1, 2, 3, 5)),
    *(("before a checkpoint is put in its place", count) for count in (2, 3, 5, 8)),
    *(("after a checkpoint was put in its place", count) for count in (1, 2, 4, 6)),
    *(("between the files and the row", count) for count in (1, 2, 3)),
    *(("after the row", count) for count in (1, 2, 3)),
    *(("at a random moment", int(count)) for count in np.random.default_rng(0).integers(100, 6000, 9)),  # milliseconds
]


def start(folder: Path, place: str = "nowhere", count: int = 0, *flags: str) -> int:
    command = [sys.executable, "-c", CHILD, place, str(count), *(flags or ("--run_dir", str(folder))), *STEPS]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(folder) == 0
    return folder


def assert_same_run(folder: Path, other: Path) -> None:
    names = {path.name for path in (folder / "checkpoints").iterdir() if path.name[0] != "."}
    assert names == {path.name for path in (other / "checkpoints").iterdir()}
    for name in names:
        assert_same(load(folder, name), load(other, name))
    tables = [pd.read_csv(each / "validation.csv").drop(columns="seconds") for each in (folder, other)]
    pd.testing.assert_frame_equal(*tables)
    for key in ("pesq", "si_sdr"):
        best = tables[0].loc[tables[0][key].idxmax(), "step"]
        assert load(folder, f"best_{key}.ckpt")["global_step"] == best
    settings = [yaml.safe_load((each / "config.yaml").read_text()) for each in (folder, other)]
    assert settings[0] == settings[1]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "count"), KILLS)
def test_a_run_that_was_killed_ends_like_an_undisturbed_one(undisturbed, tmp_path, place, count):
    if place == "at a random moment":
        while start(tmp_path / "run", place, count) == 0:  # it had ended before on a fast machine
            shutil.rmtree(tmp_path / "run")
            count //= 2
    else:
        assert start(tmp_path / "run", place, count) == -signal.SIGKILL
    assert start(tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--run_dir", "--ckpt"])
def test_a_run_that_was_killed_and_moved_ends_like_an_undisturbed_one(undisturbed, tmp_path, how):
    assert start(tmp_path / "run", "between the files and the row", 2) == -signal.SIGKILL
    (tmp_path / "run").rename(tmp_path / "moved")
    place = tmp_path / "moved" / ("" if how == "--run_dir" else "checkpoints/last.ckpt")
    assert start(tmp_path / "moved", "nowhere", 0, how, str(place)) == 0
    assert_same_run(tmp_path / "moved", undisturbed)
    assert not (tmp_path / "run").exists()


def test_settings_of_a_resumed_run_are_in_force_and_changes_are_told(tmp_path, capsys):
    flags = [*STEPS, "--num_eval_files", "0", "--run_dir", tmp_path / "run"]
    call(train.main, capsys, *flags, "--max_steps", 2)
    text = call(train.main, capsys, *flags, "--max_steps", 4, "--lr", 0.0025, "--ema_decay", 0.5)
    assert "from step 2 on: lr 0.01 → 0.0025, ema_decay 0.999 → 0.5, max_steps 2 → 4" in text
    content, settings = load(tmp_path / "run"), yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    group = content["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == group["initial_lr"] == settings["lr"] == 0.0025
    assert content["average"]["decay"] == settings["ema_decay"] == 0.5
    text = call(train.main, capsys, *flags, "--lr_decay", "cosine", "--lr", 0.0025, "--ema_decay", 0.5)
    assert "the learning rate is 0.25 of lr here" in text
    assert load(tmp_path / "run")["lr_schedulers"][0]["_last_lr"][0] == 0.0


@pytest.mark.parametrize("every", ["1", "2"], ids=["seen by the validation", "seen by the gradient"])
def test_a_divergence_is_stopped_and_leaves_the_last_good_checkpoint(tmp_path, capsys, every):
    flags = [*STEPS, "--num_eval_files", "0", "--run_dir", tmp_path / "run", "--val_every_n_steps", every]
    call(train.main, capsys, *flags, "--max_steps", 2)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    refused = refusal(train.main, capsys, *flags, "--lr", 1e30, strict=False)
    assert "diverged" in refused
    assert str(last) in refused
    weights = load(tmp_path / "run")["state_dict"].values()
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert load(tmp_path / "run")["global_step"] == 2
    call(train.main, capsys, *flags, "--lr", 0.01)
    assert load(tmp_path / "run")["global_step"] == 6


def test_a_run_that_diverges_at_once_leaves_nothing_to_go_on_from(tmp_path, capsys):
    flags = [*STEPS, "--num_eval_files", "0", "--run_dir", tmp_path / "run", "--val_every_n_steps", "1"]
    assert "no checkpoint" in refusal(train.main, capsys, *flags, "--lr", 1e30, "--warmup_steps", 0, strict=False)
    call(train.main, capsys, *flags)


def test_two_trainings_in_one_folder_are_one_too_many(tmp_path, capsys):
    code = "import sys, time; from sgmse.common.lock import locked_folder; from pathlib import Path\n"
    code += "with locked_folder(Path(sys.argv[1]), 'trained'): print('held', flush=True); time.sleep(60)"
    (tmp_path / "run").mkdir()
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = refusal(train.main, capsys, *STEPS, "--run_dir", tmp_path / "run", strict=False)
        os.kill(holder.pid, signal.SIGKILL)
    assert f"already being trained by process {holder.pid}" in refused
    assert not (tmp_path / "run" / "config.yaml").exists()
