"""The losses of the waveform are those of the metrics, and no item spoils the others."""

import pytest
import torch
from tiny import batch, tiny
from torch_pesq import PesqLoss

from sgmse.diffusion import losses
from sgmse.evaluation import metrics
from sgmse.settings.config import TrainConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_pesq_loss_reaches_the_network_and_stays_out_of_checkpoints():
    model, data = tiny(TrainConfig(), encoder="none", pesq_weight=1.0), batch(samples=16384)
    plain = tiny(TrainConfig(), encoder="none")
    loss = model.loss(data, None, seeded())[0]
    assert (loss > plain.loss(data, None, seeded())[0]).all()
    loss.mean().backward()
    assert model.backbone.input_conv.weight.grad.abs().sum() > 0
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_the_pesq_loss_is_torch_pesqs_where_that_is_finite():
    clean, noise = 0.1 * torch.randn(2, 2, 16384, generator=seeded())
    clean[1] = 0
    estimate = (clean + 0.5 * noise).requires_grad_()
    theirs, ours = PesqLoss(1.0, sample_rate=16000)(clean, estimate), losses.PesqDistance(16000)(clean, estimate)
    assert torch.equal(ours[0], theirs[0])
    assert not theirs[1].isfinite()
    assert ours[1] == 0
    ours.sum().backward()
    assert estimate.grad[0].abs().sum() > 0
    assert estimate.grad[1].eq(0).all()


def test_an_item_whose_pesq_has_no_slope_leaves_the_others_theirs(monkeypatch):
    distance = losses.PesqDistance(16000)
    monkeypatch.setattr(distance, "distance", Norm())
    clean = torch.zeros(2, 8)
    estimate = torch.stack([torch.ones(8), torch.zeros(8)]).requires_grad_()
    distance(clean, estimate).sum().backward()
    torch.testing.assert_close(estimate.grad, torch.tensor([[8**-0.5], [0]]).expand(2, 8))


class Norm(torch.nn.Module):
    """A distance whose gradient is 0 · ∞ where both signals agree."""

    def forward(self, clean, estimate):
        return (estimate - clean).square().sum(dim=1).sqrt()


def test_the_si_sdr_of_the_loss_is_that_of_the_metric():
    clean, noise = torch.randn(2, 3, 16000, generator=seeded())
    estimate = 0.7 * clean + torch.tensor([[0.3], [1.0], [2.0]]) * noise
    expected = [metrics.si_sdr(x.numpy(), e.numpy()) for x, e in zip(clean, estimate, strict=True)]
    assert losses.negative_si_sdr(estimate, clean).tolist() == pytest.approx([-value for value in expected], abs=0.01)
    assert losses.negative_si_sdr(clean, clean).tolist() == [-losses.BEST_SI_SDR] * 3
    assert losses.negative_si_sdr(torch.zeros(1, 16), torch.zeros(1, 16)).item() == 0
    assert losses.negative_si_sdr(0.1 * noise, torch.zeros_like(noise)).tolist() == [0, 0, 0]
