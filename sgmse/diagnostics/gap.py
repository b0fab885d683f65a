"""Where in diffusion time the condition acts: what it changes in the estimate, and what it brings to the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure, write_csv
from sgmse.common.progress import track
from sgmse.diagnostics.items import ProbeFile, mean_over_files
from sgmse.diffusion import losses
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.guidance import clean_estimate
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.sde import per_item
from sgmse.evaluation.figures import finish_axes
from sgmse.evaluation.tables import interval
from sgmse.model.enhancer import Enhancer

NUM_TIMES = 12
SHARE = 0.5  # of the largest effect, from which on guidance is proposed
LEAST_EFFECT = 1e-4  # of the error; below it the condition changes nothing that could be guided along
MATCHED, NULL, MISMATCHED = "matched", "null", "mismatched"
COLUMNS = ["file", "source", "kind", "against", "t", "loss_matched", "loss_against", "effect"]
_COLOURS = {NULL: "C0", MISMATCHED: "C1"}
_TITLES = {
    "gap": "loss against − loss matched",
    "relative_gap": "… as a share of the loss against",
    "effect": "‖x̂ matched − x̂ against‖² / ‖x̂ against − x‖²",
}

Interval = tuple[float, float]


def time_grid(model: Enhancer) -> Tensor:
    """[K]: times from `t_eps` to the end; the end alone for a model that knows no other time."""
    end = model.sde.end_time
    if model.objective.one_step:
        return torch.tensor([end])
    return torch.linspace(model.t_eps, end, NUM_TIMES)


@torch.no_grad()
def measure_gap(model: Enhancer, items: Sequence[ProbeFile], seed: int, batch_size: int) -> pd.DataFrame:
    """A row per file, time and condition that the matched one is held against: `COLUMNS`.

    loss: ½ mean |x̂ − x|² of the estimate of the clean spectrogram. That is the loss of data prediction without its
    waveform part, and e^{2θt} σ_t² times that of score matching. effect: ‖x̂_c − x̂_u‖² / ‖x̂_u − x‖², with u the other
    condition. All conditions see the same x_t. There are no null rows for a model trained without dropping, and no
    mismatched ones for a file without such a reference.
    """
    grid, rows = time_grid(model).to(model.device), []
    for item in track(items, len(items), "gap by time"):
        conditions = encode_conditions(model, item)
        if len(conditions) == 1:
            continue
        parts = [estimate_clean(model, item, part, conditions, seed) for part in grid.split(batch_size)]
        estimates = {name: torch.cat([part[name] for part in parts]) for name in conditions}
        x, matched = model.transform(item.clean[None].to(model.device)), estimates.pop(MATCHED)
        loss = losses.spectrogram_error(matched, x)
        for against, other in estimates.items():
            error = losses.spectrogram_error(other, x)
            effect = losses.spectrogram_error(matched, other) / error.clamp_min(1e-20)
            for t, *values in torch.stack([grid, loss, error, effect], dim=1).tolist():
                rows.append([item.name, item.source, item.kind, against, round(t, 4), *values])
    if not rows:
        raise UserError(
            "the model was trained without dropping references and the set has no mismatched ones, so there is nothing "
            "to hold the matched ones against; name a set with kinds in manifest.csv, or leave gap out of --parts"
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def encode_conditions(model: Enhancer, item: ProbeFile) -> dict[str, Condition]:
    """The matched condition of a file and what it is held against, each a batch of one."""
    references = {MATCHED: item.reference} | ({} if item.other is None else {MISMATCHED: item.other})
    conditions = {}
    for name, reference in references.items():
        encoded = model.encode_reference(reference[None].to(model.device), torch.ones(1, device=model.device))
        assert encoded.condition is not None
        conditions[name] = encoded.condition
    if model.null is not None and model.cond_drop_prob > 0:
        conditions[NULL] = model.null(conditions[MATCHED])
    return conditions


def estimate_clean(
    model: Enhancer, item: ProbeFile, t: Tensor, conditions: dict[str, Condition], seed: int
) -> dict[str, Tensor]:
    """x̂ [K, 1, F, T] at the times t [K] under each condition."""
    x, y = (model.transform(w[None].to(t.device)).expand(len(t), -1, -1, -1) for w in (item.clean, item.noisy))
    mean, sigma = model.sde.mean(x, y, t), model.sde.std(t)
    noise = FrameNoise([f"{seed} {item.name} {value:.4f}" for value in t.tolist()])
    x_t = mean + per_item(sigma, mean) * noise(mean)
    found = {}
    for name, condition in conditions.items():
        parts: dict[str, Any] = {
            part: None if value is None else value.expand(len(t), *value.shape[1:])
            for part, value in vars(condition).items()
        }
        found[name] = clean_estimate(model.sde, model.predict(x_t, y, t, Condition(**parts)), x_t, y, t)
    return found


def average_over_files(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per `against` and t: gap (the other's loss − the matched one's), relative_gap (over the other's), effect.

    Each is a mean over files, with its 95 % interval in NAME_low and NAME_high.
    """
    rows = rows.assign(gap=rows["loss_against"] - rows["loss_matched"])
    rows["relative_gap"] = rows["gap"] / rows["loss_against"]
    lines = []
    for (against, t), table in rows.groupby(["against", "t"], sort=False):
        line = {"against": against, "t": t, "files": len(table)}
        for name in _TITLES:
            found = mean_over_files(table, name)
            line |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        lines.append(line)
    return pd.DataFrame(lines)


