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
}


def encoder_class(name: str) -> type[NoiseEncoder]:
    """The class behind a name in `ENCODERS`."""
    module, attribute = ENCODERS[name].split(":")
    found: type[NoiseEncoder] = getattr(import_module(module), attribute)
    return found
