"""Weights of pretrained encoders: where they are found, how they are read, what stays frozen and what is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_tower import TRANSFORM, SmallEncoder, save_weights, settings, small_encoder
from torch import Tensor, nn

from sgmse.common.errors import UserError
from sgmse.encoders import weights
from sgmse.encoders.pretrained import module_of, to_clip
from sgmse.model.optimisation import AveragedWeights, adam
from sgmse.settings.config import TrainConfig


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SGMSE_CACHE", str(folder))
    return folder


def noise(*lengths: int) -> tuple[Tensor, Tensor]:
    """References of these lengths, zero-padded."""
    generator = torch.Generator().manual_seed(3)
    reference = torch.zeros(len(lengths), max(*lengths, 1))
    for row, n in zip(reference, lengths, strict=True):
        row[:n] = torch.randn(n, generator=generator) * 0.1
    return reference, torch.tensor(lengths)


# ---- where the file is ----


def test_the_cache_folder_is_sgmse_cache_then_xdg_then_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SGMSE_CACHE", "/chosen")
    assert weights.CLAP.default_path() == Path("/chosen/encoders/630k-audioset-best.pt")
    monkeypatch.delenv("SGMSE_CACHE")
    assert weights.cache_folder() == Path("/xdg/sgmse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.PANNS.default_path() == Path("/home/somebody/.cache/sgmse/encoders/Cnn14_mAP=0.431.pth")


@pytest.mark.parametrize("checkpoint", [None, "gone.pt"])
def test_absent_weights_name_the_place_and_the_command_that_fetches_them(cache, checkpoint):
    with pytest.raises(UserError, match=r"python scripts/fetch_encoder\.py small") as refused:
        small_encoder(encoder_checkpoint=checkpoint)
    assert str(cache / "encoders") in str(refused.value)
    assert (checkpoint or "small.pt") in str(refused.value)


def test_weights_come_from_the_cache_folder_or_from_the_named_file(cache, tmp_path):
    cached = save_weights(cache / "encoders" / "small.pt", seed=1)
    named = save_weights(tmp_path / "other.pt", seed=2)
    for checkpoint, tower in ((None, cached), (str(tmp_path / "other.pt"), named)):
        encoder = small_encoder(encoder_checkpoint=checkpoint)
        assert torch.equal(encoder.tower.conv.weight, tower.conv.weight)
    assert encoder.identity == weights.file_digest(tmp_path / "other.pt")[:16]


# ---- what is in the file ----


def test_numpy_scalars_in_a_weight_file_are_read(tmp_path):
    more = {"epoch": 45, "loss": np.float64(0.25), "top1": np.float32(0.5), "steps": np.int64(7)}
    save_weights(tmp_path / "w.pt", **more)
    assert weights.read(tmp_path / "w.pt")["loss"] == 0.25
    assert small_encoder(encoder_checkpoint=str(tmp_path / "w.pt")).identity is not None


def test_weight_files_in_the_old_format_of_torch_are_read(tmp_path):
    tower = save_weights(tmp_path / "w.pt")
    old = {"state_dict": tower.state_dict()}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    encoder = small_encoder(encoder_checkpoint=str(tmp_path / "old.pth"))
    assert torch.equal(encoder.tower.conv.weight, tower.conv.weight)


class Harmful:
    def __reduce__(self):
        return Path.write_text, (Path("ran"), "ran")


@pytest.mark.parametrize("kind", ["truncated", "other network", "no weights", "code", "text", "list"])
def test_a_wrong_file_is_named_with_its_hash(kind, tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    monkeypatch.chdir(tmp_path)
    tower = save_weights(path)
    content = {"state_dict": tower.state_dict()}
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "text":
        path.write_text("not found")
    else:
        others = {"other network": {"state_dict": nn.Linear(2, 2).state_dict()}, "no weights": {"weights": 1}}
        others |= {"code": content | {"more": Harmful()}, "list": [1, 2]}
        torch.save(others[kind], path)
    with pytest.raises(UserError) as refused:
        small_encoder(encoder_checkpoint=str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}: does not hold the weights of --encoder small")
    assert weights.file_digest(path) in message
    assert "python scripts/fetch_encoder.py small" in message
    assert "\n" not in message
    assert "delete" not in message  # it is somebody's own file
    assert not Path("ran").exists()


def test_a_wrong_file_in_the_cache_folder_is_to_be_fetched_again(cache):
    path = cache / "encoders" / "small.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="delete it and run"):
        small_encoder(encoder_checkpoint=None)


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(UserError, match=r"the package no_such_package is missing; run `pip install no-such==1`"):
        module_of("no_such_package", "", "models", "no-such==1")


# ---- random weights ----


def test_random_weights_are_the_same_whatever_the_global_generator_and_leave_it_alone():
    torch.manual_seed(5)
    first = small_encoder()
    torch.manual_seed(6)
    before = torch.get_rng_state()
    second = small_encoder(cond_dim=7)
    assert torch.equal(first.tower.conv.weight, second.tower.conv.weight)
    assert first.identity == "random"
    torch.set_rng_state(before)
    expected = nn.Linear(4 + 9, 7)  # the first layer around the tower is drawn as if there were no tower
    assert torch.equal(second.hidden.weight, expected.weight)


# ---- frozen and not ----


def test_a_frozen_tower_has_no_gradient_and_stays_in_evaluation_mode():
    encoder = small_encoder().train()
    assert encoder.training
    assert not any(module.training for module in encoder.tower.modules())
    encoder(*noise(8000, 3000)).vector.sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in encoder.tower.parameters())
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert encoder.pretrained_parameters() == []


def test_pretrained_weights_that_are_trained_along_have_a_learning_rate_of_their_own():
    encoder = small_encoder(freeze_encoder=False)
    how = TrainConfig(lr=0.1, encoder_lr_factor=0.01, warmup_steps=0)
    pretrained = encoder.pretrained_parameters()
    groups = adam(how, encoder.parameters(), pretrained)["optimizer"].param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert [rates[id(p)] for p in pretrained] == pytest.approx([0.001] * len(pretrained))
    assert {rates[id(p)] for p in (*encoder.hidden.parameters(), *encoder.out.parameters())} == {0.1}


def test_a_frozen_tower_is_in_neither_the_state_nor_the_average():
    encoder = small_encoder()
    assert set(encoder.state_dict()) == {"hidden.weight", "hidden.bias", "out.weight", "out.bias"}
    assert set(AveragedWeights(encoder, 0.9).weights) == set(encoder.state_dict())


def test_a_state_without_the_frozen_tower_loads_strictly_and_leaves_the_tower_alone():
    encoder, other = (nn.Sequential(small_encoder()) for _ in range(2))
    nn.init.ones_(other[0].hidden.weight)
    tower = {name: p.clone() for name, p in encoder[0].tower.named_parameters()}
    encoder.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(encoder[0].hidden.weight, other[0].hidden.weight)
    assert all(torch.equal(p, tower[name]) for name, p in encoder[0].tower.named_parameters())
    with pytest.raises(RuntimeError, match=r"hidden\.weight"):
        encoder.load_state_dict({name: t for name, t in other.state_dict().items() if "hidden" not in name})


def test_a_tower_that_is_trained_is_in_the_state_gets_gradients_and_gives_the_same_twice():
    encoder = small_encoder(freeze_encoder=False).train()
    assert {p for p in encoder.pretrained_parameters()} == set(encoder.tower.parameters())
    assert "tower.norm.running_mean" in encoder.state_dict()
    first, again = (encoder(*noise(8000, 3000)).vector for _ in range(2))
    assert torch.equal(first, again)
    first.square().sum().backward()
    assert encoder.tower.conv.weight.grad.abs().sum() > 0


def test_a_trained_tower_is_rebuilt_without_the_weight_file_but_a_frozen_one_is_not():
    free = settings(encoder_checkpoint=None, freeze_encoder=False)
    assert SmallEncoder.from_settings(free, TRANSFORM, load_pretrained=False).identity is None
    with pytest.raises(UserError, match="needs its weights"):
        SmallEncoder.from_settings(free, TRANSFORM)
    with pytest.raises(UserError, match="needs its weights"):
        SmallEncoder.from_settings(settings(encoder_checkpoint=None), TRANSFORM, load_pretrained=False)


# ---- from reference to condition ----


@pytest.mark.parametrize("frozen", [True, False])
def test_neither_padding_nor_the_rest_of_the_batch_changes_an_item(frozen):
    encoder = small_encoder(freeze_encoder=frozen, cross_attention_resolutions=[16]).train()
    reference, length = noise(9000, 2500, 0)
    together = encoder(reference, length)
    reference[1, 2500:] = 7.0  # beyond the end, where nothing looks
    alone = encoder(reference[1:2], length[1:2])
    torch.testing.assert_close(alone.vector, together.vector[1:2])
    torch.testing.assert_close(alone.tokens, together.tokens[1:2])
    assert torch.equal(alone.mask, together.mask[1:2])
    assert all(torch.isfinite(t).all() for t in (together.vector, together.tokens))


def test_the_tower_gets_every_reference_at_peak_one_and_the_vector_knows_its_level():
    encoder, inputs = small_encoder().train(), []
    encoder.tower.register_forward_hook(lambda module, arguments, output: inputs.append(arguments[0]))
    reference, length = 0.1 * torch.sin(torch.arange(8000) * 0.2)[None], torch.tensor([8000])
    quiet, loud = encoder(reference, length).vector, encoder(reference * 4, length).vector
    torch.testing.assert_close(inputs[0], inputs[1])
    assert inputs[0].abs().max() == pytest.approx(1, abs=0.05)  # resampling may overshoot at the ends
    assert (loud - quiet).norm() > 0.02 * quiet.norm()


def test_tokens_carry_the_level_and_cover_the_first_repetition_only():
    encoder = small_encoder(cross_attention_resolutions=[16])
    reference, length = noise(16000, 4000, 2100, 0)  # a clip has 8000 samples at this rate, 1000 per token
    condition = encoder(reference, length)
    assert condition.tokens.shape == (4, 8, 16)
    assert condition.mask.sum(dim=1).tolist() == [8, 4, 3, 0]
    assert (encoder(reference * 4, length).tokens - condition.tokens).abs().max() > 0.01
    assert small_encoder()(reference, length).tokens is None


def test_the_tower_runs_in_float32_under_autocast():
    encoder, types = small_encoder(cross_attention_resolutions=[16]), []
    encoder.tower.register_forward_hook(lambda module, arguments, output: types.append(output[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        condition = encoder(*noise(8000))
    assert types == [torch.float32]
    assert condition.vector.dtype == torch.bfloat16


def test_short_recordings_are_repeated_and_long_ones_cut_to_their_middle():
    recording = torch.arange(1.0, 9.0)[None]
    three = torch.tensor([3])
    assert to_clip(recording, three, 8, whole_repeats=False)[0].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert to_clip(recording, three, 8, whole_repeats=True)[0].tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    for whole_repeats in (True, False):
        assert to_clip(recording, torch.tensor([8]), 4, whole_repeats)[0].tolist() == [3, 4, 5, 6]
        assert to_clip(recording, torch.tensor([8]), 8, whole_repeats).equal(recording)
        assert to_clip(torch.zeros(1, 1), torch.tensor([0]), 4, whole_repeats).tolist() == [[0] * 4]
