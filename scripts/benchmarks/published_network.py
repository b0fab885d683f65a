"""The `ncsnpp` backbone of a checkout of sp-uhh/sgmse, beside ours, whose package has the same name.

Only the files of the backbone are loaded, under a package name of our own; nothing else of the checkout is imported.
On the CPU the published code resamples with plain convolutions; on CUDA it compiles an extension, and where that fails
(no compiler) the plain version takes its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from sgmse.common.errors import UserError

PACKAGE = "_published_sgmse"


class PublishedNCSNpp(nn.Module):
    """The published network with the call of ours: (x_t, y: complex [B, 1, F, T], t [B]) → complex [B, 1, F, T]."""

    def __init__(self, checkout: Path, nf: int, device: str) -> None:
        super().__init__()
        network, self.resampling = load(checkout, device)
        self.network = network(nf=nf)
        with torch.no_grad():  # as initialised the output is almost nothing, and would agree with anybody's
            for weight in self.network.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.02)

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return self.network(torch.cat([x_t, y], dim=1), t)


def check(checkout: Path) -> None:
    """Raise `UserError` unless `checkout` holds the published backbone."""
    if not (checkout / "sgmse" / "backbones" / "ncsnpp.py").is_file():
        raise UserError(f"{checkout}: holds no sgmse/backbones/ncsnpp.py; clone https://github.com/sp-uhh/sgmse there")


def load(checkout: Path, device: str) -> tuple[type[nn.Module], str]:
    """The class of the network, and how it resamples ("compiled" or "plain")."""
    check(checkout)
    folder = checkout / "sgmse" / "backbones"
    utils, op = f"{PACKAGE}.ncsnpp_utils", f"{PACKAGE}.ncsnpp_utils.op"
    _package(PACKAGE, folder)
    _package(utils, folder / "ncsnpp_utils")
    shared = ModuleType(f"{PACKAGE}.shared")
    shared.BackboneRegistry = _Registry  # type: ignore[attr-defined]
    sys.modules[shared.__name__] = shared
    resampling = "plain"
    if device == "cuda":
        try:
            import_module(op)
            resampling = "compiled"
        except (ImportError, OSError, RuntimeError):  # no compiler, no ninja, or it does not fit the device
            sys.modules.pop(op, None)
    if resampling == "plain":
        _package(op, folder / "ncsnpp_utils" / "op")
        sys.modules[op].upfirdn2d = import_module(f"{op}.upfirdn2d_native").upfirdn2d  # type: ignore[attr-defined]
    return import_module(f"{PACKAGE}.ncsnpp").NCSNpp, resampling


def _package(name: str, folder: Path) -> None:
    """A package of that name whose modules lie in `folder`; its own __init__.py is not run."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


class _Registry:
    """Stands for the published one, which we have no use for."""

    @staticmethod
    def register(name: str) -> Callable[[type], type]:
        return lambda cls: cls
