"""Shared fixtures."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they bring
GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """Arrays of a golden file; a last axis of size 2 of an activation is complex."""
    return load_file(GOLDEN / f"{name}.safetensors")


def as_complex(array: Tensor) -> Tensor:
    return torch.view_as_complex(array.contiguous())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖."""
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
