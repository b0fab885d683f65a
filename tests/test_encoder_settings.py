"""Encoders through the real commands: settings that fit together, weights that are there, training, resuming, use."""

from pathlib import Path

import pytest
import torch
from commands import TINY, call, refusal
from small_tower import SmallTower, save_weights

from sgmse.commands import enhance as enhancement_noise_cond
from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.encoders import ENCODERS, encoder_table
from sgmse.encoders.panns import PANNsNoiseEncoder
from sgmse.model.enhancer import Enhancer

README = Path(__file__).parent.parent / "docs" / "encoders.md"


@pytest.fixture
def panns(tmp_path, monkeypatch) -> Path:
    """PANNs with a network of a few weights in place of Cnn14, and their file; nothing in the cache folder."""
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(PANNsNoiseEncoder, "tower_class", SmallTower)
    save_weights(tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def run(capsys, tmp_path, *arguments: object) -> Path:
    """Train for a step or two; the checkpoint."""
    out = call(train.main, capsys, *TINY, "--log_dir", tmp_path / "logs", *arguments)
    folder = next(line for line in out.splitlines() if line.startswith("run: "))
    return Path(folder.removeprefix("run: ")) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--encoder cnn --freeze_encoder", "belongs to --encoder clap or panns or voice, but it is cnn here"),
        ("--encoder sequence --no-freeze_encoder", "belongs to --encoder clap or panns"),
        ("--encoder cnn --encoder_checkpoint x.pt", "belongs to --encoder clap or panns"),
        ("--encoder panns --encoder_lr_factor 0.2", "no meaning for a frozen encoder; add --no-freeze_encoder"),
        ("--encoder cnn --num_tokens 8", "belongs to --encoder sequence"),
        ("--encoder none --infonce_weight 0.1", "takes no reference"),
        ("--encoder cnn --cross_attention_resolutions 128", "belongs to --encoder sequence or clap or panns"),
        ("--encoder none --cross_attention_resolutions 128", "belongs to --encoder sequence or clap or panns"),
        ("--encoder sequence --cross_attention_resolutions 128 100", "use some of 256 128"),
        ("--encoder sequence --attention_temperature", "add --cross_attention_resolutions"),
        ("--encoder sequence --cross_attention_resolutions 128 --attention_band_bias", "--token_bands 4"),
        ("--encoder sequence --token_bands 17", "use at most 16"),
        ("--encoder sequence --num_tokens 0", "out of range"),
        ("--infonce_weight 0.1 --batch_size 1", "tells the references of a batch apart; use a --batch_size of 2"),
        ("--sample_rate 16", "--sample_rate 16 is too low for speech; use 4000 Hz or more"),
    ],
)
def test_settings_that_do_not_fit_the_encoder_are_refused(tmp_path, capsys, arguments, problem):
    logs = tmp_path / "logs"
    assert problem in refusal(train.main, capsys, *TINY, "--log_dir", logs, *arguments.split())
    assert not logs.exists()


def test_cross_attention_in_a_file_needs_tokens_as_well(tmp_path, capsys):
    (tmp_path / "attention.yaml").write_text("encoder: sequence\ncross_attention_resolutions: [128]\n")
    wrong = (*TINY, "--config", tmp_path / "attention.yaml", "--encoder", "cnn", "--log_dir", tmp_path / "logs")
    assert "gives none; use --encoder sequence" in refusal(train.main, capsys, *wrong)
    (tmp_path / "baseline.yaml").write_text("encoder: none\ncross_attention_resolutions: []\n")
    call(train.main, capsys, *wrong[:-4], "--config", tmp_path / "baseline.yaml", *wrong[-2:])


@pytest.mark.parametrize("how", ["absent", "corrupt"])
def test_weights_that_cannot_be_used_are_named_before_a_run_exists(panns, tmp_path, capsys, how):
    panns.write_bytes(b"nothing of use")
    words = () if how == "absent" else ("--encoder_checkpoint", panns)
    message = refusal(train.main, capsys, *TINY, "--log_dir", tmp_path / "logs", "--encoder", "panns", *words)
    assert str(tmp_path / "cache" / "encoders" if how == "absent" else panns) in message
    assert "python scripts/fetch_encoder.py panns" in message
    assert not (tmp_path / "logs").exists()


ATTENTION = ("--cross_attention_resolutions", "128")


