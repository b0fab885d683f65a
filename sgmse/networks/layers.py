"""The parts of NCSN++: resampling, time embedding, residual block, self-attention.

Feature maps are real [B, C, H, W] with H frequency and W time, in `channels_last` memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.networks.norm import NormSiLU

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
LOUD = 0.3  # magnitude of loud speech in a compressed spectrogram
RESCALE = 1 / math.sqrt(2)  # keeps the variance of a sum of two branches


class Network(nn.Module):
    """What every backbone is: forward(x_t, y: complex [B, 1, F, T], t [B], condition or None) → complex [B, 1, F, T].

    Attributes:
        frame_multiple: spectrograms are padded to a multiple of so many frames.
        statistics_input: takes `Condition.statistics` in; None: the network has no use for them.
    """

    frame_multiple: int
    statistics_input: nn.Module | None


def num_groups(channels: int) -> int:
    """GroupNorm's rule in NCSN++: four channels a group, at most 32 groups."""
    return min(channels // 4, 32)


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups(channels), channels, eps=1e-6)


def norm_silu(channels: int) -> NormSiLU:
    return NormSiLU(num_groups(channels), channels, eps=1e-6)


def check_nf(nf: int, ch_mult: tuple[int, ...], joins_skips: bool = True) -> None:
    """Raise ValueError, naming the nearest valid values, unless every GroupNorm of the network divides its channels.

    A network that joins its skips as channels norms sums of two widths as well.
    """
    multiples = {1, *ch_mult}
    if joins_skips:
        multiples |= {a + b for a in multiples for b in multiples}

    def is_valid(nf: int) -> bool:
        return all(nf * m >= 4 and (nf * m) % num_groups(nf * m) == 0 for m in multiples)

    if is_valid(nf):
        return
    below = next((n for n in range(nf - 1, 3, -1) if is_valid(n)), None)
    above = next(n for n in range(max(nf, 3) + 1, nf + 1000) if is_valid(n))
    nearest = " or ".join(str(n) for n in (below, above) if n is not None)
    raise ValueError(
        f"nf={nf} does not divide into the groups of GroupNorm with ch_mult={list(ch_mult)}; use {nearest}"
    )


@contextmanager
def side_stream() -> Iterator[None]:
    """Random weights drawn inside depend on the seed, but those drawn after it do not depend on them.

    So the parts that a conditioned network has more than the baseline leave the weights of both alike.
    """
    with torch.random.fork_rng(devices=[]):
        seed = torch.randint(2**62, (), device="cpu").item()
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would reach the devices' streams as well
        yield


def init_weight(layer: nn.Module, scale: float = 1.0) -> None:
    """Variance scaling (fan average, uniform), Song et al. 2021; `scale` 0 stands for a start at about zero."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    bound = math.sqrt(3 * max(scale, 1e-10) / ((fan_in + fan_out) / 2))
    nn.init.uniform_(weight, -bound, bound)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, init_scale: float = 1.0) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    init_weight(layer, init_scale)
    return layer


def linear(in_features: int, out_features: int, init_scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    init_weight(layer, init_scale)
    return layer


def zeroed(layer: Layer) -> Layer:
    """The layer, with weights and biases of zero: what it adds is nothing at the start."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def fold_frequency(x: Tensor, fold: int) -> Tensor:
    """Neighbouring bins become channels: [B, C, F, T] → [B, C · fold, F / fold, T]."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // fold, fold, width).transpose(2, 3)
    return x.reshape(batch, channels * fold, height // fold, width)


def unfold_frequency(x: Tensor, fold: int) -> Tensor:
    """The inverse of `fold_frequency`: [B, C · fold, F / fold, T] → [B, C, F, T]."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels // fold, fold, height, width).transpose(2, 3)
    return x.reshape(batch, channels // fold, height * fold, width)


def to_spectrogram(output: Tensor, y: Tensor) -> Tensor:
    """The channels of a network's last layer → a complex spectrogram [B, 1, F, T].

    Two channels [B, 2, F, T] are its real and imaginary part. Four [B, 4, F, T] are a complex mask m and a complex term
    a: x̂ = (1 + m) y + a, so a last layer of zeros returns y. a is in units of the magnitude of loud speech.
    """
    first = torch.complex(output[:, :1].contiguous(), output[:, 1:2].contiguous())
    if output.shape[1] == 2:
        return first
    return y + first * y + LOUD * torch.complex(output[:, 2:3].contiguous(), output[:, 3:].contiguous())


class FIRDownsample(nn.Module):
    """Low-pass with the kernel 1 3 3 1 along both axes, drop every second value: [B, C, H, W] → [B, C, H/2, W/2].

    Plain depthwise convolution; Zhang 2019 gives the reason, StyleGAN2 the kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.kernel: Tensor
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, -1, -1, -1)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


def fir_upsample(x: Tensor) -> Tensor:
    """Insert zeros and low-pass with 1 3 3 1: [B, C, H, W] → [B, C, 2H, 2W].

    Away from the border that is bilinear interpolation; the ring of zeros makes the border agree as well.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


class TimeEmbedding(nn.Module):
    """log t → random Fourier features (Tancik et al. 2020) → two linear layers: [B] → [B, 4 nf]."""

    def __init__(self, nf: int, scale: float = 16.0) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(nf) * scale)
        self.hidden, self.out = linear(2 * nf, 4 * nf), linear(4 * nf, 4 * nf)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.log()[:, None] * self.frequencies[None] * (2 * math.pi)
        return self.out(F.silu(self.hidden(torch.cat([angles.sin(), angles.cos()], dim=-1))))


