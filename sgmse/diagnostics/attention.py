"""Which tokens of its reference a network looks at while it enhances a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.diagnostics.items import Item
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model.enhancer import Enhancer
from sgmse.networks.attention import CrossAttention


@dataclass(frozen=True)
class Recorded:
    """Weights [B, H, W, L] of one layer in one network pass."""

    layer: str
    weights: Tensor


@dataclass(frozen=True)
class AttentionMap:
    """What one file attends to, mean over layers and network passes; S time steps of tokens, of `bands` bands each.

    Args:
        by_time: [S, T], from each frame of the file to each time step of the reference; columns sum to one.
        by_band: [bands, T], from each frame to each band; columns sum to one.
        own_band: share of the attention that goes from a place to the band of its own frequency; by chance 1 / bands.
        tokens_used: exp of the entropy of the weights, mean over places: so many tokens share the attention.
        tokens: that there are to attend to.
    """

    by_time: Tensor
    by_band: Tensor
    own_band: float
    tokens_used: float
    tokens: int


@contextmanager
def recorded(network: nn.Module) -> Iterator[list[Recorded]]:
    """A context in which the weights of every cross-attention are computed anew beside the network's normal path."""
    found: list[Recorded] = []

    def keep(name: str, layer: CrossAttention, x: Tensor, condition: Condition | None) -> None:
        if condition is not None and condition.tokens is not None:
            found.append(Recorded(name, layer.weights(x, condition)))

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, CrossAttention)]
    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: keep(name, layer, *inputs))
        for name, layer in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def has_attention(model: Enhancer) -> bool:
    return any(isinstance(layer, CrossAttention) for layer in model.backbone.modules())


def token_bands(model: Enhancer) -> int:
    """Tokens per time step of the model's encoder."""
    return int(model.settings["token_bands"]) if model.settings["encoder"] == "sequence" else 1


@torch.no_grad()
def observe(model: Enhancer, item: Item, sampler: SamplerSettings, seed: int) -> AttentionMap | None:
    """The attention of one file while it is enhanced with its own reference; None if that reference says nothing."""
    one = torch.ones(1, device=model.device)
    encoded = model.encode_reference(item.reference[None].to(model.device), one)
    if encoded.condition is None or encoded.condition.tokens is None or bool(encoded.is_null[0]):
        return None
    with recorded(model.backbone) as found:
        noise = FrameNoise([f"{seed} {item.name} 0 0"])
        model.enhance_batch(item.noisy[None].to(model.device), encoded, noise, sampler=sampler)
    mask = encoded.condition.mask
    valid = encoded.condition.tokens.shape[1] if mask is None else int(mask[0].sum())
    frames = len(item.noisy) // model.transform.hop_length + 1
    padded = frames + -frames % model.backbone.frame_multiple
    return summed([record.weights[0, ..., :valid] for record in found], token_bands(model), frames, padded)


def summed(weights: list[Tensor], bands: int, frames: int, padded: int) -> AttentionMap:
    """Weights [H, W, S · bands] of each layer and pass → their map. W covers `padded` frames; `frames` are kept."""
    by_time, by_band, own, used = [], [], [], []
    for layer in weights:
        kept = layer[:, : max(1, round(layer.shape[1] * frames / padded))]
        split = layer.unflatten(-1, (-1, bands)).mean(dim=0)  # [W, S, bands]
        by_time.append(_stretched(split.sum(dim=2).T, padded)[:, :frames])
        by_band.append(_stretched(split.sum(dim=1).T, padded)[:, :frames])
        rows = torch.arange(len(layer), device=layer.device) * bands // len(layer)  # the band of each row of the map
        to_band = kept.unflatten(-1, (-1, bands)).sum(dim=2).mean(dim=1)  # [H, bands]
        own.append(to_band.gather(1, rows[:, None]).mean())
        used.append(torch.special.entr(kept).sum(dim=-1).mean().exp())
    return AttentionMap(
        torch.stack(by_time).mean(dim=0).cpu(),
        torch.stack(by_band).mean(dim=0).cpu(),
        float(torch.stack(own).mean()),
        float(torch.stack(used).mean()),
        weights[0].shape[-1],
    )


def _stretched(x: Tensor, length: int) -> Tensor:
    """[R, W] → [R, length], linear between the centres of the W columns."""
    return F.interpolate(x[None], size=length, mode="linear", align_corners=False)[0]
