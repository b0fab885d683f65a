"""NCSN++ (Song et al. 2021) for complex spectrograms, as in SGMSE+ (Richter et al. 2023): one class, every variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.sde import per_item
from sgmse.diffusion.transform import pad_frames
from sgmse.networks.attention import cross_attention_by_level, nominal_resolutions
from sgmse.networks.layers import (
    Network,
    StatisticsInput,
    TimeEmbedding,
    ToPyramid,
    check_nf,
    conv,
    fold_frequency,
    to_spectrogram,
    unfold_frequency,
    zeroed,
)
from sgmse.networks.levels import DownLevel, Middle, UpLevel


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


class NCSNpp(Network):
    """U-Net of residual blocks over (x_t, y), given the diffusion time and, optionally, a condition.

    Args:
        variant: see `VARIANTS`.
        nf: channels at full resolution.
        ch_mult: channels at each level, in units of `nf`; each level halves both axes.
        num_res_blocks: residual blocks per level (one more on the way up).
        frequency_fold: neighbouring bins folded into channels before the first convolution; 1 is the published network.
        condition_dim: size of `Condition.vector` and of each token, or None for a network without a condition.
        cross_attention_resolutions: nominal resolutions that attend to the condition's tokens: after every block on the
            way down, once on the way up. Not in the middle, whose resolution is that of the lowest level.
        attention_bands, attention_temperature: `bands` and `learnt_temperature` of `CrossAttention`.
        film: see `ResidualBlock`.
        statistics_channels: K of `Condition.statistics`, or 0 for a network without them.
        output_channels: 2 for a spectrogram, 4 for a mask on y and a term beside it, see `to_spectrogram`.

    Raises:
        ValueError: GroupNorm's rule does not hold for `nf`; cross-attention at a resolution that the network lacks, or
            without a condition.
    """

    def __init__(
        self,
        variant: Variant,
        nf: int = 128,
        ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2),
        num_res_blocks: int = 2,
        frequency_fold: int = 1,
        condition_dim: int | None = None,
        cross_attention_resolutions: tuple[int, ...] = (),
        attention_bands: int = 0,
        attention_temperature: bool = False,
        film: bool = False,
        statistics_channels: int = 0,
        output_channels: int = 2,
    ) -> None:
        super().__init__()
        check_nf(nf, ch_mult)
        cross_attention = cross_attention_by_level(
            cross_attention_resolutions,
            len(ch_mult),
            condition_dim,
            bands=attention_bands,
            learnt_temperature=attention_temperature,
        )
        self.variant, self.fold = variant, frequency_fold
        self.frame_multiple = 2 ** (len(ch_mult) - 1)
        channels = 4 * frequency_fold  # real and imaginary parts of x_t and y
        pyramid = channels if variant.pyramids else None
        widths = [nf * m for m in ch_mult]
        attention = [
            (r in variant.attention_resolutions, make)
            for r, make in zip(nominal_resolutions(len(widths)), cross_attention, strict=True)
        ]
        embedding = (4 * nf, condition_dim, film)

        self.time_embedding = TimeEmbedding(nf)
        self.input_conv = conv(channels, nf)
        statistics = statistics_channels * frequency_fold
        self.statistics_input = StatisticsInput(statistics, nf) if statistics else None
        self.down, skips, width = nn.ModuleList(), [nf], nf
        for i, out_width in enumerate(widths):
            last = i == len(widths) - 1
            below = None if last else pyramid
            self.down.append(DownLevel(width, out_width, num_res_blocks, attention[i], below, last, embedding))
            skips += [out_width] * (num_res_blocks + (not last))
            width = out_width
        self.middle = Middle(width, embedding)
        self.up = nn.ModuleList()
        for i, out_width in reversed(list(enumerate(widths))):
            taken = [skips.pop() for _ in range(num_res_blocks + 1)]
            self.up.append(UpLevel(width, taken, out_width, attention[i], pyramid, i == 0, embedding))
            width = out_width
        self.head = None if variant.pyramids else ToPyramid(width, channels)
        self.output_layer = nn.Conv2d(channels, output_channels * frequency_fold, 1)
        if output_channels == 4:  # a mask and a term: the training starts at "do nothing"
            zeroed(self.output_layer)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """(x_t, y: complex [B, 1, F, T], t [B]) → complex [B, 1, F, T]; any T, F a multiple of fold · 2^levels."""
        frames = x_t.shape[-1]
        x = torch.cat([x_t.real, x_t.imag, y.real, y.imag], dim=1)
        x = fold_frequency(pad_frames(x, self.frame_multiple, "zero"), self.fold).contiguous(
            memory_format=torch.channels_last
        )
        embedding = nn.functional.silu(self.time_embedding(t))

        h, pyramid_in, skips = self.input_conv(x), x, []
        if self.statistics_input is not None and condition is not None and condition.statistics is not None:
            h = h + self.statistics_input(fold_frequency(condition.statistics[..., None], self.fold))
        skips.append(h)
        for level in self.down:
            h, pyramid_in, new_skips = level(h, pyramid_in, embedding, condition)
            skips += new_skips
        h = self.middle(h, embedding, condition)
        pyramid_out: Tensor | None = None
        for level in self.up:
            h, pyramid_out = level(h, skips, pyramid_out, embedding, condition)

        output = self.head(h) if self.head is not None else pyramid_out
        assert output is not None
        if self.variant.divides_by_t == "features":
            output = output / per_item(t, output)
        output = unfold_frequency(self.output_layer(output), self.fold).float()[..., :frames]
        if self.variant.divides_by_t == "output":
            output = output / per_item(t, output)
        return to_spectrogram(output, y)
