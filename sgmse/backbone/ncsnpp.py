"""NCSN++ (Song et al. 2021) for complex spectrograms, as in SGMSE+ (Richter et al. 2023): one class, every variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sgmse.backbone.layers import (
    ResidualBlock,
    SelfAttention,
    TimeEmbedding,
    ToPyramid,
    conv,
    fir_downsample,
    fir_upsample,
    num_groups,
)
from sgmse.conditioning import Condition
from sgmse.sde import per_item
from sgmse.transform import pad_frames

NOMINAL_HEIGHT = 256  # resolutions are named 256 / 2^level, whatever the number of bins


@dataclass(frozen=True)
class Variant:
    """What tells the published networks apart.

    Args:
        divides_by_t: divide by t, so that the network need not learn the scale of the score: its "features" before the
            last 1×1 layer, or its "output" after it.
        pyramids: input-skip and output-skip pyramids.
        attention_resolutions: nominal resolutions with self-attention (the middle always has it).
    """

    divides_by_t: Literal["no", "features", "output"]
    pyramids: bool
    attention_resolutions: tuple[int, ...]


VARIANTS = {
    "ncsnpp": Variant(divides_by_t="features", pyramids=True, attention_resolutions=(16,)),
    "ncsnpp_v2": Variant(divides_by_t="no", pyramids=True, attention_resolutions=(16,)),
    "ncsnpp_48k": Variant(divides_by_t="output", pyramids=False, attention_resolutions=()),
}


class NCSNpp(nn.Module):
    """U-Net of residual blocks over (x_t, y), told the diffusion time and, optionally, a condition.

    Args:
        variant: see `VARIANTS`.
        nf: channels at full resolution.
        ch_mult: channels at each level, in units of `nf`; each level halves both axes.
        num_res_blocks: residual blocks per level (one more on the way up).
        frequency_fold: neighbouring bins folded into channels before the first convolution; 1 is the published network.
        condition_dim: size of `Condition.vector`, or None for a network without one.

    Raises:
        ValueError: GroupNorm's rule does not hold for `nf`.
    """

    def __init__(
        self,
        variant: Variant,
        nf: int = 128,
        ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2),
        num_res_blocks: int = 2,
        frequency_fold: int = 1,
        condition_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_nf(nf, ch_mult)
        self.variant, self.fold = variant, frequency_fold
        self.frame_multiple = 2 ** (len(ch_mult) - 1)
        channels = 4 * frequency_fold  # real and imaginary parts of x_t and y
        pyramid = channels if variant.pyramids else None
        widths = [nf * m for m in ch_mult]
        attends = [NOMINAL_HEIGHT // 2**i in variant.attention_resolutions for i in range(len(widths))]
        embedding = (4 * nf, condition_dim)

        self.time_embedding = TimeEmbedding(nf)
        self.input_conv = conv(channels, nf)
        self.down, skips, width = nn.ModuleList(), [nf], nf
        for i, out_width in enumerate(widths):
            last = i == len(widths) - 1
            level = DownLevel(width, out_width, num_res_blocks, attends[i], None if last else pyramid, last, embedding)
            self.down.append(level)
            skips += [out_width] * (num_res_blocks + (not last))
            width = out_width
        self.middle = Middle(width, embedding)
        self.up = nn.ModuleList()
        for i, out_width in reversed(list(enumerate(widths))):
            taken = [skips.pop() for _ in range(num_res_blocks + 1)]
            self.up.append(UpLevel(width, taken, out_width, attends[i], pyramid, i == 0, embedding))
            width = out_width
        self.head = None if variant.pyramids else ToPyramid(width, channels)
        self.output_layer = nn.Conv2d(channels, 2 * frequency_fold, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """(x_t, y: complex [B, 1, F, T], t [B]) → complex [B, 1, F, T]; any T, F a multiple of fold · 2^levels."""
        frames = x_t.shape[-1]
        x = torch.cat([x_t.real, x_t.imag, y.real, y.imag], dim=1)
        x = self._folded(pad_frames(x, self.frame_multiple, "zero")).contiguous(memory_format=torch.channels_last)
        embedding = nn.functional.silu(self.time_embedding(t))
        vector = None if condition is None else condition.vector

        h, pyramid_in, skips = self.input_conv(x), x, []
        skips.append(h)
        for level in self.down:
            h, pyramid_in, new_skips = level(h, pyramid_in, embedding, vector)
            skips += new_skips
        h = self.middle(h, embedding, vector)
        pyramid_out: Tensor | None = None
        for level in self.up:
            h, pyramid_out = level(h, skips, pyramid_out, embedding, vector)

        output = self.head(h) if self.head is not None else pyramid_out
        assert output is not None
        if self.variant.divides_by_t == "features":
            output = output / per_item(t, output)
        output = self._unfolded(self.output_layer(output)).float()[..., :frames]
        if self.variant.divides_by_t == "output":
            output = output / per_item(t, output)
        return torch.complex(output[:, :1].contiguous(), output[:, 1:].contiguous())

    def _folded(self, x: Tensor) -> Tensor:
        """[B, C, F, T] → [B, C · fold, F / fold, T]."""
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // self.fold, self.fold, width).transpose(2, 3)
        return x.reshape(batch, channels * self.fold, height // self.fold, width)

    def _unfolded(self, x: Tensor) -> Tensor:
        """[B, C · fold, F / fold, T] → [B, C, F, T]."""
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels // self.fold, self.fold, height, width).transpose(2, 3)
        return x.reshape(batch, channels // self.fold, height * self.fold, width)


class DownLevel(nn.Module):
    """Residual blocks at one resolution, each followed by self-attention where wanted; then halve both axes."""

    def __init__(
        self,
        in_width: int,
        width: int,
        num_blocks: int,
        attends: bool,
        pyramid_channels: int | None,
        last: bool,
        embedding: tuple[int, int | None],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(in_width if i == 0 else width, width, *embedding) for i in range(num_blocks)
        )
        self.attentions = nn.ModuleList(SelfAttention(width) for _ in range(num_blocks)) if attends else None
        self.downsample = None if last else ResidualBlock(width, width, *embedding, resample="down")
        self.combine = None if pyramid_channels is None else conv(pyramid_channels, width, kernel_size=1)

    def forward(
        self, h: Tensor, pyramid: Tensor, embedding: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the feature map, the input pyramid, and the feature maps to skip to the way up."""
        skips = []
        for i, block in enumerate(self.blocks):
            h = block(h, embedding, condition)
            if self.attentions is not None:
                h = self.attentions[i](h)
            skips.append(h)
        if self.downsample is not None:
            h = self.downsample(h, embedding, condition)
            if self.combine is not None:
                pyramid = fir_downsample(pyramid)
                h = h + self.combine(pyramid)
            skips.append(h)
        return h, pyramid, skips


