"""Published SGMSE weights → our block names.

The published networks keep one flat list `all_modules` in the order of the forward pass; walking our network in that
order pairs the two.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sgmse.networks.layers import ResidualBlock, SelfAttention, TimeEmbedding, ToPyramid
from sgmse.networks.levels import DownLevel, Middle, UpLevel
from sgmse.networks.ncsnpp import NCSNpp

_RESIDUAL = {
    "norm_in": "GroupNorm_0",
    "conv_in": "Conv_0",
    "time_proj": "Dense_0",
    "norm_out": "GroupNorm_1",
    "conv_out": "Conv_1",
    "shortcut": "Conv_2",
}


def rename(network: NCSNpp, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names (`all_modules.7.Conv_0.weight`, `output_layer.weight`) → a state dict for `network`.

    Raises:
        KeyError: a weight is missing or left over, so the checkpoint belongs to another architecture.
    """
    names = {module: name for name, module in network.named_modules()}
    left, renamed = dict(published), {}
    for index, (module, part) in enumerate(_in_published_order(network)):
        for ours, value in _convert(module, part, f"all_modules.{index}", left):
            renamed[f"{names[module]}.{ours}"] = value
    for kind in ("weight", "bias"):
        renamed[f"output_layer.{kind}"] = left.pop(f"output_layer.{kind}")
    if left:
        raise KeyError(f"unknown weight {next(iter(left))}")
    return renamed


def _in_published_order(network: NCSNpp) -> Iterator[tuple[nn.Module, str]]:
    """Every entry of `all_modules`: our module, and which part of it."""
    for part in ("frequencies", "hidden", "out"):
        yield network.time_embedding, part
    yield network.input_conv, ""
    for level in network.down:
        assert isinstance(level, DownLevel)
        for i, block in enumerate(level.blocks):
            yield block, ""
            if level.attentions is not None:
                yield level.attentions[i], ""
        if level.downsample is not None:
            yield level.downsample, ""
        if level.combine is not None:
            yield level.combine, "Conv_0"
    assert isinstance(network.middle, Middle)
    yield from ((network.middle.block_in, ""), (network.middle.attention, ""), (network.middle.block_out, ""))
    for level in network.up:
        assert isinstance(level, UpLevel)
        yield from ((block, "") for block in level.blocks)
        yield from ((m, part) for m, part in _after_up_blocks(level))
    if network.head is not None:
        yield from ((network.head, "0"), (network.head, "2"))


def _after_up_blocks(level: UpLevel) -> Iterator[tuple[nn.Module, str]]:
    if level.attention is not None:
        yield level.attention, ""
    if level.to_pyramid is not None:
        yield from ((level.to_pyramid, "0"), (level.to_pyramid, "2"))
    if level.upsample is not None:
        yield level.upsample, ""


def _convert(module: nn.Module, part: str, prefix: str, published: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Take the weights of one entry out of `published`; yield them under the names inside `module`."""
    if isinstance(module, TimeEmbedding) and part == "frequencies":
        yield "frequencies", published.pop(f"{prefix}.W")
    elif isinstance(module, ResidualBlock):
        for ours, theirs in _RESIDUAL.items():
            if getattr(module, ours) is not None:
                for kind in ("weight", "bias"):
                    yield f"{ours}.{kind}", published.pop(f"{prefix}.{theirs}.{kind}")
    elif isinstance(module, SelfAttention):
        for kind in ("weight", "bias"):
            yield f"norm.{kind}", published.pop(f"{prefix}.GroupNorm_0.{kind}")
        # a published 1×1 layer keeps W as [in, out]
        qkv = [(published.pop(f"{prefix}.NIN_{i}.W").T, published.pop(f"{prefix}.NIN_{i}.b")) for i in range(4)]
        yield "query_key_value.weight", torch.cat([w for w, _ in qkv[:3]])
        yield "query_key_value.bias", torch.cat([b for _, b in qkv[:3]])
        yield "out.weight", qkv[3][0]
        yield "out.bias", qkv[3][1]
    else:
        inner = f"{prefix}.{part}" if part == "Conv_0" else prefix
        ours = f"{part}." if isinstance(module, (TimeEmbedding, ToPyramid)) else ""
        for kind in ("weight", "bias"):
            yield f"{ours}{kind}", published.pop(f"{inner}.{kind}")
