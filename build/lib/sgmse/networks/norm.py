"""GroupNorm and SiLU as one step, for feature maps in `channels_last` memory.

PyTorch's backward pass of GroupNorm costs a fifth of a training step on a CPU in this memory format, and on a GPU its
GroupNorm changes the format there and back. Here both passes stay in the format that the convolutions use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormSiLU(nn.GroupNorm):
    """SiLU(GroupNorm(x)), with the parameters of `nn.GroupNorm`; statistics are in 32 bit, whatever x is.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x [B, C, H, W] → [B, C, H, W]; with scale and shift [B, C] SiLU((1 + scale) GroupNorm(x) + shift)."""
        gain: Tensor = self.weight
        offset: Tensor = self.bias
        if scale is not None and shift is not None:
            gain, offset = (1 + scale) * gain, (1 + scale) * offset + shift
        if torch.compiler.is_compiling():  # the compiler fuses plain operations itself
            normed = F.group_norm(x, self.num_groups, None, None, self.eps)
            return F.silu(normed * _per_channel(gain, normed) + _per_channel(offset, normed))
        output: Tensor = _NormSiLU.apply(x, gain, offset, self.num_groups, self.eps)
        return output


class _NormSiLU(torch.autograd.Function):
    """SiLU(z) with z = gain (x − mean) / std + offset, Wu & He 2018, Eq. (1); gain and offset are [C] or [B, C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        if x.device.type == "cpu":
            z, mean, inverse_std = _normed_on_cpu(x, gain, offset, groups, eps)
        else:
            mean, inverse_std = group_statistics(x, groups, eps)
            z = _affine(x, *_slope_and_intercept(mean, inverse_std, gain, offset))
        ctx.save_for_backward(x, gain, offset, mean, inverse_std)
        return F.silu(z, inplace=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, gain, offset, mean, inverse_std = ctx.saved_tensors
        slope, intercept = _slope_and_intercept(mean, inverse_std, gain, offset)
        # z is computed again rather than kept: one pass more, half of the memory
        dz = torch.ops.aten.silu_backward(gradients[0], _affine(x, slope, intercept))
        groups = mean.shape[1]

        def by_group(values: Tensor) -> Tensor:
            """[B, C] → [B, groups, C / groups]."""
            return values.unflatten(1, (groups, -1))

        of_z = _sum_over_places(dz)  # dL/d offset of each item
        of_normed = (by_group(_sum_over_places(dz * x)) - mean * by_group(of_z)) * inverse_std  # dL/d gain
        # dL/dx is slope dz, less what reaches the mean and the standard deviation of the group
        weights = by_group(gain.expand(x.shape[:2]))
        count = x[0].numel() / groups
        through_std = inverse_std.square() * (weights * of_normed).sum(-1, keepdim=True) / count
        through_mean = inverse_std * (weights * by_group(of_z)).sum(-1, keepdim=True) / count
        constant = (mean * through_std - through_mean).expand_as(weights).flatten(1)
        dx = _affine(x, -through_std.expand_as(weights).flatten(1), constant).addcmul_(dz, _per_channel(slope, dz))
        return dx, _like(of_normed.flatten(1), gain), _like(of_z, offset), None, None


def group_statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """x [B, C, H, W] → mean and 1 / standard deviation of each group [B, groups, 1], without a copy of x."""
    variances, means = (v.unflatten(1, (groups, -1)) for v in torch.var_mean(x.float(), dim=(2, 3), correction=0))
    mean = means.mean(-1, keepdim=True)
    variance = variances.mean(-1, keepdim=True) + (means - mean).square().mean(-1, keepdim=True)
    return mean, (variance + eps).rsqrt()


def _normed_on_cpu(x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """z, and mean and 1 / standard deviation [B, groups, 1], by PyTorch's own kernel, which is fast on a CPU."""
    batch, channels = x.shape[:2]
    own = (gain, offset) if gain.dim() == 1 else (None, None)
    sizes = (batch, channels, x[0, 0].numel(), groups, eps)
    z, mean, inverse_std = torch.ops.aten.native_group_norm(x, *own, *sizes)
    if gain.dim() > 1:
        z = z.mul_(_per_channel(gain, z)).add_(_per_channel(offset, z))
    return z, mean.float()[..., None], inverse_std.float()[..., None]


def _slope_and_intercept(mean: Tensor, inverse_std: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """z = slope x + intercept, both [B, C]."""
    weights = gain.expand(len(mean), -1).unflatten(1, (mean.shape[1], -1))
    return (inverse_std * weights).flatten(1), offset - (mean * inverse_std * weights).flatten(1)


def _affine(x: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """slope x + intercept, with both [B, C]."""
    return torch.addcmul(_per_channel(intercept, x), x, _per_channel(slope, x))


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """[C] or [B, C] → [1 or B, C, 1, 1] in the precision of `like`."""
    return values.to(like.dtype)[..., None, None]


def _sum_over_places(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C] in 32 bit."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(dim=1, dtype=torch.promote_types(x.dtype, torch.float32))


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient [B, C] of a gain or an offset that is [B, C], or [C] and shared by the items."""
    return (gradient if parameter.dim() > 1 else gradient.sum(dim=0)).to(parameter.dtype)
