"""A training that a signal stops, at any moment, ends as if nobody had: the same weights, the same curves."""

import itertools
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import training_runs
from commands import refusal
from training_runs import _few_references, assert_same, load  # noqa: F401, an autouse fixture

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.data.dataset import KeyedDataset
from sgmse.data.loaders import _KeyedLoader
from sgmse.evaluation import metrics
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.training import validation as validating
from sgmse.training.interruption import EXIT_CODE
from sgmse.training.saving import WholeCheckpoints


def start(folder: Path, *arguments: object) -> int:
    return training_runs.start(folder, "--max_steps", 8, "--val_every_n_steps", 4, *arguments)


def at_step(patch: pytest.MonkeyPatch, step: int, act) -> None:
    """`act` before the training batch with which the step begins."""
    original = NoiseCondScoreModel.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            act()
        return original(self, batch, batch_idx)

    patch.setattr(NoiseCondScoreModel, "training_step", training_step)


def curves(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "validation.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(folder) == 0
    return folder


def test_a_signal_stops_after_the_step_at_hand_and_the_same_command_goes_on_exactly(whole, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert start(tmp_path / "run") == EXIT_CODE == 85
    assert load(tmp_path / "run")["global_step"] == 6
    assert "stopped by SIGTERM after step 6; go on with the same command" in capsys.readouterr().out
    assert start(tmp_path / "run") == 0
    assert_same(load(tmp_path / "run"), load(whole))
    pd.testing.assert_frame_equal(curves(tmp_path / "run"), curves(whole))


def test_with_accumulation_it_stops_between_steps(tmp_path):
    accumulate = ("--accumulate_grad_batches", 2, "--num_eval_files", 0, "--max_steps", 4)
    assert start(tmp_path / "whole", *accumulate) == 0
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert start(tmp_path / "run", *accumulate) == EXIT_CODE
    assert load(tmp_path / "run")["global_step"] == 3
    assert start(tmp_path / "run", *accumulate) == 0
    assert_same(load(tmp_path / "run"), load(tmp_path / "whole"))


@pytest.mark.parametrize("validation", [1, 2], ids=["the first", "the one after the last step"])
def test_a_validation_is_left_at_once_and_done_again(tmp_path, validation):
    steps, calls = ("--max_steps", 4, "--val_every_n_steps", 2, "--num_eval_files", 2), []
    original = validating.enhance_batch

    def enhance_batch(*arguments):
        calls.append(1)
        if len(calls) == 4 * validation - 3:  # two files, each with and without the reference
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(*arguments)

    assert start(tmp_path / "whole", *steps, "--num_eval_files", 0) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validating, "enhance_batch", enhance_batch)
        assert start(tmp_path / "run", *steps) == EXIT_CODE
    assert len(calls) == 4 * validation - 2
    assert start(tmp_path / "run", *steps) == 0
    assert_same(load(tmp_path / "run"), load(tmp_path / "whole"))
    tables = [curves(tmp_path / name) for name in ("run", "whole")]
    assert [table["step"].tolist() for table in tables] == [[2, 4]] * 2
    assert tables[0]["valid_loss"].tolist() == tables[1]["valid_loss"].tolist()
    assert load(tmp_path / "run", "best_pesq.ckpt")["global_step"] in (2, 4)


def test_after_a_crash_the_run_goes_on_from_its_last_checkpoint(whole, tmp_path):
    def crash():
        raise RuntimeError("as if killed")

    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 6, crash)
        with pytest.raises(RuntimeError):
            start(tmp_path / "run")
    assert load(tmp_path / "run")["global_step"] == 4
    assert start(tmp_path / "run") == 0
    assert_same(load(tmp_path / "run"), load(whole))
    pd.testing.assert_frame_equal(curves(tmp_path / "run"), curves(whole))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_file_that_cannot_be_read_loses_no_step(tmp_path, capsys, accumulate):
    flags = ("--num_eval_files", 0, "--encoder", "none", "--accumulate_grad_batches", accumulate)
    assert start(tmp_path / "whole", *flags) == 0
    words = [*training_runs.TINY, *map(str, flags), "--max_steps", "8", "--val_every_n_steps", "4"]
    original, reads = KeyedDataset.item, []

    def item(self, key):
        reads.append(key)
        if key == 12 * accumulate - 1:  # the last one of the sixth step
            raise UserError("a.wav: is damaged")
        return original(self, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyedDataset, "item", item)
        patch.setattr("sgmse.data.dataset._PAUSE_S", 0)
        patch.setattr("sgmse.training.run.try_data", lambda _: None)  # which meets it before training
        said = refusal(train.main, capsys, *words, "--run_dir", tmp_path / "run", strict=False)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert said == f"a.wav: is damaged; scripts/doctor.py names all files that are bad; the training is kept in {last}"
    assert reads.count(12 * accumulate - 1) == 2, "it is read again once"
    assert load(tmp_path / "run")["global_step"] == 5
    assert start(tmp_path / "run", *flags) == 0
    assert_same(load(tmp_path / "run"), load(tmp_path / "whole"))


