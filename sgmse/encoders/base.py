"""What every noise encoder offers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.transform import SpectrogramTransform


@dataclass(frozen=True)
class EncoderCard:
    """What to know about an encoder before choosing it.

    Args:
        input_rate: sampling rate of its input.
        embedding: what it makes of a reference, with its size.
        parameters: trainable when nothing is frozen, at the default settings and without tokens, in millions.
        weights: where they come from.
        licence: of the weights and of the code around them.
        good_for: when to choose it.
        gives_tokens: it can feed cross-attention.
        pretrained: its weights come from a file.
    """

    input_rate: str
    embedding: str
    parameters: str
    weights: str
    licence: str
    good_for: str
    gives_tokens: bool
    pretrained: bool


class NoiseEncoder(nn.Module):
    """Maps noise references to a `Condition`.

    Args:
        dim: size of its vector.
        card: what to know about it.
        settings: names of the settings that it reads and not every encoder does.
        identity: what tells its pretrained weights from others, or None where it has none.
    """

    dim: int
    card: ClassVar[EncoderCard]
    settings: ClassVar[frozenset[str]]
    identity: str | None = None

    @classmethod
    @abstractmethod
    def from_settings(
        cls, settings: Mapping[str, Any], transform: SpectrogramTransform, load_pretrained: bool = True
    ) -> NoiseEncoder:
        """Build from the model's settings (plain values) and its spectrogram transform.

        Args:
            load_pretrained: False when a checkpoint is loaded next: weights that it holds are not read from elsewhere.

        Raises `UserError` when pretrained weights are missing or wrong.
        """

    @abstractmethod
    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Encode references.

        Args:
            reference: waveforms [B, M] at the model's rate, scaled by the factor of the noisy speech, zero-padded.
            length: valid samples of each, [B]; an item of length 0 may return anything finite.
        """

    @staticmethod
    def find_fault(encoder: type[NoiseEncoder]) -> str | None:
        """What a class lacks to be an encoder; None: nothing."""
        if not isinstance(getattr(encoder, "card", None), EncoderCard):
            return "its `card` is no EncoderCard"
        if not isinstance(getattr(encoder, "settings", None), Set):
            return "its `settings` are no set of names"
        for name in ("from_settings", "forward"):
            if getattr(getattr(encoder, name), "__isabstractmethod__", False):
                return f"it does not define {name}"
        return None

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that start from pretrained weights and are trained along, with a learning rate of their own."""
        return []
