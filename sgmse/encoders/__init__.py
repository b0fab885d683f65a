"""Noise encoders: a reference recording → a `Condition`.

To add one, write its file, a `NoiseEncoder` with its card and the settings it reads, and name the class in `ENCODERS`;
one of another package is chosen by `--encoder package.module:Class`.
What its file imports must be light: a library that only this encoder needs is imported when the encoder is built.
"""

from __future__ import annotations

from sgmse.common.registry import Registry
from sgmse.encoders.base import NoiseEncoder
from sgmse.encoders.clap import CLAPNoiseEncoder
from sgmse.encoders.cnn import CNNNoiseEncoder
from sgmse.encoders.panns import PANNsNoiseEncoder
from sgmse.encoders.sequence import SequenceNoiseEncoder
from sgmse.encoders.voice import VoiceEncoder

ENCODERS: Registry[type[NoiseEncoder]] = Registry(
    "--encoder",
    NoiseEncoder,
    {
        "cnn": CNNNoiseEncoder,
        "sequence": SequenceNoiseEncoder,
        "clap": CLAPNoiseEncoder,
        "panns": PANNsNoiseEncoder,
        "voice": VoiceEncoder,
    },
    of_classes=True,
    find_fault=NoiseEncoder.find_fault,
)


def encoder_table() -> str:
    """What to know about each encoder, for `--help`."""
    lines = ["encoders (--encoder NAME):"]
    for name, encoder in ENCODERS.items():
        card = encoder.card
        weights = "pretrained, frozen or not" if card.pretrained else "trained along"
        tokens = "tokens for cross-attention" if card.gives_tokens else "no tokens"
        lines += [
            f"  {name:9} {card.good_for}",
            f"  {'':9} takes {card.input_rate}; {card.embedding}; {tokens}",
            f"  {'':9} {card.parameters} parameters, {weights}; weights: {card.weights}; licence: {card.licence}",
        ]
    return "\n".join(lines)
