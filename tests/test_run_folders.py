"""One command starts a run in --run_dir, goes on with it, or finds it complete; its curves; its processes."""

import re
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from commands import TINY, call, refusal, saved_run
from pytorch_lightning.loops.progress import _BatchProgress, _Progress
from training_runs import load

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.settings.config import ModelConfig, TrainConfig
from sgmse.training import interruption, run
from sgmse.training.loggers import RunProgress, make_loggers
from sgmse.training.resumption import find_stopped_run, is_missed, read_validations
from sgmse.training.run import _settle_epoch, run_folder
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
    steps = {path.name: yaml.safe_load(path.read_text())["max_steps"] for path in (tmp_path / "run").glob("*.yaml")}
    assert steps == {"config.1.yaml": 1, "config.yaml": 2}, "settings of an earlier start are kept where they differ"


def test_a_file_with_settings_of_another_choice_than_the_run_s_starts_it_and_goes_on(start, tmp_path):
    (tmp_path / "preset.yaml").write_text("encoder_channels: 8\n")  # of the encoder that --encoder none replaces
    assert "stopped at step 1" in start("--config", tmp_path / "preset.yaml")
    assert "stopped at step 2" in start("--config", tmp_path / "preset.yaml", "--max_steps", 2)


def test_a_file_that_fits_the_run_alone_serves_where_it_goes_on(start, tmp_path):
    start("--sde", "sbve")
    (tmp_path / "more.yaml").write_text("sampler: bridge_sde\nmax_steps: 2\n")
    values = train.read_settings(["--run_dir", str(tmp_path / "run"), "--config", str(tmp_path / "more.yaml")])
    assert (values["sde"], values["sampler"]) == ("sbve", "bridge_sde")


def test_a_run_goes_on_without_the_weights_it_began_with(start, tmp_path):
    first = saved_run(tmp_path / "first", encoder="none")
    assert "stopped at step 1" in start("--init_ckpt", first)
    first.unlink()
    assert "stopped at step 2" in start("--init_ckpt", first, "--max_steps", 2)


@pytest.mark.parametrize(
    ("limit", "said"), [(("--max_epochs", 1), "1 of 1 epochs"), (("--max_minutes", 0.001), "of 0.001 minutes")]
)
def test_other_limits_complete_a_run_too(start, limit, said):
    flags = ("--max_steps", -1, "--lr_decay", "none", "--batch_size", 60, "--val_every_n_steps", 9, *limit)
    assert "run: " in start(*flags)
    assert said in start(*flags)


@pytest.mark.parametrize("first", [("--max_epochs", 1), ("--max_steps", 1), ("--max_steps", 2)])
def test_a_larger_number_of_epochs_goes_on_with_the_next_one(start, first):
    flags = ("--lr_decay", "none", "--batch_size", 58, "--val_every_n_steps", 9)  # two steps an epoch
    start(*flags, *(() if "--max_steps" in first else ("--max_steps", -1)), *first)
    assert "stopped at step 6" in start(*flags, "--max_steps", -1, "--max_epochs", 3)


def test_a_limit_within_a_step_takes_its_batches_back():
    batches, epochs = _BatchProgress(), _Progress()
    for progress, count in ((batches, 3), (epochs, 1)):
        for _ in range(count):
            for name in ("ready", "started", "processed", "completed"):
                getattr(progress, f"increment_{name}")()
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batches), epoch_progress=epochs)
    _settle_epoch(SimpleNamespace(accumulate_grad_batches=2, fit_loop=loop))
    for counts, number in ((batches.current, 2), (batches.total, 2), (epochs.current, 0), (epochs.total, 0)):
        assert (counts.processed, counts.completed) == (number, number)


@pytest.mark.parametrize("left", [("config.yaml", "checkpoints/", "curves_0/"), ("slurm-7.out", "x.lock", ".hidden")])
def test_a_run_starts_where_one_was_killed_before_its_first_checkpoint_or_a_job_left_its_logs(start, tmp_path, left):
    for name in left:
        path = tmp_path / "run" / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("nf: 4\n")
    assert "stopped at step 1" in start()


def test_without_run_dir_each_start_gets_a_folder_of_its_own(tmp_path):
    folders = [run_folder(TrainConfig(log_dir=str(tmp_path)), ModelConfig()) for _ in range(3)]
    assert len(set(folders)) == 3
    assert all((folder / "checkpoints").is_dir() and folder.parent == tmp_path for folder in folders)


REFUSED = [
    ("--run_dir LOST", "LOST: holds best_pesq.ckpt but no last.ckpt to go on from"),
    ("--run_dir THESIS", "THESIS: holds thesis.tex and is no folder of a run"),
    ("--run_dir THESIS/thesis.tex", "thesis.tex: cannot be written"),
    ("--run_dir RUN --ckpt RUN/checkpoints/last.ckpt", "--ckpt has no meaning"),
    ("--run_dir NEW --log_dir logs", "--log_dir has no meaning"),
    ("--run_dir RUN --max_steps 4 --nf 8", "was trained with nf 4, not 8; leave --nf out to resume"),
    ("--run_dir NEW --wandb_group x", "--wandb_group has no meaning for --logger csv"),
    ("--run_dir NEW --wandb_tags x", "--wandb_tags has no meaning for --logger csv"),
]


@pytest.mark.parametrize(("words", "culprit"), REFUSED)
def test_places_that_are_none_of_a_run_are_refused(capsys, tmp_path, monkeypatch, words, culprit):
    monkeypatch.chdir(tmp_path)
    saved_run(tmp_path / "RUN")
    saved_run(tmp_path / "LOST").rename(tmp_path / "LOST" / "checkpoints" / "best_pesq.ckpt")
    (tmp_path / "THESIS").mkdir()
    (tmp_path / "THESIS" / "thesis.tex").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert culprit in refusal(train.main, capsys, *QUICK, *words.split())
    assert sorted(tmp_path.rglob("*")) == before


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


