"""A light U-Net for complex spectrograms: about a tenth of the arithmetic of NCSN++ per second of audio.

Frequency is folded by a strided convolution, each level has few channels and plain residual blocks (no FIR filters, no
pyramids, no self-attention), and a recurrent network over time sees the whole file at the lowest resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.transform import pad_frames
from sgmse.networks.attention import MakeCrossAttention, cross_attention_by_level
from sgmse.networks.layers import (
    LOUD,
    Network,
    StatisticsInput,
    TimeEmbedding,
    check_nf,
    fold_frequency,
    norm_silu,
    side_stream,
    to_spectrogram,
    zeroed,
)


class Modulation(nn.Module):
    """Scale and shift of C channels by the diffusion time and by the condition; both are zero at the start.

    Args:
        channels: C.
        time_dim: size of the time embedding, or None for a network that knows one time only.
        condition_dim: size of the condition's vector, or None.
    """

    def __init__(self, channels: int, time_dim: int | None, condition_dim: int | None) -> None:
        super().__init__()
        self.time_proj = None if time_dim is None else zeroed(nn.Linear(time_dim, 2 * channels))
        self.condition_proj: nn.Linear | None = None
        if condition_dim is not None:
            with side_stream():
                self.condition_proj = zeroed(nn.Linear(condition_dim, 2 * channels, bias=False))

    def forward(self, embedding: Tensor | None, condition: Condition | None) -> tuple[Tensor | None, Tensor | None]:
        """embedding [B, E], condition of vector [B, D] → scale and shift [B, C], or None where there is neither."""
        factors: Tensor | None = None
        if self.time_proj is not None and embedding is not None:
            factors = self.time_proj(embedding)
        if self.condition_proj is not None and condition is not None:
            conditioned = self.condition_proj(condition.vector)
            factors = conditioned if factors is None else factors + conditioned
        if factors is None:
            return None, None
        scale, shift = factors.chunk(2, dim=1)
        return scale, shift


class LightBlock(nn.Module):
    """Residual block: norm, convolve, norm, scale and shift, convolve. It starts as the identity.

    The scale and shift come after the norm, which would take a shift that is common to a group away again.
    """

    def __init__(self, channels: int, time_dim: int | None, condition_dim: int | None) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm_silu(channels), norm_silu(channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.modulation = Modulation(channels, time_dim, condition_dim)

    def forward(self, x: Tensor, embedding: Tensor | None, condition: Condition | None) -> Tensor:
        """x [B, C, H, W], embedding [B, E] or None, condition of vector [B, D] or None → [B, C, H, W]."""
        h = self.conv_in(self.norm_in(x))
        h = self.norm_out(h, *self.modulation(embedding, condition))
        return x + self.conv_out(h)


class TimeRecurrence(nn.Module):
    """A bidirectional GRU over time, whose input is all channels and bins of a frame; it starts as the identity.

    Args:
        channels, bins: C and H of the feature map.
        size: features per frame inside.
    """

    def __init__(self, channels: int, bins: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels * bins)
        self.input = nn.Linear(channels * bins, size)
        self.recurrence = nn.GRU(size, size // 2, bidirectional=True, batch_first=True)
        self.output = zeroed(nn.Linear(size, channels * bins))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H, W]."""
        frames = x.permute(0, 3, 1, 2).flatten(2)  # [B, W, C · H]
        added = self.output(self.recurrence(self.input(self.norm(frames)))[0])
        return x + added.unflatten(2, x.shape[1:3]).permute(0, 2, 3, 1)


