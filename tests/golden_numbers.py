"""Numbers computed with the published code, and how near ours come to them."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """Arrays of a golden file; a last axis of size 2 of an activation is complex."""
    return load_file(GOLDEN / f"{name}.safetensors")


def as_complex(array: Tensor) -> Tensor:
    return torch.view_as_complex(array.contiguous())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖."""
    return ((actual - expected).norm() / expected.norm()).item()