def propose_interval(lines: pd.DataFrame) -> tuple[Interval | None, str]:
    """Times between which to guide, or None, and the reason.

    These are the stretch of times in which the effect is at least half of its maximum and the matched condition has
    less loss for certain. Guidance amplifies c − u, so nothing is proposed where there is no c − u, and no time at
    which following it may not lower the loss. Of several stretches that of the largest effect is taken. Its ends lie
    half-way to the next time of the grid.

    Args:
        lines: those of `average_over_files` for one `against`, by rising t.
    """
    t, effect = lines["t"].to_numpy(), lines["effect"].to_numpy()
    if len(t) == 1:
        return None, "the model takes one step, so there is no time to choose"
    if effect.max() < LEAST_EFFECT:
        return None, f"the condition changes nothing, at most {effect.max():.1e} of the error"
    fits = (effect >= SHARE * effect.max()) & (lines["gap_low"].to_numpy() > 0)
    if not fits.any():
        return None, "where the condition acts most, it does not lower the loss for certain"
    if fits.all():
        return None, "the condition acts about alike at all times; guide everywhere, or not at all"
    stretch = np.cumsum(~fits)  # the same number all along a stretch that fits
    chosen = np.flatnonzero(fits & (stretch == stretch[np.where(fits, effect, 0).argmax()]))
    ends = np.concatenate([t[:1], (t[:-1] + t[1:]) / 2, t[-1:]])
    low, high = ends[chosen[0]], ends[chosen[-1] + 1]
    rounded = math.ceil(100 * low - 1e-4) / 100, math.floor(100 * high + 1e-4) / 100  # inwards, to what one types
    return rounded, (
        "there the condition lowers the loss for certain and changes the estimate by at least half as much as where it "
        f"does most, {effect.max():.2g} of the error"
    )


def write_gap(model: Enhancer, items: Sequence[ProbeFile], seed: int, batch_size: int, out: Path) -> str:
    """Measure the gap and write gap.csv, gap_by_time.csv and gap.png. Returns what to print."""
    rows = measure_gap(model, items, seed, batch_size)
    lines = average_over_files(rows)
    write_csv(rows, out / "gap.csv")
    write_csv(lines, out / "gap_by_time.csv")
    against = NULL if NULL in set(lines["against"]) else MISMATCHED
    proposed, reason = propose_interval(lines[lines["against"] == against])
    draw_gap(lines, proposed, out / "gap.png")
    text = [f"{'against':10}  {'t':>5}  {'Δ loss / loss':>24}  {'effect':>24}"]
    for line in lines.to_dict("records"):
        gap, effect = (
            interval(line[name], line[f"{name}_low"], line[f"{name}_high"], decimals, signed)
            for name, decimals, signed in (("relative_gap", 3, True), ("effect", 4, False))
        )
        text.append(f"{line['against']:10}  {line['t']:5.2f}  {gap:>24}  {effect:>24}")
    if proposed is None:
        return "\n".join([*text, f"no guidance interval is proposed: {reason}"])
    flags = "" if against == NULL else " --guidance icg"
    return "\n".join([*text, f"--guidance_interval {proposed[0]:g} {proposed[1]:g}{flags}: {reason}"])


def draw_gap(lines: pd.DataFrame, proposed: Interval | None, path: Path) -> None:
    """ΔL, its share and the effect on the estimate over diffusion time, with 95 % intervals."""
    figure = Figure(figsize=(13, 4), dpi=110, layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(_TITLES)), _TITLES.items(), strict=True):
        for against, curve in lines.groupby("against", sort=False):
            colour = _COLOURS[str(against)]
            axes.plot(curve["t"], curve[name], "o-", color=colour, ms=4, lw=1.5, label=f"against {against}")
            ends = (curve[f"{name}_low"].fillna(curve[name]), curve[f"{name}_high"].fillna(curve[name]))
            axes.fill_between(curve["t"], *ends, color=colour, alpha=0.18, lw=0)
        if proposed is not None:
            axes.axvspan(*proposed, color="0.9", zorder=0, label="proposed for guidance")
        axes.axhline(0, color="0.6", lw=1, zorder=1)
        axes.set_title(title)
        axes.set(xlabel="diffusion time t (sampling runs from right to left)", xlim=(0, 1.02))
        finish_axes(axes)
    figure.axes[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)
