"""Statistics of the reference as input channels of the network."""

import pytest
import torch
from tiny import SIZE, batch, enhanced, tiny

from sgmse.common.errors import UserError
from sgmse.diffusion.samplers import gaussian
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.levels import CENTRE, CHANNELS, QUANTILES, reference_statistics
from sgmse.encoders.trunk import LOG_FLOOR, features
from sgmse.model.build import make_backbone
from sgmse.settings.config import ModelConfig

TRANSFORM = SpectrogramTransform(510, 128, 0.15, 0.5)


def test_statistics_are_mean_and_quantiles_of_the_log_magnitude_and_a_one():
    reference = torch.randn(1, 9000)
    spectra, frames = features(TRANSFORM, reference, torch.tensor([9000]))
    level = spectra[0, 0, :, : frames[0]] + CENTRE
    expected = [level.mean(dim=1), *torch.quantile(level, torch.tensor(QUANTILES), dim=1), torch.ones(256)]
    found = reference_statistics(TRANSFORM, reference, torch.tensor([9000]))[0]
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("length", [200, 600, 5000])
def test_padding_of_a_reference_changes_nothing(length):
    reference = torch.randn(1, 9000)
    reference[:, length:] = 0
    alone = reference_statistics(TRANSFORM, reference[:, :length], torch.tensor([length]))
    padded = reference_statistics(TRANSFORM, reference, torch.tensor([length]))
    assert torch.allclose(alone, padded, atol=1e-5)


def test_a_louder_reference_moves_every_statistic_by_its_level():
    """The magnitudes are compressed with an exponent of 1/2, so a factor of 4 is log 2."""
    reference, length = torch.randn(1, 9000), torch.tensor([9000])
    quiet, loud = (reference_statistics(TRANSFORM, gain * reference, length)[0] for gain in (1, 4))
    assert torch.allclose(loud[:3] - quiet[:3], torch.tensor(2.0).log().expand(3, 256), atol=0.01)
    assert LOG_FLOOR < 1e-3


def test_statistics_change_nothing_at_the_start_and_something_once_trained():
    data = batch()
    plain, fed = tiny(), tiny(reference_statistics=True)
    own = fed.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    weight = fed.backbone.statistics_input.conv.weight
    torch.nn.init.zeros_(weight)

    def predicted(model):
        x, y = model.transform(data["clean"]), model.transform(data["noisy"])
        condition = model.encode(data["reference"], data["reference_length"])
        return model.predict(x, y, torch.full((2,), 0.5), condition)

    assert torch.equal(predicted(plain), predicted(fed))
    torch.nn.init.normal_(weight, std=0.1)
    assert not torch.allclose(predicted(plain), predicted(fed))


def test_a_fresh_network_has_the_weights_of_one_without_statistics():
    states = []
    for fed in (False, True):
        torch.manual_seed(3)
        config = ModelConfig(**SIZE, reference_statistics=fed)
        states.append(make_backbone(config).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not states[1]["statistics_input.conv.weight"].any()


def test_gradients_reach_the_statistics_and_a_dropped_reference_has_none():
    model, data = tiny(reference_statistics=True), batch()
    condition = model.encode(data["reference"], torch.tensor([6000, 0]))
    assert condition.statistics.shape == (2, CHANNELS, 256)
    assert condition.statistics[0, -1].eq(1).all()
    assert not condition.statistics[1].any()
    model.loss(data, condition, torch.Generator().manual_seed(0))[0].sum().backward()
    assert model.backbone.statistics_input.conv.weight.grad.abs().sum() > 0


def test_guidance_scale_zero_hears_no_statistics():
    model, data = tiny(reference_statistics=True), batch()

    def output(reference, scale):
        return enhanced(model, data["noisy"], reference, gaussian(torch.Generator().manual_seed(0)), scale).waveform

    assert torch.allclose(output(data["reference"], 0.0), output(None, 1.0), atol=1e-6)
    assert not torch.allclose(output(data["reference"], 1.0), output(None, 1.0), atol=1e-4)


def test_a_model_without_reference_has_no_statistics_of_it():
    with pytest.raises(UserError, match="--reference_statistics"):
        tiny(encoder="none", reference_statistics=True)