class ResidualBlock(nn.Module):
    """BigGAN residual block: norm, resample, convolve, add embeddings, norm, convolve.

    Args:
        resample: "up", "down" or None.
        embedding_dim: size of the (activated) time embedding.
        condition_dim: size of the condition's vector; its projection starts at zero, so the block starts without it.
        film: the condition scales and shifts the channels after the second norm (FiLM, Perez et al. 2018), which takes
            some of a shift before it away again, all of one that is common to a group.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        condition_dim: int | None,
        film: bool = False,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.film = film
        self.resample: Callable[[Tensor], Tensor] | None = None
        if resample is not None:
            self.resample = FIRDownsample() if resample == "down" else fir_upsample
        self.norm_in, self.norm_out = norm_silu(in_channels), norm_silu(out_channels)
        self.conv_in = conv(in_channels, out_channels)
        self.conv_out = conv(out_channels, out_channels, init_scale=0)
        self.time_proj = linear(embedding_dim, out_channels)
        self.condition_proj: nn.Linear | None = None
        if condition_dim is not None:
            with side_stream():
                self.condition_proj = nn.Linear(condition_dim, (1 + film) * out_channels, bias=False)
            nn.init.zeros_(self.condition_proj.weight)
        reshaped = in_channels != out_channels or resample is not None
        self.shortcut = conv(in_channels, out_channels, kernel_size=1) if reshaped else None

    def forward(self, x: Tensor, embedding: Tensor, condition: Condition | None) -> Tensor:
        """x [B, C, H, W], embedding [B, E], condition of vector [B, D] or None → [B, C', H', W']."""
        h = self.norm_in(x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        shift = self.time_proj(embedding)
        modulation = (
            (torch.zeros_like(shift),) * 2 if self.film else ()
        )  # equal to the bit with no and a null condition
        if condition is not None and self.condition_proj is not None:
            projected = self.condition_proj(condition.vector)
            if self.film:
                modulation = projected.chunk(2, dim=1)
            else:
                shift = shift + projected
        h = self.conv_in(h).add_(shift[:, :, None, None])  # in place: no backward pass needs a convolution's output
        h = self.conv_out(self.norm_out(h, *modulation))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return h.add_(x).mul_(RESCALE)


class SelfAttention(nn.Module):
    """Single-head attention over all H·W positions, zero at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query_key_value = linear(channels, 3 * channels, init_scale=0.1 * 2)  # fan average of the joint matrix
        self.out = linear(channels, channels, init_scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H, W]."""
        batch, channels, height, width = x.shape
        h = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.query_key_value(h).chunk(3, dim=-1)
        h = self.out(F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0])
        return (x + h.transpose(1, 2).reshape(batch, channels, height, width)) * RESCALE


class StatisticsInput(nn.Module):
    """Channels per frequency bin that enter the first convolution at every time; adds exactly nothing at the start.

    A convolution of input channels that are constant over time is one over frequency alone, broadcast.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        with side_stream():
            self.conv = nn.Conv2d(in_channels, out_channels, (3, 1), padding=(1, 0), bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, statistics: Tensor) -> Tensor:
        """[B, K, H, 1] → [B, C, H, 1]."""
        added: Tensor = self.conv(statistics)
        return added


class ToPyramid(nn.Sequential):
    """norm → SiLU → 3×3 convolution to the few channels of the output pyramid, zero at the start."""

    def __init__(self, channels: int, pyramid_channels: int) -> None:
        # stored weights know the convolution as the third of its parts
        super().__init__(norm_silu(channels), nn.Identity(), conv(channels, pyramid_channels, init_scale=0))
