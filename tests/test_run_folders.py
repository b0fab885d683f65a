"""One command starts a run in --run_dir, goes on with it, or finds it complete; its curves; its processes."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from commands import TINY, call, refusal, saved_run
from test_training import load

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.settings.config import TrainConfig
from sgmse.training import interruption
from sgmse.training.loggers import loggers
from sgmse.training.resumption import is_missed, read_validations
from sgmse.training.saving import RunFiles

QUICK = [*TINY, "--num_eval_files", "0", "--encoder", "none"]


@pytest.fixture
def start(tmp_path, capsys):
    """Train in tmp_path/run; returns what was said, also where the command ended with exit code 0."""

    def started(*arguments: object) -> str:
        try:
            return call(train.main, capsys, *QUICK, "--run_dir", tmp_path / "run", *arguments)
        except SystemExit as stop:
            said: str = capsys.readouterr().out
            return said if not stop.code else f"exit code {stop.code}"

    return started


def test_the_same_command_starts_a_run_and_then_finds_it_complete(start, tmp_path):
    assert f"run: {tmp_path / 'run'}\n" in start()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    written = checkpoint.stat().st_mtime_ns
    assert "is complete, 1 of 1 steps; a larger --max_steps would go on" in start()
    assert checkpoint.stat().st_mtime_ns == written
    assert "stopped at step 2" in start("--max_steps", 2)
    assert load(tmp_path / "run")["global_step"] == 2


def test_settings_of_an_earlier_start_are_kept_where_they_differ(start, tmp_path):
    start()
    start("--max_steps", 2)
    files = sorted(path.name for path in (tmp_path / "run").glob("*.yaml"))
    assert files == ["config.1.yaml", "config.yaml"]
    steps = [yaml.safe_load((tmp_path / "run" / name).read_text())["max_steps"] for name in files]
    assert steps == [1, 2]


@pytest.mark.parametrize(
    ("limit", "said"), [(("--max_epochs", 1), "1 of 1 epochs"), (("--max_minutes", 0.001), "of 0.001 minutes")]
)
def test_other_limits_complete_a_run_too(start, limit, said):
    flags = ("--max_steps", -1, "--lr_decay", "none", "--batch_size", 60, "--val_every_n_steps", 9, *limit)
    assert "run: " in start(*flags)
    assert said in start(*flags)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(start, tmp_path):
    for folder in (tmp_path / "run" / "checkpoints", tmp_path / "run" / "curves_0"):
        folder.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("nf: 4\n")
    assert "stopped at step 1" in start()


def test_a_run_whose_last_checkpoint_is_gone_is_not_overwritten(capsys, tmp_path):
    saved_run(tmp_path).rename(tmp_path / "checkpoints" / "best_pesq.ckpt")
    refused = refusal(train.main, capsys, *QUICK, "--run_dir", tmp_path)
    assert refused == f"{tmp_path}: holds best_pesq.ckpt but no last.ckpt to go on from; choose another --run_dir"


def test_logs_and_locks_of_a_job_may_be_in_the_folder_already(start, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("slurm-7.out", "train.log", "cell.lock", ".hidden"):
        (tmp_path / "run" / name).write_text("")
    assert "stopped at step 1" in start()


def test_a_folder_of_something_else_is_refused(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    refused = refusal(train.main, capsys, *QUICK, "--run_dir", tmp_path)
    assert refused == f"{tmp_path}: holds thesis.tex and is no folder of a run; choose another --run_dir"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    refused = refusal(train.main, capsys, *QUICK, "--run_dir", tmp_path / "thesis.tex")
    assert "cannot be written" in refused


def test_flags_that_say_where_a_run_is_exclude_each_other(capsys, tmp_path):
    ckpt = saved_run(tmp_path / "run")
    assert "--ckpt has no meaning" in refusal(train.main, capsys, "--run_dir", tmp_path / "run", "--ckpt", ckpt)
    assert "--log_dir has no meaning" in refusal(train.main, capsys, "--run_dir", tmp_path / "new", "--log_dir", "logs")


def test_another_model_is_refused_also_where_the_run_is_complete(capsys, tmp_path):
    saved_run(tmp_path / "run")
    flags = ("--run_dir", tmp_path / "run", "--max_steps", 4, "--nf", 8)
    assert "was trained with nf 4, not 8; leave --nf out to resume" in refusal(train.main, capsys, *flags)


# ---- curves ----


def files_of_a_run(folder: Path) -> RunFiles:
    return RunFiles(folder, folder / "validation.csv", TrainConfig(val_every_n_steps=2, save_every_n_steps=4))


class StandIn:
    """A trainer that has done so many steps; what it saves are files that name the step."""

    is_global_zero = True
    strategy = SimpleNamespace(broadcast=lambda value: value)

    def __init__(self, step: int, **scores: float) -> None:
        self.global_step, self.callback_metrics = step, scores

    def save_checkpoint(self, path: Path) -> None:
        path.write_text(str(self.global_step))


def test_rows_of_steps_that_are_done_again_are_replaced_and_columns_may_change(tmp_path):
    for step, scores in ((2, {"pesq": 1.0}), (4, {"pesq": 2.0}), (6, {"pesq": 9.0}), (6, {"si_sdr": 3.0})):
        files_of_a_run(tmp_path).on_validation_end(StandIn(step, **scores), None)
    rows = pd.read_csv(tmp_path / "validation.csv")
    assert rows["step"].tolist() == [2, 4, 6]
    assert rows["pesq"].tolist()[:2] == [1.0, 2.0]
    assert rows["si_sdr"].tolist()[2] == 3.0
    assert rows.isna().sum().sum() == 3
    assert [is_missed(tmp_path / "validation.csv", step, 2) for step in (0, 4, 5, 8)] == [False, False, False, True]


def test_the_best_checkpoint_is_the_best_of_the_table_whoever_wrote_its_rows(tmp_path):
    for step, pesq in ((2, 1.5), (4, float("nan")), (6, 1.4), (8, 1.5)):
        files_of_a_run(tmp_path).on_validation_end(StandIn(step, pesq=pesq), None)  # a new process each time
    assert (tmp_path / "best_pesq.ckpt").read_text() == "2"
    files_of_a_run(tmp_path).on_validation_end(StandIn(10, pesq=1.6), None)
    assert (tmp_path / "best_pesq.ckpt").read_text() == "10"
    files_of_a_run(tmp_path).on_validation_end(StandIn(4, pesq=1.55), None)  # resumed at an earlier step
    assert (tmp_path / "best_pesq.ckpt").read_text() == "4"


def test_a_kill_between_the_files_and_the_row_leaves_the_validation_to_be_done_again(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFiles, "_add_row", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files_of_a_run(tmp_path).on_validation_end(StandIn(2, pesq=1.0), None)
    assert (tmp_path / "best_pesq.ckpt").read_text() == "2"
    assert is_missed(tmp_path / "validation.csv", 2, 2)


def test_seconds_count_those_before_a_resumption(tmp_path):
    before, after = files_of_a_run(tmp_path), files_of_a_run(tmp_path)
    before.start -= 1000
    after.load_state_dict(before.state_dict())
    assert after.state_dict()["seconds"] == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step\nx\n", "step,seconds\n2,1,5\n"])
def test_a_damaged_validation_csv_is_refused(tmp_path, text):
    (tmp_path / "validation.csv").write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        read_validations(tmp_path / "validation.csv")


def test_curves_go_to_csv_whatever_the_logger(start, tmp_path, monkeypatch):
    monkeypatch.setattr("sgmse.training.run.LOG_EVERY", 1)
    start("--logger", "tensorboard")
    assert "train_loss" in pd.read_csv(tmp_path / "run" / "curves_0" / "metrics.csv")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_a_resumed_run_keeps_its_wandb_id_group_and_tags(start, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    import wandb

    flags = ("--logger", "wandb", "--wandb_group", "CFG-01", "--wandb_tags", "mini", "cnn")
    seen = []
    for steps in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr("wandb.finish", lambda *_: None)
            start(*flags, "--max_steps", steps)
        assert wandb.run is not None
        seen.append((wandb.run.id, wandb.run.group, wandb.run.tags))
        wandb.finish()
    identity = (tmp_path / "run" / "wandb_id.txt").read_text().strip()
    assert seen == [(identity, "CFG-01", ("mini", "cnn"))] * 2
    assert len(list((tmp_path / "run").glob(f"wandb/offline-run-*-{identity}"))) in (1, 2)  # one per second


def test_what_belongs_to_wandb_is_refused_for_other_loggers(capsys, tmp_path):
    for flag in ("--wandb_group", "--wandb_tags"):
        refused = refusal(train.main, capsys, *QUICK, "--run_dir", tmp_path / "run", flag, "x")
        assert refused.startswith(f"{flag} has no meaning for --logger csv")
    assert loggers(TrainConfig(nolog=True, logger="wandb"), Path("nowhere")) == []


# ---- clusters ----

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "settings", "sentence"),
    [
        ({}, {"num_nodes": 2}, "--num_nodes 2: start the command on every node, with srun or torchrun"),
        (TORCHRUN, {}, "--devices 1 --num_nodes 1 is 1, but torchrun started 2 processes, 2 per node"),
        (TORCHRUN, {"devices": 2}, "torchrun started 2 processes, which share one run; name its folder with --run_dir"),
        (SRUN, {"devices": 4}, "--devices 4 --num_nodes 1 is 4, but the SLURM job has 4 processes, 2 per node"),
        (SRUN, {"devices": 2}, "--devices 2 --num_nodes 1 is 2, but the SLURM job has 4 processes"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": ""}, {"devices": 2, "num_nodes": 2}, "start the command with srun"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": ""}, {"devices": 2, "num_nodes": 2}, "--ntasks-per-node=2 instead of"),
        ({"SLURM_NTASKS": "1"}, {"devices": 2}, "the SLURM job has 1 process, 2 per node"),
    ],
)
def test_processes_that_are_not_those_of_the_settings_are_refused(monkeypatch, environment, settings, sentence):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        if value:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        interruption.check_launch(TrainConfig(device="cpu", **settings))
    assert sentence in str(refused.value)
    assert ";" in str(refused.value) or ":" in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "settings"),
    [
        ({}, {"devices": 2}),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}, {}),
        (TORCHRUN, {"devices": 2, "run_dir": "x"}),
        (SRUN, {"devices": 2, "num_nodes": 2, "run_dir": "x"}),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, {}),
    ],
)
def test_fitting_processes_are_taken_and_slurm_requeues_nothing_itself(monkeypatch, environment, settings):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    interruption.check_launch(TrainConfig(device="cpu", **settings))
    assert all(not plugin.auto_requeue for plugin in interruption.slurm_plugins())
    assert bool(interruption.slurm_plugins()) == (environment.get("SLURM_JOB_NAME") == "train")
