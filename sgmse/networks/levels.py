"""The levels of NCSN++'s U-Net: down, middle, up.

Of their arguments, `attention` says whether there is self-attention, and how cross-attention is made for a width (None:
no cross-attention); `embedding` is the size of the time embedding, that of the condition's vector (None: none), and
`film`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.networks.attention import CrossAttention, MakeCrossAttention
from sgmse.networks.layers import (
    FIRDownsample,
    ResidualBlock,
    SelfAttention,
    ToPyramid,
    conv,
    fir_upsample,
    side_stream,
)


class DownLevel(nn.Module):
    """Residual blocks at one resolution, each followed by attention where wanted; then halve both axes."""

    def __init__(
        self,
        in_width: int,
        width: int,
        num_blocks: int,
        attention: tuple[bool, MakeCrossAttention | None],
        pyramid_channels: int | None,
        last: bool,
        embedding: tuple[int, int | None, bool],
    ) -> None:
        super().__init__()
        attends, make_cross_attention = attention
        self.blocks = nn.ModuleList(
            ResidualBlock(in_width if i == 0 else width, width, *embedding) for i in range(num_blocks)
        )
        self.attentions = nn.ModuleList(SelfAttention(width) for _ in range(num_blocks)) if attends else None
        self.cross_attentions: nn.ModuleList | None = None
        if make_cross_attention is not None:
            with side_stream():
                self.cross_attentions = nn.ModuleList(make_cross_attention(width) for _ in range(num_blocks))
        self.downsample = None if last else ResidualBlock(width, width, *embedding, resample="down")
        self.combine = None if pyramid_channels is None else conv(pyramid_channels, width, kernel_size=1)
        self.pyramid_downsample = None if pyramid_channels is None else FIRDownsample()

    def forward(
        self, h: Tensor, pyramid: Tensor, embedding: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the feature map, the input pyramid, and the feature maps to skip to the way up."""
        skips = []
        for i, block in enumerate(self.blocks):
            h = block(h, embedding, condition)
            if self.attentions is not None:
                h = self.attentions[i](h)
            if self.cross_attentions is not None:
                h = self.cross_attentions[i](h, condition)
            skips.append(h)
        if self.downsample is not None:
            h = self.downsample(h, embedding, condition)
            if self.combine is not None and self.pyramid_downsample is not None:
                pyramid = self.pyramid_downsample(pyramid)
                h = h + self.combine(pyramid)
            skips.append(h)
        return h, pyramid, skips


class Middle(nn.Module):
    """Residual block, self-attention, residual block at the lowest resolution."""

    def __init__(self, width: int, embedding: tuple[int, int | None, bool]) -> None:
        super().__init__()
        self.block_in, self.block_out = ResidualBlock(width, width, *embedding), ResidualBlock(width, width, *embedding)
        self.attention = SelfAttention(width)

    def forward(self, h: Tensor, embedding: Tensor, condition: Condition | None) -> Tensor:
        h = self.attention(self.block_in(h, embedding, condition))
        return self.block_out(h, embedding, condition)


class UpLevel(nn.Module):
    """Residual blocks that take the skips back in, attention where wanted; then double both axes."""

    def __init__(
        self,
        in_width: int,
        skip_widths: list[int],
        width: int,
        attention: tuple[bool, MakeCrossAttention | None],
        pyramid_channels: int | None,
        last: bool,
        embedding: tuple[int, int | None, bool],
    ) -> None:
        super().__init__()
        attends, make_cross_attention = attention
        self.blocks = nn.ModuleList(
            ResidualBlock((in_width if i == 0 else width) + skip, width, *embedding)
            for i, skip in enumerate(skip_widths)
        )
        self.attention = SelfAttention(width) if attends else None
        self.cross_attention: CrossAttention | None = None
        if make_cross_attention is not None:
            with side_stream():
                self.cross_attention = make_cross_attention(width)
        self.to_pyramid = None if pyramid_channels is None else ToPyramid(width, pyramid_channels)
        self.upsample = None if last else ResidualBlock(width, width, *embedding, resample="up")

    def forward(
        self, h: Tensor, skips: list[Tensor], pyramid: Tensor | None, embedding: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """Takes its skips off the end of the list; returns the feature map and the output pyramid."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding, condition)
        if self.attention is not None:
            h = self.attention(h)
        if self.cross_attention is not None:
            h = self.cross_attention(h, condition)
        if self.to_pyramid is not None:
            pyramid = self.to_pyramid(h) if pyramid is None else fir_upsample(pyramid) + self.to_pyramid(h)
        if self.upsample is not None:
            h = self.upsample(h, embedding, condition)
        return h, pyramid
