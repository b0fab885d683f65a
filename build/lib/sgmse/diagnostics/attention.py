"""Which tokens of its reference a network looks at while it enhances a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from sgmse.common.files import save_figure, write_csv
from sgmse.diagnostics.items import ProbeFile, enhance_item
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.evaluation.figures import draw_spectrum, spectrum_db
from sgmse.model.enhancer import Enhancer
from sgmse.networks.attention import CrossAttention

_SPAN = re.compile(r"(\d+\.?\d*)-(\d+\.?\d*) ([^;]*)")  # of a timeline, in seconds


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

    def __str__(self) -> str:
        bands = len(self.by_band)
        share = f"; own band {self.own_band:.2f} (chance {1 / bands:.2f})" if bands > 1 else ""
        return f"{self.tokens_used:.1f} of {self.tokens} tokens share the attention{share}"


@contextmanager
def record_attention(network: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """A context in which the weights [B, H, W, L] of every cross-attention are computed beside the network's own path.

    Yields a list that grows by the name of a layer and its weights in each network pass.
    """
    weights: list[tuple[str, Tensor]] = []

    def keep(name: str, layer: CrossAttention, x: Tensor, condition: Condition | None) -> None:
        if condition is not None and condition.tokens is not None:
            weights.append((name, layer.weights(x, condition)))

    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: keep(name, layer, *inputs))
        for name, layer in network.named_modules()
        if isinstance(layer, CrossAttention)
    ]
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()


def has_attention(model: Enhancer) -> bool:
    return any(isinstance(layer, CrossAttention) for layer in model.backbone.modules())


@torch.no_grad()
def map_attention(model: Enhancer, item: ProbeFile, sampler: SamplerSettings, seed: int) -> AttentionMap | None:
    """The attention of one file while it is enhanced with its own reference; None if that reference says nothing."""
    encoded = model.encode_reference(item.reference[None].to(model.device), torch.ones(1, device=model.device))
    condition = encoded.condition
    if condition is None or condition.tokens is None or bool(encoded.is_null[0]):
        return None
    valid = condition.tokens.shape[1] if condition.mask is None else int(condition.mask[0].sum())
    with record_attention(model.backbone) as weights:
        enhance_item(model, item, item.reference[None], sampler, seed)
    frames = len(item.noisy) // model.transform.hop_length + 1
    padded = frames + -frames % model.backbone.frame_multiple
    bands = int(model.settings["token_bands"]) if model.settings["encoder"] == "sequence" else 1
    before = 0 if condition.prefix is None else condition.prefix.shape[-1]
    maps = []
    for _, layer in weights:  # what goes before the mixture attends as well, but is not asked for
        columns = layer.shape[2]
        maps.append(layer[0, :, round(columns * before / (before + padded)) :, :valid])
    return average_weights(maps, bands, frames, padded)


def average_weights(weights: Sequence[Tensor], bands: int, frames: int, padded: int) -> AttentionMap:
    """Weights [H, W, S · bands] of each layer and pass → their map. W covers `padded` frames; `frames` are kept."""
    by_time: list[Tensor] = []
    by_band: list[Tensor] = []
    own, used = [], []
    for layer in weights:
        kept = layer[:, : max(1, round(layer.shape[1] * frames / padded))]
        split = layer.unflatten(-1, (-1, bands)).mean(dim=0)  # [W, S, bands]
        for maps, columns in ((by_time, split.sum(dim=2).T), (by_band, split.sum(dim=1).T)):
            stretched = F.interpolate(columns[None], size=padded, mode="linear", align_corners=False)[0]
            maps.append(stretched[:, :frames])
        rows = torch.arange(len(layer), device=layer.device) * bands // len(layer)  # the band of each row of the map
        to_band = kept.unflatten(-1, (-1, bands)).sum(dim=2).mean(dim=1)  # [H, bands]
        own.append(to_band.gather(1, rows[:, None]).mean())
        used.append(torch.special.entr(kept).sum(dim=-1).mean().exp())
    time_map, band_map = (torch.stack(maps).mean(dim=0).cpu() for maps in (by_time, by_band))
    own_band, tokens_used = (float(torch.stack(values).mean()) for values in (own, used))
    return AttentionMap(time_map, band_map, own_band, tokens_used, weights[0].shape[-1])


def write_attention(
    model: Enhancer, items: Sequence[ProbeFile], sampler: SamplerSettings, seed: int, num_files: int, out: Path
) -> Iterator[str]:
    """Draw the maps of a few files, spread over `items`, and write attention.csv. Yields a line to print per file."""
    rows, rate = [], model.settings["sample_rate"]
    for place in np.unique(np.linspace(0, len(items) - 1, num_files).round().astype(int)):
        item = items[place]
        found = map_attention(model, item, sampler, seed)
        if found is None:
            yield f"{item.name}: its reference is silent"
            continue
        path = out / f"attention_{Path(item.name).with_suffix('').as_posix().replace('/', '_')}.png"
        draw_attention(item, rate, found, path)
        rows.append([item.name, item.kind, found.tokens, found.tokens_used, found.own_band, len(found.by_band)])
        yield f"{path}: {found}"
    columns = ["file", "kind", "tokens", "tokens_used", "own_band", "bands"]
    write_csv(pd.DataFrame(rows, columns=columns), out / "attention.csv")


def draw_attention(item: ProbeFile, sample_rate: int, found: AttentionMap, path: Path) -> None:
    """Noisy spectrogram [F, T] with the noise's timeline, and below it what each of its frames attends to."""
    maps = {"time step\nof the reference": found.by_time, "frequency band\nof the reference": found.by_band}
    shown = {label: shares for label, shares in maps.items() if shares is found.by_time or len(found.by_band) > 1}
    figure = Figure(figsize=(9, 4.1 + 1.9 * len(shown)), dpi=110, layout="constrained")
    top, *below = figure.subplots(1 + len(shown), 1, sharex=True)
    seconds, spectrum = len(item.noisy) / sample_rate, spectrum_db(item.noisy.numpy(), sample_rate)
    draw_spectrum(top, spectrum, seconds, sample_rate, float(spectrum.max()))
    top.set(xlabel="")
    top.set_title(f"{item.name} {item.kind}", fontsize=10, pad=8 + 17 * _draw_timeline(top, item.timeline))
    for axes, (label, shares) in zip(below, shown.items(), strict=True):
        extent = (0, seconds, 0.5, len(shares) + 0.5)
        image = axes.imshow(shares.numpy(), extent=extent, vmin=0, interpolation="none", origin="lower", aspect="auto")
        axes.set(ylabel=label)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axes, label="attention")
    below[0].set_title(str(found), fontsize=9)
    below[-1].set(xlabel="s")
    save_figure(figure, path)


def _draw_timeline(axes: Axes, timeline: str) -> int:
    """Bars above the spectrogram, one line per span such as "0.00-1.32 dog"; returns the number of lines."""
    spans = _SPAN.findall(timeline)
    for line, (start, end, label) in enumerate(spans):
        at = 1.04 + 0.1 * line
        transform = axes.get_xaxis_transform()
        axes.plot([float(start), float(end)], [at, at], color=f"C{line}", lw=4, transform=transform, clip_on=False)
        axes.text(float(start), at + 0.02, label, fontsize=7.5, transform=transform, va="bottom")
    return len(spans)