@pytest.mark.parametrize("arguments", [(), ATTENTION, ("--no-freeze_encoder", *ATTENTION)])
def test_a_run_with_a_pretrained_encoder_is_resumed_and_used(panns, tmp_path, capsys, arguments):
    ckpt = run(capsys, tmp_path, "--encoder", "panns", "--encoder_checkpoint", panns, *arguments)
    content = torch.load(ckpt, weights_only=True)
    frozen = "--no-freeze_encoder" not in arguments
    assert any(name.startswith("encoder.tower") for name in content["state_dict"]) != frozen
    assert any(name.startswith("encoder.tower") for name in content["average"]["weights"]) != frozen
    call(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2)
    assert torch.load(ckpt, weights_only=True)["global_step"] == 2
    call(enhancement_noise_cond.main, capsys, "--ckpt", ckpt, "--enhanced_dir", tmp_path / "out", "--device", "cpu")
    assert len(list((tmp_path / "out").rglob("*.flac"))) > 0


def test_a_trained_encoder_learns_at_its_own_rate_and_a_frozen_one_not_at_all(panns, tmp_path, capsys):
    before = torch.load(panns, weights_only=True)["state_dict"]
    given = ("--encoder", "panns", "--encoder_checkpoint", panns, "--warmup_steps", "0", "--lr", "0.01")
    # the projection of the condition starts at zero, so gradients arrive at the second step
    ckpt = run(capsys, tmp_path, *given, "--no-freeze_encoder", "--encoder_lr_factor", "0.01", "--max_steps", 2)
    after = torch.load(ckpt, weights_only=True)["state_dict"]
    moved = (after["encoder.tower.conv.weight"] - before["conv.weight"]).abs().max().item()
    assert 0 < moved <= 2.1 * 0.01 * 0.01  # a step of Adam moves a weight by about its rate
    assert Enhancer.from_checkpoint(ckpt, "cpu").encoder.tower.conv.weight.requires_grad


def test_a_frozen_encoder_with_other_weights_is_refused(panns, tmp_path, capsys):
    ckpt = run(capsys, tmp_path, "--encoder", "panns", "--encoder_checkpoint", panns)
    save_weights(panns.with_name("other.pt"), seed=2)
    config = ckpt.parent.parent / "config.yaml"
    before = config.read_text()
    for other in (panns.with_name("other.pt"), "random"):
        message = refusal(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2, "--encoder_checkpoint", other)
        assert f"{ckpt}: was trained with panns weights of hash" in message
    assert config.read_text() == before  # the run can still be resumed
    call(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2)
    save_weights(panns, seed=2)
    with pytest.raises(UserError, match=r"trained with panns weights of hash .* --encoder_checkpoint"):
        Enhancer.from_checkpoint(ckpt, "cpu")
    assert "was trained with panns weights" in refusal(train.main, capsys, "--ckpt", ckpt, "--max_steps", 3)


def test_a_resumed_run_stays_frozen_and_says_where_its_weights_may_lie(panns, tmp_path, capsys):
    ckpt = run(capsys, tmp_path, "--encoder", "panns", "--encoder_checkpoint", panns)
    assert "--no-freeze_encoder" in refusal(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2, "--no-freeze_encoder")
    panns.unlink()
    message = refusal(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2)
    assert str(PANNsNoiseEncoder.published.default_path()) in message


def test_weights_that_moved_to_the_cache_folder_are_found_there(panns, tmp_path, capsys):
    ckpt = run(capsys, tmp_path, "--encoder", "panns", "--encoder_checkpoint", panns)
    cached = PANNsNoiseEncoder.published.default_path()
    cached.parent.mkdir(parents=True)
    panns.rename(cached)
    assert Enhancer.from_checkpoint(ckpt, "cpu").encoder.identity is not None


def test_untrained_weights_are_announced(panns, tmp_path, capsys):
    given = ("--encoder", "panns", "--encoder_checkpoint", "random", "--log_dir", tmp_path / "logs")
    out = call(train.main, capsys, *TINY, *given)
    assert "warning: the panns encoder has random weights" in out


def test_help_and_docs_tell_the_same_of_every_encoder():
    docs, shown = README.read_text(), encoder_table()
    for name, encoder in ENCODERS.items():
        card = encoder.card
        for fact in (card.input_rate, card.embedding, card.parameters, card.weights, card.licence, card.good_for):
            assert fact in shown
            assert fact in docs
        assert f"| `{name}` |" in docs
