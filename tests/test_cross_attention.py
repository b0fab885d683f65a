"""Cross-attention, alone and in NCSN++."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from sgmse.diffusion.conditioning import Condition, ZeroNull, centres, sinusoids
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.sequence import SequenceNoiseEncoder
from sgmse.networks.attention import HEADS, POSITION_DIM, CrossAttention
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp

DIM, LENGTH = 16, 5


def randomised(module: nn.Module) -> nn.Module:
    """Random weights everywhere: a fresh module starts at zero and would hide mistakes."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.2)
    return module


def network(*resolutions: int, condition_dim: int | None = DIM, **attention: Any) -> NCSNpp:
    """Four levels: 256, 128, 64, 32."""
    sizes = {"nf": 8, "ch_mult": (1, 1, 2, 2), "num_res_blocks": 1, "frequency_fold": 8}
    return NCSNpp(
        VARIANTS["ncsnpp_v2"],
        **sizes,
        condition_dim=condition_dim,
        cross_attention_resolutions=resolutions,
        **attention,
    )


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x_t, y = torch.randn(2, batch, 1, 64, 16, dtype=torch.complex64)
    return x_t, y, torch.rand(batch) + 0.1


def condition(batch: int = 2) -> Condition:
    """The first item has three tokens, the others have five."""
    mask = torch.arange(LENGTH)[None] < torch.tensor([3] + [LENGTH] * (batch - 1))[:, None]
    return Condition(torch.randn(batch, DIM), torch.randn(batch, LENGTH, DIM), mask)


def without_tokens(c: Condition) -> Condition:
    return Condition(c.vector)


