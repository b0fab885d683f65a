"""What all samplers share: the callables, the sample, the noise source, the count of evaluations, the step times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]
Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]
Schedule = Literal["uniform", "quadratic"]


@dataclass(frozen=True)
class Sample:
    """What a sampler returns. spectrogram: complex [B, C, F, T]; nfe: evaluations of the callable."""

    spectrogram: Tensor
    nfe: int


def gaussian(generator: torch.Generator) -> Noise:
    """A noise source driven by `generator` (which lives on the device of the spectrograms)."""
    return lambda like: torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


class Counted:
    """A callable over (x, time as a float) that counts its calls."""

    def __init__(self, function: Score) -> None:
        self.function, self.calls = function, 0

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        self.calls += 1
        return self.function(x, torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(x.shape[0]))


def step_times(start: float, end: float, count: int, schedule: Schedule, device: torch.device) -> Tensor:
    """[count] falling times from `start` to `end`, equally spaced or, quadratic, equally spaced in √t.

    Quadratic steps shorten towards `end` (Song et al. 2021, DDIM, App. D.2).
    """
    if schedule == "uniform":
        return torch.linspace(start, end, count, device=device)
    return torch.linspace(start**0.5, end**0.5, count, device=device) ** 2
