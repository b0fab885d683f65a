"""How far a noise reference is from those of the training, and how strong guidance should be there.

Near the training references the condition can be trusted and followed; far away nobody knows what it means, and the
null condition is safer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgmse.diffusion.conditioning import Condition

NUM_REFERENCES = 256  # of the training; enough for the spread of their distances
FEWEST = 16  # references from which a spread can be estimated
_FOLDS = 4
_UNIT = 0.95  # quantile of the training distances; the 99 % one hangs on two or three references of 256
_BATCH = 16


@dataclass(frozen=True)
class Familiarity:
    """A Gaussian around the condition vectors of training references, and how far these are from it.

    Args:
        mean: [D].
        directions: [R, D], orthonormal rows in which the references vary.
        variances: [R], along them.
        rest: [], the variance in every other direction.
        distances: [n], Mahalanobis distance of each reference from a Gaussian fitted to others, sorted.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    distances: Tensor

    def distance(self, vector: Tensor) -> Tensor:
        """[B]: Mahalanobis distance of condition vectors [B, D], in units of the training references' 95 % quantile."""
        stored = Familiarity(*(tensor.to(vector.device) for tensor in vars(self).values()))
        return stored._mahalanobis(vector) / stored._unit()

    def training(self) -> Tensor:
        """[n]: the distances of the training references in the same units."""
        return self.distances / self._unit()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Familiarity:
        return cls(**state)

    def _unit(self) -> Tensor:
        return torch.quantile(self.distances, _UNIT)

    def _mahalanobis(self, vector: Tensor) -> Tensor:
        centred = vector.float() - self.mean
        along = centred @ self.directions.T
        beside = (centred.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0)
        return ((along.square() / self.variances).sum(dim=1) + beside / self.rest).sqrt()


def fit(vectors: Tensor) -> Familiarity:
    """From condition vectors [n, D] of training references, n >= 2.

    A reference lies closer to a Gaussian that was fitted to it than any new one will. So the vectors are split in four
    parts, and the distances of each are taken from the Gaussian of the other three.
    """
    part = torch.arange(len(vectors), device=vectors.device) % _FOLDS
    held_out = [
        _gaussian(vectors[part != fold])._mahalanobis(vectors[part == fold])
        for fold in range(_FOLDS)
        if (part == fold).any()
    ]
    whole = _gaussian(vectors)
    distances = torch.cat(held_out).sort().values
    return Familiarity(whole.mean, whole.directions, whole.variances, whole.rest, distances)


def _gaussian(vectors: Tensor) -> Familiarity:
    """Mean and covariance (1 − ρ) S + ρ m I of vectors [n, D] with m the mean variance, Ledoit & Wolf 2004.

    There are fewer references than dimensions, so S alone is singular. It is kept by its singular vectors.
    """
    mean = vectors.double().mean(dim=0)
    centred = vectors.double() - mean
    count, dim = centred.shape
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / count
    share = ledoit_wolf_share(centred)
    rest = (share * variances.sum() / dim).clamp_min(torch.finfo(torch.float32).tiny)
    spread = (1 - share) * variances + rest
    return Familiarity(mean.float(), directions.float(), spread.float(), rest.float(), torch.zeros(0))


def ledoit_wolf_share(centred: Tensor) -> float:
    """ρ = b² / d² of centred vectors [n, D], Ledoit & Wolf 2004, Sec. 3: how far S is drawn towards m I."""
    count, dim = centred.shape
    gram = centred @ centred.T / count  # has the eigenvalues of S
    squares = gram.square().sum() / dim
    spread = squares - (gram.trace() / dim) ** 2
    error = gram.diagonal().square().sum() / dim - squares / count
    return min(float(error / spread), 1.0) if spread > 0 else 1.0


@torch.no_grad()
def encode_recordings(
    encode: Callable[[Tensor, Tensor], Condition | None], references: Sequence[Tensor], device: torch.device
) -> Tensor | None:
    """The vectors [n, D] that `encode` (references [B, M], lengths [B]) makes of n recordings [M_i]; None for none."""
    vectors = []
    for start in range(0, len(references), _BATCH):
        batch = references[start : start + _BATCH]
        length = torch.tensor([len(reference) for reference in batch], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(list(batch), batch_first=True).to(device)
        with torch.autocast(device.type, enabled=False):  # distances are fine differences
            condition = encode(padded, length)
        vectors += [] if condition is None else [condition.vector.float().cpu()]
    return torch.cat(vectors) if vectors else None


def fit_training_references(
    encode: Callable[[Tensor, Tensor], Condition | None], references: Sequence[Tensor], device: torch.device
) -> Familiarity | None:
    """`fit_familiarity` of `encode_recordings`."""
    return fit_familiarity(encode_recordings(encode, references, device))


def fit_familiarity(vectors: Tensor | None) -> Familiarity | None:
    """Fitted to vectors [n, D]; None if they are too few, not finite, or all alike, so that there is no distance."""
    if vectors is None or len(vectors) < FEWEST or not torch.isfinite(vectors).all() or not vectors.std(dim=0).any():
        return None
    return fit(vectors)


def adaptive_scale(distance: Tensor, full: float, near: float, far: float) -> Tensor:
    """w [B] at `distance` [B]: `full` up to `near`, 0 from `far` on, half a cosine between."""
    fallen = ((distance - near) / (far - near)).clamp(0, 1)
    return full * 0.5 * (1 + torch.cos(math.pi * fallen))
