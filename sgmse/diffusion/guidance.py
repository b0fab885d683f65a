"""Guidance: a closure around the network that leads its prediction away from a worse one. Samplers know nothing of it.

c is the conditional prediction, u the worse one: with the null condition, with an unrelated one, or of a weaker model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from sgmse.common.bounds import Bounds
from sgmse.common.errors import UserError
from sgmse.diffusion.adaptive import adaptive_scale
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.sde import SBVE, SDE, per_item

ADAPTIVE = "adaptive"
APG_MOMENTUM = -0.5  # β of Sadat et al. 2024: the last difference is held against the next one
APG_LONGEST = 0.1  # longest c − u in units of ‖c‖, their r; 0.01–0.12 were measured after a short training

Conditioned = Callable[[Tensor, Tensor, Tensor, Condition | None], Tensor]


@dataclass(frozen=True)
class GuidanceSettings:
    """Guidance"""

    guidance_scale: float | str = 1.0
    """w in u + w (c − u): 0 ignores the reference, 1 uses it, more follows it harder (two passes per evaluation);
    adaptive: per file, by how far its reference is from those of the training"""
    guidance: Literal["cfg", "icg", "auto"] = "cfg"
    """what u is: the prediction with the null condition (cfg), with the reference of another file (icg, for models
    trained without dropping too), or that of a weaker model (auto)"""
    weak_ckpt: str | None = None
    """checkpoint of the weaker model of --guidance auto: smaller, or earlier in the same training"""
    guidance_interval: list[float] = field(default_factory=list)
    """lowest and highest diffusion time at which w may be above 1, e.g. 0.3 0.9; outside w is at most 1, which is one
    pass per evaluation. Default: everywhere"""
    guidance_rescale: Annotated[float, Bounds(0, 1)] = 0.0
    """share of the guided prediction that is brought back to the standard deviation of c, for w > 1"""
    guidance_apg: bool = False
    """keep of c − u, for w > 1, only what is orthogonal to c, limited in length and with reversed momentum"""
    adaptive_full: Annotated[float, Bounds(0)] = 1.5
    """w of the adaptive scale for references like those of the training"""
    adaptive_near: Annotated[float, Bounds(0)] = 1.0
    """distance up to which the adaptive scale is --adaptive_full; 1: 19 of 20 training references lie within"""
    adaptive_far: Annotated[float, Bounds(0)] = 3.0
    """distance from which the adaptive scale is 0"""

    @property
    def is_adaptive(self) -> bool:
        return self.guidance_scale == ADAPTIVE

    @property
    def scale(self) -> float:
        """w. Raises `UserError` where it is neither a number nor adaptive; `adaptive_full` for adaptive."""
        if self.is_adaptive:
            return self.adaptive_full
        try:
            value = float(self.guidance_scale)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"--guidance_scale {self.guidance_scale}: a finite number is needed, or the word {ADAPTIVE}"
            )
        return value

    def scale_at(self, distance: Tensor) -> Tensor:
        """The adaptive w [B] of references at `distance` [B] from those of the training."""
        return adaptive_scale(distance, self.adaptive_full, self.adaptive_near, self.adaptive_far)


@dataclass(frozen=True)
class EncodedReference:
    """The noise references of a batch, encoded once for all steps, and what guidance can lead away from.

    Args:
        peak: [B], of the noisy speech; speech and references are divided by it.
        is_null: [B] bool; references that say nothing, so that their condition is the null.
        condition: that of c; None for a model without encoder.
        negative: the condition of u; None where c and u differ by the network alone, or there is no u.
        worse_network: what predicts u; None for the network that predicts c.
    """

    peak: Tensor
    is_null: Tensor
    condition: Condition | None
    negative: Condition | None = None
    worse_network: Conditioned | None = None

    @property
    def can_guide(self) -> bool:
        """Whether there is a u."""
        return self.negative is not None or self.worse_network is not None


class Guide:
    """The guided prediction: (x_t [B, C, F, T], t) → [B, C, F, T]. `passes`: network passes per item so far.

    u + w (c − u): Ho & Salimans 2022, Eq. (6), in their 1 + w → w convention; with a weaker model as u it is
    autoguidance, Karras et al. 2024; with an unrelated condition it is independent condition guidance, Sadat
    et al. 2024 ("No training, no problem"). w = 1 is c and w = 0 is u, one pass each; otherwise c and u run as one
    batched pass of twice the items, unless two networks make them. Rescaling and projection act on the clean
    spectrograms that c and u stand for, and only where w > 1, beyond the conditional prediction.

    Args:
        network: maps (x_t, y, t [B], condition) to a score (OUVE) or a clean spectrogram (bridge).
        y: noisy spectrogram [B, C, F, T].
        reference: where c and u come from.
        scale: w, a number or [B].
        settings: interval (w > 1 only while low <= t <= high, Kynkäänniemi et al. 2024), rescaling, projection.
        sde: tells how a prediction and the clean spectrogram belong together.
    """

    def __init__(
        self,
        network: Conditioned,
        y: Tensor,
        reference: EncodedReference,
        scale: float | Tensor,
        settings: GuidanceSettings,
        sde: SDE,
    ) -> None:
        self.network, self.y, self.settings, self.sde = network, y, settings, sde
        self.condition, self.negative = reference.condition, reference.negative
        self.worse_network = reference.worse_network or network
        self.can_guide = reference.can_guide
        self.scale = scale.to(y.device) if isinstance(scale, Tensor) else torch.full((len(y),), scale, device=y.device)
        self._scales = set(scale.tolist() if isinstance(scale, Tensor) else [scale])
        self.passes = 0
        self._last_difference: Tensor | None = None

    def __call__(self, x_t: Tensor, time: float) -> Tensor:
        low, high = self.settings.guidance_interval or (-math.inf, math.inf)
        scales, scale = self._scales, self.scale  # known here, so that nobody waits for a device
        if not low <= time <= high:
            scales, scale = {min(w, 1) for w in scales}, scale.clamp_max(1)
        t = torch.full((len(x_t),), time, device=x_t.device)
        if not self.can_guide or scales == {1}:
            self.passes += 1
            return self.network(x_t, self.y, t, self.condition)
        if scales == {0}:
            self.passes += 1
            return self.worse_network(x_t, self.y, t, self.negative)
        self.passes += 2
        c, u = self._predict_both(x_t, t)
        w = per_item(scale, c)
        guided = u + w * (c - u)
        if max(scales) <= 1 or not (self.settings.guidance_apg or self.settings.guidance_rescale):
            return guided
        return torch.where(w > 1, self._project_and_rescale(c, u, w, x_t, t), guided)

    def _predict_both(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """c and u."""
        y, condition, negative = self.y, self.condition, self.negative
        if self.worse_network is not self.network or condition is None or negative is None:
            return self.network(x_t, y, t, condition), self.worse_network(x_t, y, t, negative)
        # one network makes both, so that they fit into one batch of twice the items
        both = condition.stack(negative)
        c, u = self.network(torch.cat([x_t, x_t]), torch.cat([y, y]), torch.cat([t, t]), both).chunk(2)
        return c, u

    def _project_and_rescale(self, c: Tensor, u: Tensor, w: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """c + (w − 1) (c − u) by way of clean spectrograms, projected and rescaled as the settings say."""
        clean, worse = (clean_estimate(self.sde, prediction, x_t, self.y, t) for prediction in (c, u))
        difference = clean - worse
        if self.settings.guidance_apg:
            if self._last_difference is not None:
                difference = difference + APG_MOMENTUM * self._last_difference
            self._last_difference = difference
            difference = remove_parallel(limit_norm(difference, APG_LONGEST * item_norm(clean)), clean)
        guided = rescale(clean + (w - 1) * difference, clean, self.settings.guidance_rescale)
        if isinstance(self.sde, SBVE):
            return guided
        return self.sde.score_from_clean(x_t, self.y, guided, t)


def clean_estimate(sde: SDE, prediction: Tensor, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """x̂ [B, C, F, T] of a prediction: itself for the bridge; E[x_0 | x_t, y] of a score, by Tweedie's formula."""
    if isinstance(sde, SBVE):
        return prediction
    return sde.clean_from_score(x_t, y, prediction, t)


def item_norm(x: Tensor) -> Tensor:
    """Norm of each item of x [B, …] as [B, 1, …, 1]."""
    return per_item(x.abs().square().flatten(1).sum(dim=1).sqrt(), x)


def remove_parallel(x: Tensor, direction: Tensor) -> Tensor:
    """x [B, …] without its part along `direction`, both as real vectors: η = 0 in Sadat et al. 2024 (APG)."""
    along = (x * direction.conj()).real.flatten(1).sum(dim=1)
    return x - per_item(along, x) / item_norm(direction).square().clamp_min(1e-20) * direction


def limit_norm(x: Tensor, longest: Tensor) -> Tensor:
    """x [B, …], shortened to `longest` [B, 1, …, 1] where it is longer: the r of Sadat et al. 2024 (APG)."""
    return x * (longest / item_norm(x).clamp_min(1e-20)).clamp_max(1)


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`share` of the guided prediction at the conditional one's standard deviation, Lin et al. 2024, Eq. (15)–(16)."""
    if share == 0:
        return guided
    own, wanted = (per_item(x.flatten(1).std(dim=1), x) for x in (guided, conditional))
    return share * (guided * wanted / own.clamp_min(1e-20)) + (1 - share) * guided
