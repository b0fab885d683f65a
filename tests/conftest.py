"""Shared fixtures."""

import pytest
import torch

torch.manual_seed(0)  # of what modules draw when they are imported
torch.set_num_threads(1)  # tiny models: threads that wait for each other cost more than they bring


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """Weights that a fixture draws are the same whichever tests ran before it."""
    if fixturedef.scope != "function":
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
