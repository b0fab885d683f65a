"""Noise encoders: a reference recording → a `Condition`.

Each lives in a file of its own, which is imported only when its encoder is built. To add one, write the file and name
its class here; the class is a `NoiseEncoder`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgmse.encoders.base import NoiseEncoder

ENCODERS = {
    "cnn": "sgmse.encoders.cnn:CNNNoiseEncoder",
    "sequence": "sgmse.encoders.sequence:SequenceNoiseEncoder",
    "clap": "sgmse.encoders.clap:CLAPNoiseEncoder",
    "panns": "sgmse.encoders.panns:PANNsNoiseEncoder",
}


def encoder_class(name: str) -> type[NoiseEncoder]:
    """The class behind a name in `ENCODERS`."""
    module, attribute = ENCODERS[name].split(":")
    found: type[NoiseEncoder] = getattr(import_module(module), attribute)
    return found


def encoder_table() -> str:
    """What to know about each encoder, for `--help`."""
    lines = ["encoders (--encoder NAME):"]
    for name in ENCODERS:
        card = encoder_class(name).card
        weights = "pretrained, frozen or not" if card.pretrained else "trained along"
        tokens = "tokens for cross-attention" if card.gives_tokens else "no tokens"
        lines += [
            f"  {name:9} {card.good_for}",
            f"  {'':9} hears {card.input_rate}; {card.embedding}; {tokens}",
            f"  {'':9} {card.parameters} parameters, {weights}; weights: {card.weights}; licence: {card.licence}",
        ]
    return "\n".join(lines)
