"""laion_clap's own way from a waveform to the input of its tower, without importing laion_clap."""

import ast
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sgmse.encoders.clap import INSTALL
from sgmse.encoders.pretrained import package_folder


def get_audio_features() -> Callable[..., dict[str, Any]]:
    """The function of that name in laion_clap/training/data.py, compiled from its source there.

    The module it stands in loads tokenizers from a hub when it is imported.
    """
    source = (package_folder("laion_clap", INSTALL) / "training" / "data.py").read_text()
    found = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "get_audio_features"]
    names: dict[str, Any] = {"torch": torch, "F": F, "np": np, "math": math, "suppress": suppress}
    exec(compile(ast.Module(found, []), "get_audio_features", "exec"), names)
    function: Callable[..., dict[str, Any]] = names["get_audio_features"]
    return function
