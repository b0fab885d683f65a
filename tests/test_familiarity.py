"""How far references are from those of the training, against dense formulas, and the scale that follows from it."""

import math

import numpy as np
import pytest
import torch
from tiny import enhanced, tiny

from sgmse.diffusion import adaptive as familiarity
from sgmse.diffusion.adaptive import Familiarity, adaptive_scale, fit, ledoit_wolf_share
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import gaussian
from sgmse.settings.config import TrainConfig


def vectors(count: int, dim: int = 40, seed: int = 0) -> torch.Tensor:
    """Correlated normal vectors of very unequal spread around a mean."""
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(9)) * torch.logspace(0, -3, dim)
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) @ mix + 5


def shrinkage(x: np.ndarray) -> float:
    """Ledoit & Wolf 2004 by their definitions, without a shortcut. x: [n, D], centred."""
    n, dim = x.shape
    covariance = x.T @ x / n
    target = np.trace(covariance) / dim * np.eye(dim)
    spread = ((covariance - target) ** 2).sum() / dim
    error = sum(((np.outer(row, row) - covariance) ** 2).sum() / dim for row in x) / n**2
    return min(error, spread) / spread


@pytest.mark.parametrize("count", [20, 60])
def test_distance_is_mahalanobis_under_the_shrunk_covariance_also_with_fewer_vectors_than_dimensions(count):
    x, new = vectors(count).double().numpy(), vectors(7, seed=1)
    centred = x - x.mean(axis=0)
    share = shrinkage(centred)
    assert ledoit_wolf_share(torch.from_numpy(centred)) == pytest.approx(share)
    covariance = centred.T @ centred / count
    shrunk = (1 - share) * covariance + share * np.trace(covariance) / 40 * np.eye(40)
    away = new.double().numpy() - x.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", away, np.linalg.inv(shrunk), away))
    fitted = fit(torch.from_numpy(x))
    unit = np.quantile(fitted.distances.numpy(), 0.95)
    assert fitted.distance(new).numpy() == pytest.approx(expected / unit, rel=1e-3)


def test_new_vectors_of_the_same_kind_are_as_far_as_the_training_ones_and_others_are_farther():
    fitted, new = fit(vectors(256)), vectors(500, seed=1)
    assert fitted.distance(new).median().item() == pytest.approx(fitted.training().median().item(), rel=0.05)
    assert (fitted.distance(new) <= 1).float().mean().item() == pytest.approx(0.95, abs=0.04)
    assert fitted.distance(vectors(20) + 3).min() > 2


def test_the_statistics_survive_a_checkpoint(tmp_path):
    fitted = fit(vectors(30))
    torch.save(fitted.state_dict(), tmp_path / "x.pt")
    again = Familiarity.from_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert torch.equal(again.distance(vectors(5)), fitted.distance(vectors(5)))


def test_the_scale_is_full_near_falls_steadily_and_is_zero_far_away():
    distance = torch.tensor([0.0, 0.9, 1.0, 1.5, 2.0, 2.5, 3.0, 50.0, math.inf])
    w = adaptive_scale(distance, full=2.0, near=1.0, far=3.0)
    assert w[:3].tolist() == [2, 2, 2]
    assert w[4].item() == pytest.approx(1.0)
    assert (w[2:6].diff() < 0).all()
    assert w[6:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [0, familiarity.FEWEST - 1])
def test_too_few_references_give_no_statistics(count):
    model = tiny()
    assert familiarity.fit_training_references(model.encode, [torch.randn(3000)] * count, model.device) is None


def test_without_an_encoder_or_with_one_that_tells_nothing_apart_there_are_no_statistics():
    references = [torch.randn(3000) for _ in range(20)]
    assert familiarity.fit_training_references(lambda r, n: None, references, torch.device("cpu")) is None
    assert familiarity.fit_familiarity(torch.ones(20, 4)) is None  # all alike


class Training:
    """What a model needs of a trainer to find its training references; some of them are empty."""

    def __init__(self):
        self.datamodule = self
        self.train = {key: {"reference": torch.randn(2000 + key if key % 9 else 0)} for key in range(256)}


def test_validation_keeps_the_statistics_of_the_averaged_encoder():
    model = tiny(TrainConfig())
    model._trainer = Training()
    with torch.no_grad():
        for weight in model.average.weights.values():
            weight.mul_(1.5)
    model.on_validation_epoch_start()
    vectors = [model.encode(r[None], torch.tensor([len(r)])).vector for r in model._training_references]
    model.on_validation_epoch_end()
    assert len(vectors) == 256 - len(range(0, 256, 9))
    torch.testing.assert_close(model.familiarity.mean, torch.cat(vectors).mean(dim=0), rtol=1e-4, atol=1e-5)
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    resumed = tiny(TrainConfig())
    resumed.on_load_checkpoint(checkpoint)
    assert torch.equal(resumed.familiarity.distances, model.familiarity.distances)
    del checkpoint["familiarity"]
    tiny(TrainConfig()).on_load_checkpoint(checkpoint)


def test_the_adaptive_scale_follows_each_reference_and_leaves_silent_ones_to_the_null():
    model = tiny()
    known = [0.1 * torch.randn(3000) for _ in range(40)]
    model.familiarity = familiarity.fit_training_references(model.encode, known, model.device)
    noisy, silent = torch.randn(3, 2048).clamp(-1, 1), torch.zeros(3000)
    noisy[:, 0] = 1.0  # peaks of 1, so that references keep their level
    reference = torch.stack([known[0], silent, 3 * torch.sin(torch.arange(3000) * 0.3)])
    result = enhanced(model, noisy, reference, gaussian(torch.Generator()), "adaptive")
    assert GuidanceSettings().scale_at(result.distance).tolist() == [1.5, 0, 0]
    assert result.distance[1] == math.inf
    assert result.distance[2] > 3
    null = enhanced(model, noisy, None, gaussian(torch.Generator())).waveform
    torch.testing.assert_close(result.waveform[1:], null[1:], rtol=1e-4, atol=1e-5)
