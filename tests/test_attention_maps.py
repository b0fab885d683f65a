"""Which tokens a network looks at: weights against a direct computation, maps of known weights, the command."""

import pandas as pd
import pytest
import torch
from commands import call, saved_run
from short_set import short_set
from tiny import tiny
from torch import nn

from scripts import condition_probes
from sgmse.diagnostics import attention
from sgmse.diagnostics.items import ProbeFile
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.networks.attention import HEADS, CrossAttention

DIM, LENGTH = 16, 6
SEQUENCE = {"encoder": "sequence", "token_bands": 2, "num_tokens": 4, "cross_attention_resolutions": [128]}


def layer() -> CrossAttention:
    """Random weights everywhere: a fresh layer starts at zero and would hide mistakes."""
    found = CrossAttention(32, DIM)
    for p in found.parameters():
        nn.init.normal_(p, std=0.3)
    return found


def condition() -> Condition:
    mask = torch.arange(LENGTH)[None] < torch.tensor([4, LENGTH, 0])[:, None]
    return Condition(torch.randn(3, DIM), torch.randn(3, LENGTH, DIM), mask)


@torch.no_grad()
def test_weights_equal_a_direct_computation_and_sum_to_one():
    cross, x, c = layer(), torch.randn(3, 32, 4, 6), condition()
    found = cross.weights(x, c)
    assert found.shape == (3, 4, 6, LENGTH)
    query = cross._queries(x).transpose(1, 2)
    key = cross.key(c.tokens).reshape(3, LENGTH, HEADS, 8)
    for i, count in enumerate((4, LENGTH)):
        scores = torch.einsum("qhd,lhd->hql", query[i], key[i, :count]) / 8**0.5
        expected = scores.softmax(dim=-1).mean(dim=0)
        torch.testing.assert_close(found[i, ..., :count].flatten(0, 1), expected, rtol=1e-4, atol=1e-5)
        assert not found[i, ..., count:].any()
    torch.testing.assert_close(found[:2].sum(dim=-1), torch.ones(2, 4, 6))
    assert not found[2].any(), "without a token there is nothing to attend to"


@torch.no_grad()
def test_with_equal_values_in_every_head_the_layer_returns_its_weights_applied_to_the_tokens():
    """`forward` attends by the weights that `weights` tells: with one query and key for all heads they are the same."""
    cross, x, c = layer(), torch.randn(3, 32, 4, 6), condition()
    for part in (cross.query, cross.query_frequency, cross.query_time, cross.key):
        part.weight.copy_(part.weight[:8].repeat(HEADS, 1))
    cross.query.bias.copy_(cross.query.bias[:8].repeat(HEADS))
    expected = x + cross.out(cross.weights(x, c) @ cross.value(c.tokens)[:, None]).permute(0, 3, 1, 2)
    torch.testing.assert_close(cross(x, c), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_recording_changes_nothing_and_ends_with_its_context():
    network = tiny(**SEQUENCE).backbone.eval()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    x, y = torch.randn(2, 1, 1, 256, 8, dtype=torch.complex64)
    c = Condition(torch.randn(1, 16), torch.randn(1, 8, 16), torch.ones(1, 8, dtype=torch.bool))
    plain = network(x, y, torch.ones(1), c)
    with attention.record_attention(network) as found:
        assert torch.equal(network(x, y, torch.ones(1), c), plain)
    assert [name for name, _ in found] == ["down.1.cross_attentions.0", "up.0.cross_attention"]
    network(x, y, torch.ones(1), c)
    assert len(found) == 2


def test_a_map_tells_time_and_band_and_how_sharp_the_attention_is():
    frames, steps, bands = 12, 3, 2
    weights = torch.zeros(4, frames, steps, bands)  # the step follows the time, the band the frequency
    for time in range(frames):
        for row in range(4):
            weights[row, time, time // 4, row // 2] = 1.0
    sharp = attention.average_weights([weights.flatten(2)], bands, frames, frames)
    assert sharp.own_band == pytest.approx(1.0)
    assert sharp.tokens_used == pytest.approx(1.0)
    assert sharp.by_time.argmax(dim=0).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    torch.testing.assert_close(sharp.by_band, torch.full((2, frames), 0.5))
    uniform = attention.average_weights([torch.full((4, 6, 6), 1 / 6)] * 2, bands, frames, frames)
    assert uniform.own_band == pytest.approx(0.5)
    assert uniform.tokens_used == pytest.approx(6.0, rel=1e-4)
    torch.testing.assert_close(uniform.by_time, torch.full((3, frames), 1 / 3))


def test_frames_that_only_pad_the_file_are_left_out():
    weights = torch.zeros(2, 8, 2)
    weights[:, :6, 0], weights[:, 6:, 1] = 1.0, 1.0
    found = attention.average_weights([weights], 1, frames=12, padded=16)
    assert found.by_time.shape == (2, 12)
    assert found.by_time[0, :11].min() == 1
    assert found.tokens_used == pytest.approx(1.0)


def item(reference: torch.Tensor) -> ProbeFile:
    noisy, clean = torch.randn(2, 3000) * 0.1
    return ProbeFile("a.wav", noisy, clean, reference, None, "", "", "")


def test_a_file_is_observed_while_it_is_enhanced_and_a_silent_reference_is_not():
    model = tiny(**SEQUENCE).eval()
    found = attention.map_attention(model, item(0.1 * torch.randn(16000)), SamplerSettings(N=2), 0)
    assert found is not None
    assert found.by_time.shape == (4, 3000 // 128 + 1)
    assert found.tokens == 8
    torch.testing.assert_close(found.by_time.sum(dim=0), torch.ones(24))
    torch.testing.assert_close(found.by_band.sum(dim=0), torch.ones(24))
    assert attention.map_attention(model, item(torch.zeros(16000)), SamplerSettings(N=1), 0) is None


def test_the_command_draws_maps_with_the_timeline_of_the_noise(tmp_path, capsys):
    ckpt, folder = saved_run(tmp_path / "logs" / "run", **SEQUENCE), short_set(tmp_path / "set", 2, 1.0)
    stems = sorted(p.stem for p in (folder / "noisy").iterdir())
    lines = [f"{stem},x,s{i},0.00-0.50 dog;0.50-0.90 rain +10 dB\n" for i, stem in enumerate(stems)]
    (folder / "manifest.csv").write_text("id,kind,source,timeline\n" + "".join(lines))
    out = tmp_path / "out"
    words = ("--parts", "attention", "--attention_files", 1, "--out", out)
    text = call(condition_probes.main, capsys, ckpt, folder, *words)
    assert "of 8 tokens share the attention" in text
    assert {p.name for p in out.iterdir()} == {"attention.csv", f"attention_{stems[0]}.png"}
    assert pd.read_csv(out / "attention.csv")["bands"].tolist() == [2]