def test_a_run_that_was_killed_goes_on_from_a_kept_step_that_is_newer_and_after_a_divergence_does_not(start, tmp_path):
    start("--max_steps", 4, "--val_every_n_steps", 4, "--save_every_n_steps", 2)
    saved = tmp_path / "run" / "checkpoints"
    (saved / "step_0000004.ckpt").replace(tmp_path / "newer.ckpt")
    (saved / "step_0000002.ckpt").replace(saved / "last.ckpt")
    (tmp_path / "newer.ckpt").replace(saved / "step_0000004.ckpt")
    steps = []
    for newer in ("step_0000004.ckpt", "last.ckpt"):
        (saved / newer).touch()
        steps.append(find_stopped_run(tmp_path / "run").steps)
    assert steps == [4, 2]
    (saved / "step_0000004.ckpt").touch()
    files = RunFiles(saved, tmp_path / "run" / "validation.csv", TrainConfig())
    assert files.set_back() == saved / "last.ckpt"
    assert find_stopped_run(tmp_path / "run").steps == 2


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


def test_going_on_from_an_earlier_step_keeps_no_best_of_the_steps_that_are_left(tmp_path):
    for step, pesq in ((2, 1.0), (4, 1.1), (6, 4.5)):
        files_of_a_run(tmp_path).on_validation_end(StandIn(step, pesq=pesq), None)
    resumed = files_of_a_run(tmp_path)
    resumed.on_load_checkpoint(StandIn(2), None, {"global_step": 2})
    assert (tmp_path / "abandoned_best_pesq_step_0000006.ckpt").read_text() == "6"
    resumed.on_validation_end(StandIn(4, pesq=1.05), None)
    assert (tmp_path / "best_pesq.ckpt").read_text() == "4"


def test_the_best_is_known_without_validation_csv(tmp_path):
    class Trainer(StandIn):
        def save_checkpoint(self, path):
            content = {"state_dict": {}, "global_step": self.global_step}
            torch.save(content | {"callbacks": {files.state_key: files.state_dict()}}, path)

    for step, pesq in ((2, 2.0), (4, 1.0), (6, 3.0)):
        files = files_of_a_run(tmp_path)
        files.on_validation_end(Trainer(step, pesq=pesq), None)
        (tmp_path / "validation.csv").unlink()
        best = torch.load(tmp_path / "best_pesq.ckpt", weights_only=True)["global_step"]
        assert best == {2: 2, 4: 2, 6: 6}[step]


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


def test_progress_says_the_rate_and_the_times_that_are_left():
    progress = RunProgress(val_every_n_steps=100)
    progress.started = 0.0
    assert progress.describe(50, 200, 100.0) == "step 50 of 200, 0.5 steps/s, validation in 0:01:40, end in 0:05:00"
    progress.validating_s = 50.0
    assert progress.describe(50, None, 100.0) == "step 50, 0.5 steps/s, validation in 0:00:50"
    assert progress.describe(150, 199, 100.0) == "step 150 of 199, 1.5 steps/s, end in 0:00:33", "no validation follows"
    assert progress.describe(0, 200, 100.0) == "step 0 of 200, 0 steps/s"


def test_nolog_logs_nothing():
    assert make_loggers(TrainConfig(nolog=True, logger="wandb"), Path("nowhere")) == []


# ---- clusters ----

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NAME": "train"}
SHELL = SRUN | {"SLURM_JOB_NAME": "interactive"}
TWO_BY_TWO = {"devices": 2, "num_nodes": 2}


@pytest.mark.parametrize(
    ("environment", "settings", "culprit"),
    [
        ({}, {"devices": 2}, ""),
        ({}, {"num_nodes": 2}, "--num_nodes 2: start the command on every node, with srun or torchrun"),
        (TORCHRUN, {"devices": 2, "run_dir": "x"}, ""),
        (TORCHRUN, {}, "--devices 1 --num_nodes 1 is 1, but torchrun started 2 processes, 2 per node"),
        (TORCHRUN, {"devices": 2}, "torchrun started 2 processes, which share one run; name its folder with --run_dir"),
        (SHELL, {}, ""),
        (SRUN, TWO_BY_TWO | {"run_dir": "x"}, ""),
        (SRUN, {"devices": 4}, "--devices 4 --num_nodes 1 is 4, but the SLURM job has 4 processes, 2 per node"),
        (SRUN, {"devices": 2}, "--devices 2 --num_nodes 1 is 2, but the SLURM job has 4 processes"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": ""}, TWO_BY_TWO, "start the command with srun"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": ""}, TWO_BY_TWO, "--ntasks-per-node=2 instead of"),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}, {}, ""),
        ({"SLURM_NTASKS": "1"}, {"devices": 2}, "the SLURM job has 1 process, 2 per node"),
    ],
)
def test_processes_must_be_those_of_the_settings_and_slurm_requeues_nothing_itself(
    monkeypatch, environment, settings, culprit
):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        if value:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(culprit)) if culprit else nullcontext():
        interruption.check_launch(TrainConfig(device="cpu", **settings))
        plugins = interruption.slurm_plugins()
        assert all(not plugin.auto_requeue for plugin in plugins)
        assert bool(plugins) == (environment.get("SLURM_JOB_NAME") == "train")


def test_an_installed_copy_in_another_repository_has_no_commit_of_its_own(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "theirs", "--allow-empty"],
        cwd=tmp_path,
        check=True,
    )
    copy = tmp_path / "run.py"
    copy.write_text("")
    monkeypatch.setattr(run, "__file__", str(copy))
    assert run._commit() == "unknown commit"
