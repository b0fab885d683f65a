"""The condition, its null, and guidance."""

import pytest
import torch

from sgmse.conditioning import Condition, LearnedNull, ZeroNull, guided, keep_mask, passes_per_evaluation
from sgmse.sde import per_item


def condition(batch: int = 3) -> Condition:
    return Condition(torch.randn(batch, 4), torch.randn(batch, 5, 4), torch.ones(batch, 5, dtype=torch.bool))


@pytest.mark.parametrize("null", [ZeroNull(), LearnedNull(4)])
def test_dropped_condition_equals_null_in_vector_tokens_and_mask_alike(null):
    c = condition()
    n = null(c)
    dropped = c.where(torch.tensor([True, False, True]), n)
    for name in ("vector", "tokens", "mask"):
        assert torch.equal(getattr(dropped, name)[1], getattr(n, name)[1])
        assert torch.equal(getattr(dropped, name)[[0, 2]], getattr(c, name)[[0, 2]])


def test_zero_null_masks_every_token_and_learned_null_masks_none():
    assert not ZeroNull()(condition()).mask.any()
    assert LearnedNull(4)(condition()).mask.all()


def test_learned_null_is_trained():
    null = LearnedNull(4)
    null(condition()).vector.sum().backward()
    assert null.vector.grad.abs().sum() > 0


def test_drop_share_is_the_drop_probability():
    keep = keep_mask(20000, 0.1, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 1 - keep.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert keep_mask(100, 0.0, torch.Generator(), torch.device("cpu")).all()
    assert not keep_mask(100, 1.0, torch.Generator(), torch.device("cpu")).any()


class Network(torch.nn.Module):
    """A conditional function whose batches are counted."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x_t, y, t, condition):
        self.batches.append(len(x_t))
        return x_t * 2 + y + per_item(condition.vector.sum(dim=1) * t, x_t)


def setting(scale):
    x, y = torch.randn(2, 3, 1, 4, 4, dtype=torch.complex64)
    c, network = condition(), Network()
    null = ZeroNull()(c)
    t = torch.tensor([0.1, 0.5, 1.0])
    output = guided(network, y, c, null, scale)(x, t)
    return network, output, network(x, y, t, c), network(x, y, t, null)


def test_scale_one_is_the_conditional_score_in_one_pass():
    network, output, conditional, _ = setting(1)
    assert torch.equal(output, conditional)
    assert network.batches[0] == 3


def test_scale_zero_is_the_null_score_in_one_pass():
    network, output, _, unconditional = setting(0)
    assert torch.equal(output, unconditional)
    assert network.batches[0] == 3


@pytest.mark.parametrize("scale", [-1, 0.5, 3])
def test_other_scales_are_one_double_batch_equal_to_two_calls(scale):
    network, output, conditional, unconditional = setting(scale)
    assert network.batches[0] == 6
    torch.testing.assert_close(output, unconditional + scale * (conditional - unconditional), rtol=1e-5, atol=1e-5)


def test_without_a_condition_the_scale_does_nothing():
    calls = []
    predict = guided(lambda x, y, t, c: calls.append(c) or x, torch.zeros(1), None, None, 3.0)
    predict(torch.ones(1), torch.ones(1))
    assert calls == [None]
    assert passes_per_evaluation(None, 3.0) == 1


def test_passes_count_two_when_guided():
    assert [passes_per_evaluation(condition(), w) for w in (0, 1, 3)] == [1, 1, 2]


def test_guided_gaussian_score_is_the_closed_form():
    """c ∝ N(m, 1), u ∝ N(0, 1): guidance w gives the score of N(w m, 1)."""
    m, w, x = 0.7, 3.0, torch.randn(2, 1, 3, 3, dtype=torch.complex64)

    def score(x_t, y, t, condition):
        return -(x_t - per_item(condition.vector[:, 0], x_t))

    c = Condition(torch.full((2, 1), m))
    output = guided(score, x, c, ZeroNull()(c), w)(x, torch.ones(2))
    torch.testing.assert_close(output, -(x - w * m))
