"""Training through the real command: exact resumption, validation, checkpoints, loggers."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from sgmse.commands import train
from sgmse.data import corpora

TINY = """--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --batch_size 2 --num_workers 0
--num_valid_items 4 --num_eval_files 1 --N 1 --warmup_steps 2 --lr 0.01 --device cpu --lr_decay none""".split()


def run(monkeypatch, capsys, *arguments: str) -> Path:
    """Train with the tiny settings; returns the folder of the run."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.main()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("run: "))
    return Path(line.removeprefix("run: "))


@pytest.fixture(autouse=True)
def few_references(monkeypatch):
    """The statistics of the training references, at each validation, from 8 of them."""
    monkeypatch.setattr("sgmse.diffusion.adaptive.NUM_REFERENCES", 8)


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    def training(*arguments: str) -> Path:
        return run(monkeypatch, capsys, *TINY, "--log_dir", str(tmp_path / "logs"), *arguments)

    return training


def load(folder: Path, name: str = "last.ckpt") -> dict:
    """With `weights_only=True`: our checkpoints hold data, not code."""
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def assert_same(a: dict, b: dict) -> None:
    assert a["global_step"] == b["global_step"]
    for part in (a["state_dict"], b["state_dict"]):
        assert part
    for name in a["state_dict"]:
        assert torch.equal(a["state_dict"][name], b["state_dict"][name]), name
    for name in a["average"]["weights"]:
        assert torch.equal(a["average"]["weights"][name], b["average"]["weights"][name]), name
    assert a["average"]["num_updates"] == b["average"]["num_updates"]


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_a_stopped_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    trained, monkeypatch, capsys, accumulate
):
    common = ("--val_every_n_steps", "3", "--accumulate_grad_batches", accumulate)
    whole = load(trained("--max_steps", "8", *common))
    folder = trained("--max_steps", "5", *common)
    stopped = load(folder)
    assert stopped["global_step"] == 5
    resumed = run(monkeypatch, capsys, "--ckpt", str(folder / "checkpoints" / "last.ckpt"), "--max_steps", "8")
    assert resumed == folder
    assert_same(load(folder), whole)
    assert any(not torch.equal(stopped["state_dict"][n], whole["state_dict"][n]) for n in whole["state_dict"])


def test_validation_leaves_raw_weights_unchanged(trained):
    """However often it validates, the run is bit for bit the same, and the average is not what is trained."""
    often = load(trained("--max_steps", "6", "--val_every_n_steps", "1"))
    once = load(trained("--max_steps", "6", "--val_every_n_steps", "6"))
    assert_same(often, once)
    average = once["average"]["weights"]
    assert any(not torch.equal(average[name], once["state_dict"][name]) for name in average)


def test_a_run_leaves_its_settings_curves_sounds_and_checkpoints(trained):
    folder = trained("--max_steps", "4", "--val_every_n_steps", "2", "--save_every_n_steps", "2")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings["nf"] == 4
    assert settings["max_steps"] == 4
    assert settings["cond_drop_prob"] == 0.1
    assert "code: " in (folder / "config.yaml").read_text()
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "step_0000002.ckpt", "step_0000004.ckpt", "best_pesq.ckpt", "best_si_sdr.ckpt"}
    assert {path.name for path in (folder / "validation" / "step_0000004").iterdir()} >= {"000.png", "000_noisy.flac"}
    rows = pd.read_csv(folder / "validation.csv")
    assert rows["step"].tolist() == [2, 4]
    expected = {"valid_loss", "cond_gap", "pesq", "si_sdr", "estoi", "uncond/pesq", "uncond/si_sdr", "uncond/estoi"}
    assert expected | {"uncond/valid_loss", "noisy/pesq"} <= set(rows)
    assert rows[sorted(expected)].notna().all().all()


def test_training_curves_hold_loss_by_time_gradient_norm_and_nulls(trained, monkeypatch):
    monkeypatch.setattr("sgmse.model.score_model.LOG_EVERY", 2)
    monkeypatch.setattr("sgmse.training.run.LOG_EVERY", 2)
    folder = trained("--max_steps", "4", "--val_every_n_steps", "4", "--num_eval_files", "0")
    curves = pd.read_csv(folder / "curves_0" / "metrics.csv")
    assert {"train_loss", "grad_norm", "null_references"} <= set(curves)
    assert any(name.startswith("train_loss_by_t/") for name in curves)


def test_the_baseline_has_no_conditional_curves(trained):
    folder = trained("--max_steps", "2", "--val_every_n_steps", "2", "--encoder", "none")
    columns = set(pd.read_csv(folder / "validation.csv"))
    assert not {name for name in columns if name.startswith("uncond") or name == "cond_gap"}
    assert not any(name.startswith("encoder") for name in load(folder)["state_dict"])


def test_without_dropping_no_unconditional_scores_are_logged_but_the_gap_is(trained):
    folder = trained("--max_steps", "2", "--val_every_n_steps", "2", "--cond_drop_prob", "0")
    columns = set(pd.read_csv(folder / "validation.csv"))
    assert "cond_gap" in columns
    assert not {name for name in columns if name.startswith("uncond")}


def test_tensorboard_gets_curves_sounds_and_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained("--max_steps", "2", "--val_every_n_steps", "2", "--logger", "tensorboard")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"pesq", "valid_loss", "uncond/pesq"} <= set(tags["scalars"])
    assert "valid/000_enhanced" in tags["audio"]
    assert "valid/000" in tags["images"]


def test_wandb_works_offline(trained, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = trained("--max_steps", "2", "--val_every_n_steps", "2", "--logger", "wandb", "--wandb_name", "trial")
    import wandb

    wandb.finish()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_seeds_differ_and_repeat(trained):
    first, again, other = (load(trained("--max_steps", "2", "--num_eval_files", "0", "--seed", s)) for s in "001")
    assert_same(first, again)
    assert any(not torch.equal(first["state_dict"][n], other["state_dict"][n]) for n in first["state_dict"])


def test_the_guided_and_the_plain_baseline_train_on_the_same_mixtures(trained):
    """Same seed, same clean and noisy waveforms: conditioned and unconditioned models are comparable."""
    from sgmse.settings.config import DataConfig, ModelConfig
    from sgmse.training.datamodule import build_datamodule

    sets = [build_datamodule(DataConfig(), ModelConfig(encoder=e), seed=0).train for e in ("cnn", "none")]
    for key in (0, 5, 200):
        assert torch.equal(sets[0][key]["noisy"], sets[1][key]["noisy"])
        assert sets[1][key]["reference_length"] == 0


def test_precision_bf16_and_compile_train(trained):
    folder = trained("--max_steps", "2", "--num_eval_files", "0", "--precision", "bf16-mixed")
    assert all(w.dtype == torch.float32 for w in load(folder)["state_dict"].values() if w.is_floating_point())


@pytest.mark.parametrize("encoder", ["none", "cnn", "sequence"])
def test_a_run_is_repeated_from_its_own_config(trained, monkeypatch, capsys, tmp_path, encoder):
    embedded = corpora.embedded_dir()
    data = ("--speech_dir", str(embedded / "speech"), "--noise_dir", str(embedded / "noise"))
    first = trained("--encoder", encoder, "--max_steps", "1", "--num_eval_files", "0", *data)
    again = run(monkeypatch, capsys, "--config", str(first / "config.yaml"))
    assert again != first
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load((first / "config.yaml").read_text())
    assert_same(load(again), load(first))
