"""Backbones: (x_t, y, t, condition) → the raw output. To add one, write its file and name it in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sgmse.diffusion.transform import PadMode
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp


@dataclass(frozen=True)
class Backbone:
    """A network that can be chosen.

    Args:
        make: the sizes of `ModelConfig`, see `NCSNpp` → the network.
        fixed_scaling: it predicts −score without a preconditioner, as SGMSE+'s own networks, and nothing else.
        pad_mode: how spectrograms are padded to its multiple of frames.
    """

    make: Callable[..., NCSNpp]
    fixed_scaling: bool
    pad_mode: PadMode


BACKBONES = {
    "ncsnpp": Backbone(partial(NCSNpp, VARIANTS["ncsnpp"]), fixed_scaling=True, pad_mode="zero"),
    "ncsnpp_v2": Backbone(partial(NCSNpp, VARIANTS["ncsnpp_v2"]), fixed_scaling=False, pad_mode="reflect"),
    "ncsnpp_48k": Backbone(partial(NCSNpp, VARIANTS["ncsnpp_48k"]), fixed_scaling=True, pad_mode="reflect"),
}