def test_a_validation_that_was_left_is_done_also_where_the_minutes_are_over(tmp_path, monkeypatch):
    flags = (
        "--max_steps",
        -1,
        "--max_minutes",
        0.0001,
        "--val_every_n_steps",
        1,
        "--encoder",
        "none",
        "--num_eval_files",
        2,
    )
    original, calls = validating.enhance_batch, []

    def enhance_batch(*arguments):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(*arguments)

    monkeypatch.setattr(validating, "enhance_batch", enhance_batch)
    assert start(tmp_path / "run", *flags) == EXIT_CODE
    assert start(tmp_path / "run", *flags) == 0
    assert curves(tmp_path / "run")["step"].tolist() == [1]
    assert load(tmp_path / "run")["global_step"] == load(tmp_path / "run", "best_pesq.ckpt")["global_step"] == 1


def test_a_file_without_a_finite_score_is_left_out_of_the_mean(tmp_path, monkeypatch):
    scores = itertools.cycle([[1.0, 2.0, -np.inf], [np.nan, 4.0, 3.0]])  # by file
    monkeypatch.setattr(metrics, "score", lambda *arguments: dict(zip(metrics.MAIN, next(scores), strict=True)))
    assert start(tmp_path / "run", "--max_steps", 4, "--num_eval_files", 2, "--encoder", "none") == 0
    row = curves(tmp_path / "run").iloc[0]
    assert [row[f"{prefix}{name}"] for prefix in ("noisy/", "") for name in metrics.MAIN] == 2 * [1.0, 3.0, 3.0]


def test_a_signal_before_training_stops_it_at_once_and_later_ones_are_answered_as_before(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sgmse.training.run.try_data", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert start(tmp_path / "run") == EXIT_CODE
    assert "stopped by SIGTERM before training; start the same command again" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert {signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)} == {signal.SIG_DFL}


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    (tmp_path / ".last.ckpt.1.part").write_bytes(b"PK")  # what a kill leaves of a checkpoint of any size
    WholeCheckpoints().save_checkpoint({"step": 1}, path)

    def half(content, file):
        file.write(b"PK")
        assert torch.load(path, weights_only=True) == {"step": 1}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", half)
    with pytest.raises(UserError, match="No space left"):
        WholeCheckpoints().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_nothing_in_a_checkpoint_is_run_when_a_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"path": Path()}, tmp_path / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        WholeCheckpoints().load_checkpoint(tmp_path / "last.ckpt")


class SignalledItems(torch.utils.data.Dataset):
    """Each item comes after SIGTERM and SIGUSR1 to the process that prepares it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        item = torch.full((2,), float(index))
        return {"clean": item, "noisy": item, "reference": item, "reference_length": torch.tensor(os.getpid())}


def test_signals_to_a_whole_job_end_no_worker_but_the_training_does():
    loader = _KeyedLoader(SignalledItems(), 2, 1, torch.utils.data.SequentialSampler(SignalledItems()))
    batches = loader._get_iterator()
    found = [next(batches) for _ in range(2)]
    assert [batch["clean"][:, 0].tolist() for batch in found] == [[0, 1], [2, 3]]
    assert found[0]["reference_length"][0] != os.getpid()
    worker = batches._workers[0]
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=10)
    assert worker.exitcode == 0
