"""Scaling around the network: what goes in, and how its output becomes a score or a clean spectrogram.

The choices are those of Richter, de Oliveira & Gerkmann 2024, "Investigating Training Objectives for Generative
Speech Enhancement", Eq. (7)–(10), after Karras et al. 2022 (EDM), Table 1. With F the raw network,

    output = c_skip x_t + c_out · scaling · F(c_in x_t, c_in y, t)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sgmse.diffusion.sde import SDE, per_item

NetworkScaling = Literal["none", "1/sigma", "1/t"]
InputScaling = Literal["1", "edm"]
Network = Callable[[Tensor, Tensor, Tensor], Tensor]
OutputScaling = Literal["1", "-1", "sigma", "1/sigma", "edm"]
SkipScaling = Literal["0", "edm"]


@dataclass(frozen=True)
class Preconditioner:
    """c_in, c_out, c_skip and the scaling of the network output.

    Args:
        scaling: applied to the raw network output.
        c_in: "edm" is 1 / √(σ² + σ_data²).
        c_out: "edm" is σ σ_data / √(σ² + σ_data²); "-1" is the sign of the SGMSE+ networks, which predict −score.
        c_skip: "edm" is σ_data² / (σ² + σ_data²).
        sigma_data: standard deviation of clean spectrograms.
    """

    sde: SDE
    scaling: NetworkScaling = "none"
    c_in: InputScaling = "1"
    c_out: OutputScaling = "1"
    c_skip: SkipScaling = "0"
    sigma_data: float = 0.1

    def __call__(
        self, network: Callable[[Tensor, Tensor, Tensor], Tensor], x_t: Tensor, y: Tensor, t: Tensor
    ) -> Tensor:
        """(x_t, y [B, C, F, T], t [B]) → the preconditioned output [B, C, F, T]."""
        sigma = per_item(self.sde.std(t), x_t)
        total = (sigma**2 + self.sigma_data**2).sqrt()
        output = network(x_t / total, y / total, t) if self.c_in == "edm" else network(x_t, y, t)
        if self.scaling == "1/sigma":
            output = output / sigma
        elif self.scaling == "1/t":
            output = output / per_item(t, x_t)
        output = self._scale_output(output, sigma, total)
        return output + x_t * (self.sigma_data / total) ** 2 if self.c_skip == "edm" else output

    def _scale_output(self, output: Tensor, sigma: Tensor, total: Tensor) -> Tensor:
        if self.c_out == "-1":
            return -output
        if self.c_out == "sigma":
            return output * sigma
        if self.c_out == "1/sigma":
            return output / sigma
        if self.c_out == "edm":
            return output * (sigma * self.sigma_data / total)
        return output
