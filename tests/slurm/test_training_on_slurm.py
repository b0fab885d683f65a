"""Trainings, enhancement and scores as jobs of a real SLURM."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slurm

SIZE = "--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --encoder_channels 2 --cond_dim 16"
DATA = "--batch_size 2 --num_workers 1 --num_valid_items 2 --num_eval_files 1 --N 1 --device cpu"
TRAINING = f"--encoder cnn {SIZE} {DATA} --max_steps 240 --val_every_n_steps 80".split()


def validated(run: Path) -> list[int]:
    """The steps at which a run was validated."""
    path = run / "validation.csv"
    return [int(row["step"]) for row in csv.DictReader(path.open())] if path.exists() else []


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory) -> tuple[str, Path, Path]:
    """A job that was interrupted four times, its run, and a run that nobody touched."""
    folder = tmp_path_factory.mktemp("two runs")
    interrupted, untouched = folder / "interrupted", folder / "untouched"
    job = cluster.submit("", "train.sbatch", "--run_dir", interrupted, *TRAINING)
    other = cluster.submit("", "train.sbatch", "--run_dir", untouched, *TRAINING)
    cluster.wait(job, lambda: len(validated(interrupted)) == 1)
    cluster.interrupt(job, "--signal=USR1")  # reaches every process but the script
    cluster.wait(job, lambda: cluster.log(job).count("data: ") == 2)
    cluster.interrupt(job, "--signal=USR1", "--batch")  # reaches the script alone, here before training
    cluster.wait(job, lambda: len(validated(interrupted)) == 2)
    cluster.interrupt(job)
    cluster.wait(job, lambda: cluster.log(job).count("data: ") == 4)
    cluster.interrupt(job, "--signal=USR1", "--full")
    cluster.finish(job)
    cluster.finish(other)
    return job, interrupted, untouched


def test_a_job_interrupted_in_both_ways_ends_with_the_weights_of_one_that_was_not(runs):
    _, interrupted, untouched = runs
    ends = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (interrupted, untouched)]
    assert [end["global_step"] for end in ends] == [240, 240]
    assert ends[0]["state_dict"].keys() == ends[1]["state_dict"].keys()
    assert all(torch.equal(ends[0]["state_dict"][name], value) for name, value in ends[1]["state_dict"].items())


def test_an_interrupted_job_goes_on_in_its_folder_at_the_step_where_it_was(cluster, runs):
    job, interrupted, _ = runs
    assert cluster.tell(job, "Restarts") == "4"
    assert validated(interrupted) == [80, 160, 240]
    log = cluster.log(job)
    assert log.count(f"run: {interrupted}") >= 2
    stops = [int(step) for step in re.findall(r"stopped by SIGUSR1 after step (\d+)", log)]
    assert stops == sorted(stops)
    assert stops[0] > 80
    assert sorted(path.name for path in interrupted.parent.iterdir()) == ["interrupted", "untouched"]


def test_a_complete_training_submitted_again_ends_at_once(cluster, runs):
    job = cluster.submit("", "train.sbatch", "--run_dir", runs[1], *TRAINING)
    cluster.finish(job)
    assert "is complete" in cluster.log(job)


def test_a_cancelled_job_stays_cancelled(cluster, tmp_path):
    job = cluster.submit("", "train.sbatch", "--run_dir", tmp_path / "run", *TRAINING)
    cluster.wait(job, lambda: validated(tmp_path / "run") == [80])
    cluster.call("scancel", job)
    cluster.wait(job, lambda: cluster.call("squeue", "--noheader", f"--jobs={job}") == "")
    assert cluster.tell(job, "JobState") == "CANCELLED"


def test_two_processes_of_one_job_share_one_run(cluster, tmp_path):
    run = tmp_path / "run"
    settings = " ".join(TRAINING).replace("240", "6").replace("80", "3").split()
    job = cluster.submit("--ntasks-per-node=2", "train.sbatch", "--run_dir", run, *settings)
    cluster.finish(job)
    assert validated(run) == [3, 6]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert cluster.log(job).count(f"run: {run}") == 1


def test_shares_of_an_array_enhance_every_file_once_and_are_scored_when_they_are_done(cluster, runs, tmp_path):
    test = Path("sgmse/data/embedded/test")
    enhanced, scores = tmp_path / "enhanced", tmp_path / "scores.csv"
    ckpt = runs[1] / "checkpoints" / "last.ckpt"
    flags = ["--ckpt", ckpt, "--test_dir", test, "--enhanced_dir", enhanced, "--device", "cpu"]
    array = cluster.submit("--array=1-2", "enhance.sbatch", *flags)
    folders = ["--clean_dir", test / "clean", "--noisy_dir", test / "noisy", "--enhanced_dir", enhanced]
    job = cluster.submit(f"--dependency=afterok:{array}", "evaluate.sbatch", *folders, "--csv", scores)
    cluster.finish(job)
    rows = list(csv.DictReader(scores.open()))
    assert len({row["file"] for row in rows}) * 2 == len(rows), "each noisy, and enhanced once"
