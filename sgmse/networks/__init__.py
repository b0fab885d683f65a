"""Backbones: (x_t, y, t, condition) → the raw output. To add one, write its file and name it in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sgmse.common.registry import Registry
from sgmse.diffusion.transform import PadMode
from sgmse.networks.layers import Network
from sgmse.networks.light import LightUNet
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp


@dataclass(frozen=True)
class Backbone:
    """A network that can be chosen.

    Args:
        make: the sizes as keyword arguments, those of `LightUNet` → the network.
        fixed_scaling: it predicts −score without a preconditioner, as SGMSE+'s own networks, and nothing else.
        pad_mode: how spectrograms are padded to its multiple of frames.
        masks: where it estimates clean speech, it does so by a mask on y and a term beside it, unless told otherwise.
    """

    make: Callable[..., Network]
    fixed_scaling: bool
    pad_mode: PadMode
    masks: bool = False


def _ncsnpp(variant: str) -> Callable[..., NCSNpp]:
    def make(bins: int, one_step: bool, **sizes: Any) -> NCSNpp:  # it takes any number of bins, and always x_t and t
        return NCSNpp(VARIANTS[variant], **sizes)

    return make


def _light(film: bool, **sizes: Any) -> LightUNet:  # scale and shift after the norm are its only way
    return LightUNet(**sizes)


BACKBONES: Registry[Backbone] = Registry(
    "--backbone",
    Backbone,
    {
        "ncsnpp": Backbone(_ncsnpp("ncsnpp"), fixed_scaling=True, pad_mode="zero"),
        "ncsnpp_v2": Backbone(_ncsnpp("ncsnpp_v2"), fixed_scaling=False, pad_mode="reflect"),
        "ncsnpp_48k": Backbone(_ncsnpp("ncsnpp_48k"), fixed_scaling=True, pad_mode="reflect"),
        "light": Backbone(_light, fixed_scaling=False, pad_mode="reflect", masks=True),
    },
)
