"""The condition, its null, dropping, and classifier-free guidance around the network."""

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


Conditioned = Callable[[Tensor, Tensor, Tensor, Condition | None], Tensor]
Predict = Callable[[Tensor, Tensor], Tensor]


def guided(
    network: Conditioned, y: Tensor, condition: Condition | None, null: Condition | None, scale: float
) -> Predict:
    """Classifier-free guidance u + w (c − u), Ho & Salimans 2022, Eq. (6), in their 1 + w → w convention.

    w = 1 is the conditional prediction and w = 0 the null one, one network pass each; otherwise both run as one
    batched pass of twice the items.

    Args:
        network: maps (x_t [B, C, F, T], y, t [B], condition) to a score or a clean spectrogram.
        y: noisy spectrogram [B, C, F, T].
        condition: what the encoder says, or None for an unconditioned network.
        null: the null of the same shape.
        scale: w.
    """
    if condition is None or null is None or scale == 1:
        return lambda x_t, t: network(x_t, y, t, condition)
    if scale == 0:
        return lambda x_t, t: network(x_t, y, t, null)
    both, y_twice = condition.stacked(null), torch.cat([y, y])

    def combined(x_t: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = network(torch.cat([x_t, x_t]), y_twice, torch.cat([t, t]), both).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return combined


def passes_per_evaluation(condition: Condition | None, scale: float) -> int:
    """Network passes per item and evaluation: 2 when guided, else 1."""
    return 1 if condition is None or scale in (0, 1) else 2