@pytest.mark.parametrize(("bands", "learnt_temperature"), [(0, False), (0, True), (5, False), (2, True)])
def test_the_output_is_softmax_attention_of_eight_heads(bands, learnt_temperature):
    attention = randomised(CrossAttention(32, DIM, bands, learnt_temperature))
    x, c = torch.randn(2, 32, 4, 6), condition()
    query = attention.query(attention.norm(x).flatten(2).mT).unflatten(1, (4, 6))
    query = query + attention.query_frequency(sinusoids(centres(4, x.device), POSITION_DIM))[None, :, None]
    query = query + attention.query_time(sinusoids(centres(6, x.device), POSITION_DIM))[None, None]
    query = query.reshape(2, 24, HEADS, 8)
    key, value = (
        attention.key(c.tokens).reshape(2, LENGTH, HEADS, 8),
        attention.value(c.tokens).reshape(2, LENGTH, -1, 8),
    )
    scores = torch.einsum("bqhd,blhd->bhql", query, key) / 8**0.5
    if learnt_temperature:
        scores = scores * attention.log_factors.exp()[:, None, None]
    for row, column, token in product(range(4), range(6), range(LENGTH if bands else 0)):
        distance = abs((row + 0.5) / 4 - (token % bands + 0.5) / bands) * bands  # of the centres, in bands
        scores[:, :, 6 * row + column, token] -= attention.slopes * distance
    weights = scores.masked_fill(~c.mask[:, None, None], -torch.inf).softmax(dim=-1)
    out = attention.out(torch.einsum("bhql,blhd->bqhd", weights, value).flatten(2))
    torch.testing.assert_close(attention(x, c), x + out.mT.reshape(x.shape), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(attention.weights(x, c).flatten(1, 2), weights.mean(dim=1), rtol=1e-4, atol=1e-4)


def test_a_network_that_attends_starts_exactly_as_one_that_does_not():
    torch.manual_seed(1)
    plain = network()
    attending = network(256, 64, 32, attention_bands=2, attention_temperature=True)
    shared = {name: torch.randn_like(value) * 0.2 for name, value in plain.state_dict().items()}
    plain.load_state_dict(shared)
    assert not attending.load_state_dict(shared, strict=False).unexpected_keys
    c = condition()
    expected = plain(*inputs_once(), c)
    assert expected.abs().mean() > 0.01
    assert torch.equal(attending(*inputs_once(), c), expected)


def inputs_once() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return inputs()


@torch.no_grad()
def test_attending_to_the_zero_null_is_not_attending():
    net, data, c = randomised(network(64, 32)), inputs(), condition()
    null = ZeroNull()(c)
    assert torch.equal(net(*data, null), net(*data, without_tokens(null)))
    assert torch.equal(net(*data, null), net(*data))
    unmasked = Condition(null.vector, null.tokens, torch.ones_like(null.mask))  # nothing but zeros to attend to
    assert torch.equal(net(*data, unmasked), net(*data))
    masked = Condition(null.vector, c.tokens, null.mask)  # something there, but none of it to attend to
    assert torch.equal(net(*data, masked), net(*data))
    assert not torch.allclose(net(*data, c), net(*data, without_tokens(c)))


@torch.no_grad()
def test_the_content_of_masked_tokens_does_not_matter():
    net, data, c = randomised(network(64)), inputs(), condition()
    other = torch.where(c.mask[:, :, None], c.tokens, 100 * torch.randn_like(c.tokens))
    torch.testing.assert_close(net(*data, Condition(c.vector, other, c.mask)), net(*data, c))
    shorter = Condition(c.vector[:1], c.tokens[:1, :3])
    one = tuple(part[:1] for part in data)
    torch.testing.assert_close(net(*one, shorter), net(*data, c)[:1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_batch_of_references_and_nulls_equals_separate_runs():
    net, data, c = randomised(network(64, 32)), inputs(3), condition(3)
    mixed = c.where(torch.tensor([True, False, True]), ZeroNull()(c))
    together = net(*data, mixed)
    for i in range(3):
        one = Condition(mixed.vector[i : i + 1], mixed.tokens[i : i + 1], mixed.mask[i : i + 1])
        alone = net(*(part[i : i + 1] for part in data), None if i == 1 else one)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_order_of_tokens_does_not_matter():
    net, data, c = randomised(network(64)), inputs(), condition()
    order = torch.tensor([4, 2, 0, 1, 3])
    shuffled = Condition(c.vector, c.tokens[:, order], c.mask[:, order])
    torch.testing.assert_close(net(*data, shuffled), net(*data, c), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_tokens_there_is_no_attention():
    net, data, c = randomised(network(64)), inputs(), condition()
    plain = network()
    plain.load_state_dict({name: net.state_dict()[name] for name in plain.state_dict()})
    assert torch.equal(net(*data, without_tokens(c)), plain(*data, c))


def test_gradients_reach_attention_and_the_encoder_but_no_item_without_tokens():
    encoder = SequenceNoiseEncoder(SpectrogramTransform(510, 128, 0.15, 0.5), DIM, 2, num_tokens=4, token_bands=2)
    net, attention = randomised(network(64, 32)), CrossAttention(8, DIM)
    c = encoder(torch.randn(2, 16000), torch.tensor([16000, 16000]))
    c = Condition(c.vector.detach(), c.tokens, c.mask)  # the way through the tokens alone
    c.tokens.retain_grad()
    mixed = c.where(torch.tensor([True, False]), ZeroNull()(c))
    net(*inputs(), mixed).abs().sum().backward()
    names = [name for name, _ in attention.named_parameters()]
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    places = ("down.2.cross_attentions.0", "down.3.cross_attentions.0", "up.0.cross_attention", "up.1.cross_attention")
    assert {f"{place}.{name}" for place in places for name in names} <= reached
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert encoder.convs[0].weight.grad.abs().sum() > 0
    assert c.tokens.grad[0].abs().sum() > 0
    assert not c.tokens.grad[1].any()


@torch.no_grad()
def test_attention_can_be_keyed_by_frequency():
    """Queries and keys that pass on their frequency: each row attends most to the tokens of its own band."""
    dim, bands = 2 * POSITION_DIM, 4
    encoder = SequenceNoiseEncoder(SpectrogramTransform(510, 128, 0.15, 0.5), dim, 2, num_tokens=3, token_bands=bands)
    attention = CrossAttention(8 * POSITION_DIM, dim)  # heads as wide as the features of a position
    for p in (*encoder.token.parameters(), *attention.parameters()):
        nn.init.zeros_(p)
    same = torch.eye(POSITION_DIM).repeat(HEADS, 1)
    attention.query_frequency.weight.copy_(8 * same)  # large, so that softmax is sharp
    attention.key.weight[:, :POSITION_DIM] = 8 * same  # a token's first half says its frequency
    slow = POSITION_DIM // 2 + POSITION_DIM // 4  # the cosine of 0.01 radian per bin falls along the whole axis
    attention.value.weight[0, slow] = 1
    attention.out.weight[0, 0] = 1
    tokens = encoder(torch.randn(1, 32000), torch.tensor([32000]))
    out = attention(torch.zeros(1, 8 * POSITION_DIM, 16, 2), tokens)[0, 0]
    of_band = sinusoids(centres(bands, out.device), POSITION_DIM)[:, slow]
    nearest = (out[:, :, None] - of_band).abs().argmin(dim=-1)
    assert torch.equal(nearest, torch.arange(bands).repeat_interleave(16 // bands)[:, None].expand(16, 2))


def test_impossible_cross_attention_is_refused_with_what_is_possible():
    with pytest.raises(ValueError, match=r"resolutions 100 16: .* use some of 256 128 64 32"):
        network(100, 64, 16)
    with pytest.raises(ValueError, match="choose an encoder"):
        network(64, condition_dim=None)
