"""Where in diffusion time the condition acts: what it changes in the estimate, and what it brings to the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.diagnostics.items import Item, heard, interval, repeated
from sgmse.diffusion import losses
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.sde import SBVE, SDE, per_item
from sgmse.model.enhancer import Enhancer

NUM_TIMES = 12
SHARE = 0.5  # of the largest effect, from which on guidance is proposed
LEAST_EFFECT = 1e-4  # of the error; below it the condition changes nothing that could be guided along
NULL, MISMATCHED = "null", "mismatched"
COLUMNS = ["file", "source", "kind", "against", "t", "loss_matched", "loss_against", "effect"]


@dataclass(frozen=True)
class Proposal:
    """Times between which to guide, or None; and why."""

    interval: tuple[float, float] | None
    reason: str


def times(model: Enhancer) -> Tensor:
    """[K]: a grid from `t_eps` to the end; the end alone for a model that knows no other time."""
    end = model.sde.end_time
    if model.objective.name == "predictive":
        return torch.tensor([end])
    return torch.linspace(model.t_eps, end, NUM_TIMES)


@torch.no_grad()
def measure(model: Enhancer, items: Sequence[Item], seed: int, batch_size: int) -> pd.DataFrame:
    """A row per file, time and condition that the matched one is held against: `COLUMNS`.

    loss: ½ mean |x̂ − x|² of the estimate of the clean spectrogram. That is the loss of data prediction without its
    waveform part, and e^{2θt} σ_t² times that of score matching. effect: ‖x̂_c − x̂_u‖² / ‖x̂_u − x‖², with u the other
    condition. All conditions see the same x_t. There are no null rows for a model trained without dropping, and no
    mismatched ones for a file without such a reference.
    """
    grid, rows = times(model).to(model.device), []
    for item in tqdm(items, desc="gap by time", unit="file", disable=None):
        conditions = _conditions(model, item)
        if len(conditions) == 1:
            continue
        parts = [_compare(model, item, part, conditions, seed) for part in grid.split(batch_size)]
        for against in parts[0]:
            found = torch.cat([part[against] for part in parts], dim=1).tolist()
            for t, *values in zip(grid.tolist(), *found, strict=True):
                rows.append([item.name, item.source, item.kind, against, round(t, 4), *values])
    if not rows:
        raise UserError(
            "the model was trained without dropping references and the set has no mismatched ones, so there is nothing "
            "to hold the matched ones against; name a set with kinds in manifest.csv, or leave gap out of --parts"
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _conditions(model: Enhancer, item: Item) -> dict[str, Condition]:
    """The matched condition, then those it is held against."""
    matched = heard(model, item.reference)
    conditions = {"matched": matched}
    if model.null is not None and model.cond_drop_prob > 0:
        conditions[NULL] = model.null(matched)
    if item.other is not None:
        conditions[MISMATCHED] = heard(model, item.other)
    return conditions


def _compare(model: Enhancer, item: Item, t: Tensor, conditions: dict[str, Condition], seed: int) -> dict[str, Tensor]:
    """For each other condition [3, K]: loss with the matched one, loss with it, effect, at the times t [K]."""
    x, y = (model.transform(w[None].to(t.device)).expand(len(t), -1, -1, -1) for w in (item.clean, item.noisy))
    mean, sigma = model.sde.mean(x, y, t), model.sde.std(t)
    noise = FrameNoise([f"{seed} {item.name} {value:.4f}" for value in t.tolist()])
    x_t = mean + per_item(sigma, mean) * noise(mean)
    estimates = {
        name: clean_estimate(model.sde, model.predict(x_t, y, t, repeated(condition, len(t))), x_t, y, t)
        for name, condition in conditions.items()
    }
    matched = estimates.pop("matched")
    loss = losses.data_prediction(matched, x)
    against = {}
    for name, estimate in estimates.items():
        other, moved = losses.data_prediction(estimate, x), losses.data_prediction(matched, estimate)
        against[name] = torch.stack([loss, other, moved / other.clamp_min(1e-20)])
    return against


def clean_estimate(sde: SDE, prediction: Tensor, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """x̂ [B, C, F, T]: the prediction itself for the bridge; E[x_0 | x_t, y] of a score, by Tweedie's formula."""
    if isinstance(sde, SBVE):
        return prediction
    return sde.clean_from_score(x_t, y, prediction, t)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per `against` and t: gap (the other's loss − the matched one's), relative_gap (over the other's), effect.

    Each is a mean over files, with its 95 % interval in NAME_low and NAME_high.
    """
    rows = rows.assign(gap=rows["loss_against"] - rows["loss_matched"])
    rows["relative_gap"] = rows["gap"] / rows["loss_against"]
    lines = []
    for (against, t), table in rows.groupby(["against", "t"], sort=False):
        line = {"against": against, "t": t, "files": len(table)}
        for name in ("gap", "relative_gap", "effect"):
            found = interval(table, name)
            line |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        lines.append(line)
    return pd.DataFrame(lines)


def propose(lines: pd.DataFrame) -> Proposal:
    """The stretch of times in which the effect is at least half of its maximum and the matched condition has less loss
    for certain.

    lines: those of `summary` for one `against`, by rising t. Guidance amplifies c − u, so nothing is proposed where
    there is no c − u, and no time at which following it may not lower the loss. Of several stretches that of the
    largest effect is taken. Its ends lie half-way to the next time of the grid.
    """
    t, effect = lines["t"].to_numpy(), lines["effect"].to_numpy()
    if len(t) == 1:
        return Proposal(None, "the model takes one step, so there is no time to choose")
    if effect.max() < LEAST_EFFECT:
        return Proposal(None, f"the condition changes nothing, at most {effect.max():.1e} of the error")
    fits = (effect >= SHARE * effect.max()) & (lines["gap_low"].to_numpy() > 0)
    if not fits.any():
        return Proposal(None, "where the condition acts most, it does not lower the loss for certain")
    top = int(np.where(fits, effect, 0).argmax())
    first = last = top
    while first > 0 and fits[first - 1]:
        first -= 1
    while last + 1 < len(t) and fits[last + 1]:
        last += 1
    if first == 0 and last == len(t) - 1:
        return Proposal(None, "the condition acts about alike at all times; guide everywhere, or not at all")
    low = t[first] if first == 0 else (t[first - 1] + t[first]) / 2
    high = t[last] if last == len(t) - 1 else (t[last] + t[last + 1]) / 2
    return Proposal(
        (math.ceil(100 * low - 1e-4) / 100, math.floor(100 * high + 1e-4) / 100),
        "there the condition lowers the loss for certain and changes the estimate by at least half as much as where it "
        f"does most, {effect.max():.2g} of the error",
    )
