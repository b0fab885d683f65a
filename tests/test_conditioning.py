"""The condition, its null, and dropping."""

import pytest
import torch

from sgmse.diffusion.conditioning import Condition, LearnedNull, ZeroNull, keep_mask


def condition(batch: int = 3) -> Condition:
    mask = torch.ones(batch, 5, dtype=torch.bool)
    return Condition(torch.randn(batch, 4), torch.randn(batch, 5, 4), mask, torch.randn(batch, 2, 7))


@pytest.mark.parametrize("null", [ZeroNull(), LearnedNull(4)])
def test_dropped_condition_equals_null_in_every_part_alike(null):
    c = condition()
    n = null(c)
    dropped = c.where(torch.tensor([True, False, True]), n)
    for name in ("vector", "tokens", "mask", "statistics"):
        assert torch.equal(getattr(dropped, name)[1], getattr(n, name)[1])
        assert torch.equal(getattr(dropped, name)[[0, 2]], getattr(c, name)[[0, 2]])


def test_zero_null_masks_every_token_and_learned_null_masks_none():
    assert not ZeroNull()(condition()).mask.any()
    assert LearnedNull(4)(condition()).mask.all()


@pytest.mark.parametrize("null", [ZeroNull(), LearnedNull(4)])
def test_no_null_has_statistics(null):
    assert torch.equal(null(condition()).statistics, torch.zeros(3, 2, 7))


def test_conditions_with_unlike_parts_are_not_joined():
    with pytest.raises(ValueError, match="same parts"):
        condition().where(torch.ones(3, dtype=torch.bool), Condition(torch.zeros(3, 4)))


def test_learned_null_is_trained():
    null = LearnedNull(4)
    null(condition()).vector.sum().backward()
    assert null.vector.grad.abs().sum() > 0


def test_drop_share_is_the_drop_probability():
    keep = keep_mask(20000, 0.1, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 1 - keep.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert keep_mask(100, 0.0, torch.Generator(), torch.device("cpu")).all()
    assert not keep_mask(100, 1.0, torch.Generator(), torch.device("cpu")).any()
