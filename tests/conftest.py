"""Shared fixtures."""

import pytest
import torch

torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they bring


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
