"""Training through the real command: exact resumption, validation, checkpoints, loggers."""

import pandas as pd
import pytest
import torch
import yaml
from small_corpora import save
from training_runs import _few_references, assert_same, differ, load, start  # noqa: F401, an autouse fixture

from sgmse.data import corpora
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings.config import CONFIGS, DataConfig, ModelConfig
from sgmse.training.datamodule import build_datamodule

QUICK = ("--max_steps", 2, "--val_every_n_steps", 2, "--num_eval_files", 0)


def test_a_stopped_and_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    common = ("--val_every_n_steps", 3, "--accumulate_grad_batches", 2, "--num_eval_files", 0)
    for folder, steps in (("whole", (8,)), ("run", (5, 8))):
        for count in steps:
            assert start(tmp_path / folder, "--max_steps", count, *common) == 0
            assert load(tmp_path / folder)["global_step"] == count
    assert_same(load(tmp_path / "run"), load(tmp_path / "whole"))


def test_the_preset_of_48_khz_trains_a_step(tmp_path):
    """With its own transform and levels; narrower, on noise at 48 kHz."""
    clean, noise = 0.1 * torch.randn(2, 96000).numpy()
    for split in ("train", "valid"):
        for kind, signal in (("clean", clean), ("noisy", clean + noise)):
            save(tmp_path / "pairs" / split / kind / "a.wav", samples=signal, rate=48000)
    small = "--nf 4 --num_res_blocks 1 --num_frames 64 --batch_size 1 --accumulate_grad_batches 1 --encoder_channels 2"
    preset = ["--config", CONFIGS / "48k.yaml", "--base_dir", tmp_path / "pairs", *small.split()]
    preset += "--num_workers 0 --num_valid_items 1 --num_eval_files 0 --device cpu --reference_s 0.25 0.3".split()
    assert start(tmp_path / "run", "--max_steps", 1, settings=[str(word) for word in preset]) == 0
    assert load(tmp_path / "run")["model_settings"]["n_fft"] == 1534


def test_validation_leaves_raw_weights_unchanged(tmp_path):
    """However often it validates, the run is bit for bit the same, and the average is not what is trained."""
    for name, every in (("often", 1), ("once", 3)):
        start(tmp_path / name, "--max_steps", 3, "--val_every_n_steps", every)
    once = load(tmp_path / "once")
    assert_same(load(tmp_path / "often"), once)
    average = once["average"]["weights"]
    assert any(not torch.equal(average[name], once["state_dict"][name]) for name in average)


def test_a_run_leaves_its_settings_curves_sounds_and_checkpoints(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ("--max_steps", 4, "--val_every_n_steps", 2, "--save_every_n_steps", 2, "--logger", "tensorboard")
    start(tmp_path, *flags)
    text = (tmp_path / "config.yaml").read_text()
    assert "code: " in text
    settings = yaml.safe_load(text)
    assert [settings[name] for name in ("nf", "max_steps", "cond_drop_prob")] == [4, 4, 0.1]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "step_0000002.ckpt", "step_0000004.ckpt", "best_pesq.ckpt", "best_si_sdr.ckpt"}
    assert {path.name for path in (tmp_path / "validation" / "step_0000004").iterdir()} >= {"000.png", "000_noisy.flac"}
    rows = pd.read_csv(tmp_path / "validation.csv")
    assert rows["step"].tolist() == [2, 4]
    expected = {"valid_loss", "cond_gap", "pesq", "si_sdr", "estoi", "uncond/pesq", "uncond/si_sdr", "uncond/estoi"}
    assert expected | {"uncond/valid_loss", "noisy/pesq"} <= set(rows)
    assert rows[sorted(expected)].notna().all().all()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"pesq", "valid_loss", "uncond/pesq"} <= set(tags["scalars"])
    assert "valid/000_enhanced" in tags["audio"]
    assert "valid/000" in tags["images"]


def test_training_curves_hold_loss_by_time_gradient_norm_and_nulls_whatever_the_logger(tmp_path, monkeypatch):
    monkeypatch.setattr("sgmse.model.score_model.LOG_EVERY", 2)
    monkeypatch.setattr("sgmse.training.run.LOG_EVERY", 2)
    start(tmp_path, *QUICK, "--max_steps", 4, "--logger", "tensorboard")
    curves = pd.read_csv(tmp_path / "curves_0" / "metrics.csv")
    assert {"train_loss", "grad_norm", "null_references"} <= set(curves)
    assert any(name.startswith("train_loss_by_t/") for name in curves)


def test_losses_by_time_are_means_over_accumulated_batches_too(tmp_path, monkeypatch):
    monkeypatch.setattr("sgmse.model.score_model.LOG_EVERY", 2)
    monkeypatch.setattr("sgmse.training.run.LOG_EVERY", 2)
    monkeypatch.setattr("sgmse.model.score_model.TIME_BINS", 1)
    counted = []
    original = NoiseCondScoreModel.on_before_optimizer_step

    def count(model, optimizer):
        counted.append(float(model._time_bins[1].sum()))
        original(model, optimizer)

    monkeypatch.setattr(NoiseCondScoreModel, "on_before_optimizer_step", count)
    start(tmp_path, *QUICK, "--max_steps", 4, "--accumulate_grad_batches", 3)
    assert counted == [6.0, 12.0, 6.0, 12.0], "three batches of two items in each of two steps"


@pytest.mark.parametrize(("flags", "has_gap"), [(("--encoder", "none"), False), (("--cond_drop_prob", 0), True)])
def test_what_is_not_trained_has_no_curve(tmp_path, flags, has_gap):
    start(tmp_path, *QUICK, "--num_eval_files", 1, *flags)
    columns = set(pd.read_csv(tmp_path / "validation.csv"))
    assert not {name for name in columns if name.startswith("uncond")}
    assert ("cond_gap" in columns) == has_gap
    assert any(name.startswith("encoder") for name in load(tmp_path)["state_dict"]) == has_gap


def test_seeds_differ_and_repeat(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        start(tmp_path / name, *QUICK, "--seed", seed)
    first, again, other = (load(tmp_path / name) for name in ("first", "again", "other"))
    assert_same(first, again)
    assert differ(first, other)


def test_the_guided_and_the_plain_baseline_train_on_the_same_mixtures():
    """Same seed, same clean and noisy waveforms: conditioned and unconditioned models are comparable."""
    sets = [build_datamodule(DataConfig(), ModelConfig(encoder=e), seed=0).train for e in ("cnn", "none")]
    for key in (0, 5, 200):
        assert torch.equal(sets[0][key]["noisy"], sets[1][key]["noisy"])
        assert sets[1][key]["reference_length"] == 0


def test_precision_bf16_trains_weights_of_32_bit(tmp_path):
    start(tmp_path, *QUICK, "--precision", "bf16-mixed")
    assert all(w.dtype == torch.float32 for w in load(tmp_path)["state_dict"].values() if w.is_floating_point())


@pytest.mark.parametrize("encoder", ["none", "sequence"])
def test_a_run_is_repeated_from_its_own_config(tmp_path, encoder):
    embedded = corpora.embedded_dir()
    data = ("--speech_dir", embedded / "speech", "--noise_dir", embedded / "noise")
    start(tmp_path / "first", "--encoder", encoder, *QUICK, "--max_steps", 1, *data)
    start(tmp_path / "again", settings=["--config", str(tmp_path / "first" / "config.yaml")])
    settings = [yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in ("first", "again")]
    assert settings[0] == settings[1]
    assert_same(load(tmp_path / "again"), load(tmp_path / "first"))
