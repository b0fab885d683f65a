"""Cross-attention from a feature map to the tokens of the noise reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import POSITION_SPAN, Condition, centres, sinusoids
from sgmse.networks.layers import group_norm, linear

HEADS = 8
NOMINAL_HEIGHT = 256  # resolutions are named 256 / 2^level, whatever the number of bins
POSITION_DIM = 32  # features of a position along one axis


class CrossAttention(nn.Module):
    """Eight-head attention of every place of a feature map to the tokens; adds exactly nothing at the start.

    A query is its place's features plus a projection of its frequency and one of its time, both relative to the extent
    of the map: a place has the same frequency at every resolution, and times of long files are none that training never
    met. Nothing has a bias after the value, so tokens of zero, or none to attend to, add exactly nothing as well.

    Args:
        channels: C of the feature map.
        token_dim: D of the tokens.
        bands: K > 1: tokens come as K frequency bands per time step, and each head has a slope by which it prefers the
            bands near a query's own frequency; it is learnt. 0: without.
        learnt_temperature: each head learns a factor on its scores.
    """

    def __init__(self, channels: int, token_dim: int, bands: int = 0, learnt_temperature: bool = False) -> None:
        super().__init__()
        inner = HEADS * max(8, channels // HEADS)
        self.norm = group_norm(channels)
        self.query = linear(channels, inner)
        self.query_frequency = nn.Linear(POSITION_DIM, inner, bias=False)
        self.query_time = nn.Linear(POSITION_DIM, inner, bias=False)
        self.key, self.value = (nn.Linear(token_dim, inner, bias=False) for _ in range(2))
        self.out = nn.Linear(inner, channels, bias=False)
        nn.init.zeros_(self.out.weight)
        self.bands = bands
        # as in ALiBi (Press et al. 2022), from heads that look at one band to heads that look at all of them
        self.slopes = nn.Parameter(0.5 ** torch.arange(HEADS)) if bands else None
        self.log_factors = nn.Parameter(torch.zeros(HEADS)) if learnt_temperature else None

    def forward(self, x: Tensor, condition: Condition | None) -> Tensor:
        """x [B, C, H, W], condition of tokens [B, L, D] and mask [B, L], or without → [B, C, H, W]."""
        if condition is None or condition.tokens is None:
            return x
        batch, _, height, width = x.shape
        key, value = _heads(self.key(condition.tokens)), _heads(self.value(condition.tokens))
        mask, present = _mask(condition)
        bias = self._bias(x, key.shape[2], mask)
        h = F.scaled_dot_product_attention(self._queries(x), key, value, attn_mask=mask if bias is None else bias)
        h = self.out(h.transpose(1, 2).flatten(2))
        if present is not None:
            h = h * present[:, None, None]
        return x + h.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def weights(self, x: Tensor, condition: Condition) -> Tensor:
        """How much each place of x attends to each token, mean over heads [B, H, W, L]; `forward` does not keep it.

        They sum to one over the tokens; to zero where there is no token to attend to.
        """
        if condition.tokens is None:
            raise ValueError("the condition has no tokens to attend to")
        query, key = self._queries(x), _heads(self.key(condition.tokens))
        scores = query @ key.mT / query.shape[-1] ** 0.5
        mask, present = _mask(condition)
        bias = self._bias(x, key.shape[2], mask)
        if bias is not None:
            scores = scores + bias
        elif mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(dim=-1).mean(dim=1)
        if present is not None:
            weights = weights * present[:, None, None]
        return weights.unflatten(1, x.shape[2:])

    def _queries(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, heads, H · W, inner / heads]."""
        rows, columns = (sinusoids(centres(size, x.device), POSITION_DIM).to(x.dtype) for size in x.shape[2:])
        query = self.query(self.norm(x).permute(0, 2, 3, 1))
        query.add_(self.query_frequency(rows)[:, None]).add_(self.query_time(columns))  # in place: it can be large
        query = _heads(query.flatten(1, 2))
        return query if self.log_factors is None else query * self.log_factors.exp()[:, None, None]

    def _bias(self, x: Tensor, tokens: int, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores of L `tokens`, −∞ outside `mask` [B, 1, 1, L]: [1 or B, heads, H · W, L]."""
        if self.slopes is None:
            return None
        height, width = x.shape[2:]
        rows = centres(height, x.device) * (self.bands / POSITION_SPAN) - 0.5  # in bands
        distance = (rows[:, None] - torch.arange(tokens, device=x.device) % self.bands).abs()  # [H, L]
        bias = -(self.slopes[:, None, None] * distance).repeat_interleave(width, dim=1)[None].to(x.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -torch.inf)


def _mask(condition: Condition) -> tuple[Tensor | None, Tensor | None]:
    """Which tokens may be attended to [B, 1, 1, L], and which items have any [B]; None: all.

    An item without any may attend to all of its tokens, since softmax over none is 0 / 0; the result is to be dropped.
    """
    if condition.mask is None:
        return None, None
    present = condition.mask.any(dim=1)
    return (condition.mask | ~present[:, None])[:, None, None, :], present


def _heads(x: Tensor) -> Tensor:
    """[B, L, inner] → [B, heads, L, inner / heads]."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def nominal_resolutions(levels: int) -> list[int]:
    """Names of the levels, from the highest to the lowest resolution."""
    return [NOMINAL_HEIGHT // 2**i for i in range(levels)]


MakeCrossAttention = Callable[[int], CrossAttention]  # channels → the module


def cross_attention_by_level(
    resolutions: tuple[int, ...], levels: int, condition_dim: int | None, **settings: Any
) -> list[MakeCrossAttention | None]:
    """How each level makes its cross-attention, from the highest resolution on; None: that level has none.

    settings: those of `CrossAttention` beside the sizes. Raises ValueError unless a network of so many levels can
    attend to tokens at these nominal resolutions.
    """
    known = nominal_resolutions(levels)
    missing = [str(r) for r in resolutions if r not in known]
    if missing:
        raise ValueError(
            f"--cross_attention_resolutions {' '.join(missing)}: not among the network's resolutions; "
            f"use some of {' '.join(str(r) for r in known)}"
        )
    if not resolutions:
        return [None] * levels
    if condition_dim is None:
        raise ValueError(
            "--cross_attention_resolutions needs a condition to attend to; choose an encoder, or leave it out"
        )
    make = partial(CrossAttention, token_dim=condition_dim, **settings)
    return [make if r in resolutions else None for r in known]
