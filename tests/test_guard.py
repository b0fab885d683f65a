"""The commands make of stored checkpoints what an early version of the code made of them."""

import json

import guard
import numpy as np
import pytest

from sgmse.model import NoiseCondScoreModel

KEPT = guard.GOLDEN / "collected.npz"


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return guard.collect(tmp_path_factory.mktemp("guard") / "out", ["evaluate", "sweep", "use"], guard.QUICK)


def stored() -> dict[str, np.ndarray]:
    with np.load(KEPT) as file:
        return dict(file)


@pytest.mark.parametrize("name", sorted(name for name in stored() if name.endswith(".npy")))
def test_sounds_are_those_of_the_stored_ones(collected, name):
    """Up to the rounding of other processors; `python tests/guard.py --compare` asks for every bit."""
    sound, before = np.load(collected / name), stored()[name].astype(np.float32)
    assert sound.shape == before.shape
    assert np.abs(sound - before).max() < 2e-3 * max(np.abs(before).max(), 0.1)


@pytest.mark.parametrize("name", sorted(name for name in stored() if name.endswith(".json")))
def test_tables_and_records_are_those_of_the_stored_ones(collected, name):
    before = json.loads(str(stored()[name]))
    assert_alike(json.loads((collected / name).read_text(encoding="utf-8")), before, name)


def assert_alike(now, before, where):
    """Equal texts, counts and names; numbers within what another processor's rounding does to a score."""
    if isinstance(before, list):
        assert len(now) == len(before), where
        for place, (one, other) in enumerate(zip(now, before, strict=True)):
            assert_alike(one, other, f"{where} {place}")
    elif isinstance(before, dict):
        for name, value in before.items():
            assert_alike(now[name], value, f"{where} {name}")
    elif number(before) is not None:
        assert number(now) == pytest.approx(number(before), rel=0.02, abs=0.03, nan_ok=True), where
    else:
        assert now == before, where


def number(value) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("name", ["conditioned", "baseline"])
def test_checkpoints_of_an_early_version_load(name):
    model = NoiseCondScoreModel.from_checkpoint(guard.GOLDEN / f"inputs/{name}/checkpoints/last.ckpt", device="cpu")
    noisy = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert np.isfinite(model.enhance(noisy, 16000)).all()