class LightLevel(nn.Module):
    """Residual blocks at one resolution, each followed by attention to the reference where wanted."""

    def __init__(
        self, width: int, num_blocks: int, make_cross_attention: MakeCrossAttention | None, *embedding: int | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(LightBlock(width, *embedding) for _ in range(num_blocks))
        self.cross_attentions: nn.ModuleList | None = None
        if make_cross_attention is not None:
            with side_stream():
                self.cross_attentions = nn.ModuleList(make_cross_attention(width) for _ in range(num_blocks))

    def forward(self, h: Tensor, embedding: Tensor | None, condition: Condition | None) -> Tensor:
        """h [B, C, H, W] → [B, C, H, W]."""
        for i, block in enumerate(self.blocks):
            h = block(h, embedding, condition)
            if self.cross_attentions is not None:
                h = self.cross_attentions[i](h, condition)
        return h


class LightUNet(Network):
    """U-Net over y and, where there is a diffusion time t, over (x_t, y); optionally with a condition.

    Its input is the real part, the imaginary part and the magnitude of each spectrogram.

    Args:
        bins: F of the spectrograms, a multiple of fold · 2^levels.
        nf: channels at full resolution.
        ch_mult: channels at each level, in units of `nf`; each level halves frequency and time.
        num_res_blocks: residual blocks per level, on the way down and on the way up.
        frequency_fold: stride over frequency of the first convolution, and of the last.
        one_step: the network knows one time only, where x_t is y: it takes neither x_t nor t into account.
        condition_dim, cross_attention_resolutions, attention_bands, attention_temperature, statistics_channels,
            output_channels: see `NCSNpp`.

    Raises:
        ValueError: GroupNorm's rule does not hold for `nf`; cross-attention at a resolution that the network lacks, or
            without a condition.
    """

    def __init__(
        self,
        bins: int,
        nf: int = 24,
        ch_mult: tuple[int, ...] = (1, 2, 3),
        num_res_blocks: int = 1,
        frequency_fold: int = 4,
        one_step: bool = False,
        condition_dim: int | None = None,
        cross_attention_resolutions: tuple[int, ...] = (),
        attention_bands: int = 0,
        attention_temperature: bool = False,
        statistics_channels: int = 0,
        output_channels: int = 2,
    ) -> None:
        super().__init__()
        check_nf(nf, ch_mult, joins_skips=False)
        attention = cross_attention_by_level(
            cross_attention_resolutions,
            len(ch_mult),
            condition_dim,
            bands=attention_bands,
            learnt_temperature=attention_temperature,
        )
        self.fold, self.frame_multiple = frequency_fold, 2 ** (len(ch_mult) - 1)
        widths = [nf * m for m in ch_mult]
        time_dim = None if one_step else 4 * nf
        self.time_embedding = None if one_step else TimeEmbedding(nf)
        kernel, stride = (frequency_fold + 2, 3), (frequency_fold, 1)
        self.input_conv = nn.Conv2d(3 if one_step else 6, widths[0], kernel, stride, padding=1)
        statistics = statistics_channels * frequency_fold
        self.statistics_input = StatisticsInput(statistics, widths[0]) if statistics else None

        def levels(indices: range) -> nn.ModuleList:
            return nn.ModuleList(
                LightLevel(widths[i], num_res_blocks, attention[i], time_dim, condition_dim) for i in indices
            )

        last = len(widths) - 1
        self.down, self.up = levels(range(last + 1)), levels(range(last - 1, -1, -1))
        self.downsample = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 4, 2, padding=1) for i in range(last))
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], 4, 2, padding=1) for i in range(last - 1, -1, -1)
        )
        self.recurrence = TimeRecurrence(widths[-1], bins // frequency_fold // self.frame_multiple, 8 * nf)
        self.output_conv = zeroed(nn.ConvTranspose2d(widths[0], output_channels, kernel, stride, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """(x_t, y: complex [B, 1, F, T], t [B]) → complex [B, 1, F, T]; any T."""
        frames = y.shape[-1]
        spectrograms = [y] if self.time_embedding is None else [x_t, y]
        x = torch.cat([part for z in spectrograms for part in (z.real, z.imag, z.abs())], dim=1) / LOUD
        embedding = None if self.time_embedding is None else F.silu(self.time_embedding(t))

        h, skips = self.input_conv(pad_frames(x, self.frame_multiple, "zero")), []
        if self.statistics_input is not None and condition is not None and condition.statistics is not None:
            h = h + self.statistics_input(fold_frequency(condition.statistics[..., None], self.fold))
        for level, downsample in zip(
            self.down, self.downsample, strict=False
        ):  # the lowest level has none to go down to
            h = level(h, embedding, condition)
            skips.append(h)
            h = downsample(h)
        h = self.recurrence(self.down[-1](h, embedding, condition))
        for level, upsample in zip(self.up, self.upsample, strict=True):
            h = level(upsample(h) + skips.pop(), embedding, condition)
        return to_spectrogram(self.output_conv(F.silu(h)).float()[..., :frames], y)
