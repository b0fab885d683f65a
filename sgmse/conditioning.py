"""The condition, its null, and dropping."""

from __future__ import annotations

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
    """

    vector: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """Per item: this condition where `keep` [B] is True, `other` elsewhere; vector and tokens jointly."""
        return Condition(
            torch.where(keep[:, None], self.vector, other.vector),
            None if self.tokens is None else torch.where(keep[:, None, None], self.tokens, _given(other.tokens)),
            None if self.mask is None else torch.where(keep[:, None], self.mask, _given(other.mask)),
        )

    def stacked(self, other: Condition) -> Condition:
        """Both along the batch axis: [2B, …]."""
        return Condition(
            torch.cat([self.vector, other.vector]),
            None if self.tokens is None else torch.cat([self.tokens, _given(other.tokens)]),
            None if self.mask is None else torch.cat([self.mask, _given(other.mask)]),
        )


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("two conditions must both have tokens or both have none")
    return tensor


class ZeroNull(nn.Module):
    """The null condition "no reference": a zero vector, zero tokens, all masked. It adds exactly nothing."""

    def forward(self, like: Condition) -> Condition:
        """A null shaped as `like`."""
        return Condition(
            torch.zeros_like(like.vector),
            None if like.tokens is None else torch.zeros_like(like.tokens),
            None if like.mask is None else torch.zeros_like(like.mask),
        )


class LearnedNull(nn.Module):
    """The null condition "no reference": one trained vector; as a token, the same vector at every place."""

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
        )


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