class Middle(nn.Module):
    """Residual block, self-attention, residual block at the lowest resolution."""

    def __init__(self, width: int, embedding: tuple[int, int | None]) -> None:
        super().__init__()
        self.block_in, self.block_out = ResidualBlock(width, width, *embedding), ResidualBlock(width, width, *embedding)
        self.attention = SelfAttention(width)

    def forward(self, h: Tensor, embedding: Tensor, condition: Tensor | None) -> Tensor:
        h = self.attention(self.block_in(h, embedding, condition))
        return self.block_out(h, embedding, condition)


class UpLevel(nn.Module):
    """Residual blocks that take the skips back in, self-attention where wanted; then double both axes."""

    def __init__(
        self,
        in_width: int,
        skip_widths: list[int],
        width: int,
        attends: bool,
        pyramid_channels: int | None,
        last: bool,
        embedding: tuple[int, int | None],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock((in_width if i == 0 else width) + skip, width, *embedding)
            for i, skip in enumerate(skip_widths)
        )
        self.attention = SelfAttention(width) if attends else None
        self.to_pyramid = None if pyramid_channels is None else ToPyramid(width, pyramid_channels)
        self.upsample = None if last else ResidualBlock(width, width, *embedding, resample="up")

    def forward(
        self, h: Tensor, skips: list[Tensor], pyramid: Tensor | None, embedding: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Takes its skips off the end of the list; returns the feature map and the output pyramid."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, condition)
        if self.attention is not None:
            h = self.attention(h)
        if self.to_pyramid is not None:
            pyramid = self.to_pyramid(h) if pyramid is None else fir_upsample(pyramid) + self.to_pyramid(h)
        if self.upsample is not None:
            h = self.upsample(h, embedding, condition)
        return h, pyramid


def check_nf(nf: int, ch_mult: tuple[int, ...]) -> None:
    """Raise ValueError, naming the nearest valid values, unless every GroupNorm of the network divides its channels."""
    if _nf_is_valid(nf, ch_mult):
        return
    below = next((n for n in range(nf - 1, 3, -1) if _nf_is_valid(n, ch_mult)), None)
    above = next(n for n in range(max(nf, 3) + 1, nf + 1000) if _nf_is_valid(n, ch_mult))
    nearest = " or ".join(str(n) for n in (below, above) if n is not None)
    raise ValueError(
        f"nf={nf} does not divide into the groups of GroupNorm with ch_mult={list(ch_mult)}; use {nearest}"
    )


def _nf_is_valid(nf: int, ch_mult: tuple[int, ...]) -> bool:
    multiples = {1, *ch_mult}
    multiples |= {a + b for a in multiples for b in multiples}
    return all(nf * m >= 4 and (nf * m) % num_groups(nf * m) == 0 for m in multiples)
