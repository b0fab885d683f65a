"""What every noise encoder offers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sgmse.conditioning import Condition
from sgmse.transform import SpectrogramTransform


class NoiseEncoder(nn.Module):
    """Maps noise references to a `Condition`. `dim` is the size of its vector."""

    dim: int

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Mapping[str, Any], transform: SpectrogramTransform) -> NoiseEncoder:
        """Build from the model's settings (plain values) and its spectrogram transform."""

    @abstractmethod
    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Encode references.

        Args:
            reference: waveforms [B, M] at the model's rate, scaled by the factor of the noisy speech, zero-padded.
            length: valid samples of each, [B]; an item of length 0 may return anything finite.
        """
