"""Faster enhancement: the network in 16 bit, the network compiled."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from typing import Literal

import torch

from sgmse.common.errors import UserError
from sgmse.model.enhancer import Enhancer

Precision = Literal["32", "bf16-mixed"]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which networks compute in bfloat16 where that is safe; spectrograms stay in 32 bit."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def compile_network(model: Enhancer) -> None:
    """Compile the network at its next call. Raises `UserError` where the CPU's compiler is missing."""
    if model.device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UserError("--compile needs a C++ compiler, and g++ is not found; install it or leave --compile out")
    model.backbone.compile()
