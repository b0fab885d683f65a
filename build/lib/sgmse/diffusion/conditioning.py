"""The condition, its null, and dropping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Condition:
    """What an encoder says about the noise reference.

    Args:
        vector: [B, D].
        tokens: [B, L, D] or None, for cross-attention.
        mask: [B, L] bool or None; True where a token may be attended to.
        statistics: [B, K, F] or None; channels per frequency bin, for the input of the network.
        prefix: [B, 1, F, R] complex or None; frames that go before those of the mixture.
    """

    vector: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    statistics: Tensor | None = None
    prefix: Tensor | None = None

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """Per item: this condition where `keep` [B] is True, `other` elsewhere; all parts jointly."""
        return self._combine(other, lambda a, b: torch.where(keep.view(-1, *[1] * (a.dim() - 1)), a, b))

    def stack(self, other: Condition) -> Condition:
        """Both along the batch axis: [2B, …]."""
        return self._combine(other, lambda a, b: torch.cat([a, b]))

    def _combine(self, other: Condition, combine: Callable[[Tensor, Tensor], Tensor]) -> Condition:
        def combined(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
            if (ours is None) != (theirs is None):
                raise ValueError("two conditions must have the same parts: tokens, mask, statistics, prefix")
            return None if ours is None or theirs is None else combine(ours, theirs)

        return Condition(
            combine(self.vector, other.vector),
            combined(self.tokens, other.tokens),
            combined(self.mask, other.mask),
            combined(self.statistics, other.statistics),
            combined(self.prefix, other.prefix),
        )


class ZeroNull(nn.Module):
    """The null condition "no reference": a zero vector, zero tokens, all masked. It adds exactly nothing."""

    def forward(self, like: Condition) -> Condition:
        """A null shaped as `like`."""
        return Condition(
            torch.zeros_like(like.vector),
            None if like.tokens is None else torch.zeros_like(like.tokens),
            None if like.mask is None else torch.zeros_like(like.mask),
            *_silence(like),
        )


class LearnedNull(nn.Module):
    """The null condition "no reference": one trained vector, as every token too; no statistics and a silent prefix."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(self, like: Condition) -> Condition:
        """A null shaped as `like`."""
        vector = self.vector.to(like.vector.dtype)
        return Condition(
            vector.expand_as(like.vector),
            None if like.tokens is None else vector.expand_as(like.tokens),
            None if like.mask is None else torch.ones_like(like.mask),
            *_silence(like),
        )


def _silence(like: Condition) -> tuple[Tensor | None, Tensor | None]:
    """Statistics of zeros, among them the channel that tells whether there is a reference, and a prefix of zeros."""
    statistics = None if like.statistics is None else torch.zeros_like(like.statistics)
    return statistics, None if like.prefix is None else torch.zeros_like(like.prefix)


POSITION_SPAN = 256  # length of an axis in the units of `sinusoids`: about one per frequency bin


def centres(count: int, device: torch.device) -> Tensor:
    """[count]: centres of as many equal parts of an axis, between 0 and `POSITION_SPAN` whatever their number."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (POSITION_SPAN / count)


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """Features of positions of any unit: [...] → [..., dim], sines then cosines (Vaswani et al. 2017, Sec. 3.5).

    Their angular frequencies fall geometrically from 1 to about 1/10000 radian per unit.
    """
    half = (dim + 1) // 2
    steps = torch.arange(half, device=position.device, dtype=torch.float32) / half
    angles = position[..., None].float() * 10000.0**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]


def keep_mask(batch_size: int, drop_prob: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """[B] bool: False for the items whose condition is dropped, each with probability `drop_prob`."""
    return torch.rand(batch_size, generator=generator, device=device) >= drop_prob
