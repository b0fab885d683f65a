"""Noise for the samplers as a function of key and frame: the same alone, in a batch, and in overlapping parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 64  # frames that share a generator


class FrameNoise:
    """A noise source of the samplers whose draws do not depend on who shares the batch or where a part begins.

    Its n-th draw gives each item complex standard normal values that are a function of n, the item's key and the
    absolute frame, so that overlapping parts of a recording get the same noise where they overlap.

    Args:
        keys: one per item, e.g. seed and name.
        first_frame: where in the recording the spectrograms begin.
    """

    def __init__(self, keys: Sequence[str], first_frame: int = 0) -> None:
        self.keys, self.first_frame = keys, first_frame
        self._generators: dict[tuple[int, int], torch.Generator] = {}  # by item and block

    def __call__(self, like: Tensor) -> Tensor:
        """A draw of the shape of `like` [B, C, F, T], where B is the number of keys."""
        return torch.stack([self._item(index, like[index]) for index in range(len(self.keys))])

    def _item(self, index: int, like: Tensor) -> Tensor:
        """[C, F, T], cut out of the blocks of frames that cover it."""
        first, last = self.first_frame // BLOCK, (self.first_frame + like.shape[-1] - 1) // BLOCK
        shape = (*like.shape[:-1], BLOCK)
        blocks = [
            torch.randn(
                shape, dtype=like.dtype, device=like.device, generator=self._generator(index, block, like.device)
            )
            for block in range(first, last + 1)
        ]
        begin = self.first_frame - first * BLOCK
        return torch.cat(blocks, dim=-1)[..., begin : begin + like.shape[-1]]

    def _generator(self, index: int, block: int, device: torch.device) -> torch.Generator:
        if (index, block) not in self._generators:
            seed = seed_of(f"{self.keys[index]} {block}")
            self._generators[index, block] = torch.Generator(device).manual_seed(seed)
        return self._generators[index, block]


def seed_of(key: str) -> int:
    """A seed of 56 bits as a function of a text."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
