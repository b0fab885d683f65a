"""Losses that keep the condition from being ignored, and the levels they and the pretrained encoders see."""

import math

import pytest
import torch
from tiny import batch, tiny

from sgmse.diffusion.conditioning import Condition
from sgmse.encoders.levels import NUM_BANDS, band_levels, level
from sgmse.model.auxiliary import TEMPERATURE, AuxiliaryLosses, halves, info_nce
from sgmse.settings.config import TrainConfig

RATE = 16000


def sine(frequency: float, amplitude: float, samples: int = RATE) -> torch.Tensor:
    return (amplitude * torch.sin(2 * math.pi * frequency * torch.arange(samples) / RATE))[None]


def test_level_of_a_sine_is_the_logarithm_of_its_rms():
    length = torch.tensor([RATE])
    assert level(sine(440, 0.5), length).item() == pytest.approx(math.log10(0.5 / math.sqrt(2)), abs=1e-3)


def test_ten_times_the_amplitude_is_one_more_in_every_band():
    noise, length = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)) * 0.01, torch.tensor([RATE])
    torch.testing.assert_close(
        band_levels(10 * noise, length, RATE), band_levels(noise, length, RATE) + 1, atol=1e-3, rtol=0
    )


def test_energies_of_the_bands_add_up_to_the_energy_of_the_signal():
    noise, length = torch.randn(1, 4 * RATE, generator=torch.Generator().manual_seed(0)), torch.tensor([4 * RATE])
    total = (10 ** (2 * band_levels(noise, length, RATE))).sum()
    assert total.item() == pytest.approx(noise.square().mean().item(), rel=0.03)


@pytest.mark.parametrize(("frequency", "band"), [(100, 0), (1000, 2), (7500, 7)])
def test_a_sine_is_loudest_in_its_own_band_on_the_mel_scale(frequency, band):
    assert band_levels(sine(frequency, 0.1), torch.tensor([RATE]), RATE).argmax().item() == band


def test_padding_changes_no_level():
    noise = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([noise, torch.full((1, 3000), 9.0)], dim=1)
    length = torch.tensor([5000])
    torch.testing.assert_close(band_levels(padded, length, RATE), band_levels(noise, length, RATE))
    torch.testing.assert_close(level(padded, length), level(noise, length))


def test_an_empty_reference_has_a_finite_level():
    nothing = torch.zeros(1, 1), torch.tensor([0])
    assert torch.isfinite(level(*nothing)).all()
    assert torch.isfinite(band_levels(*nothing, RATE)).all()


def test_halves_share_no_sample_and_stop_at_the_end_of_each_reference():
    reference = torch.arange(1.0, 9.0).expand(2, 8) * torch.tensor([[1.0], [10.0]])
    first, second, half = halves(reference, torch.tensor([8, 5]))
    assert half.tolist() == [4, 2]
    assert first.tolist() == [[1, 2, 3, 4], [10, 20, 0, 0]]
    assert second.tolist() == [[5, 6, 7, 8], [30, 40, 0, 0]]


def test_contrast_of_orthogonal_pairs_is_the_closed_form():
    same = torch.eye(4)
    usable = torch.ones(4, dtype=torch.bool)
    expected = -math.log(math.exp(1 / TEMPERATURE) / (math.exp(1 / TEMPERATURE) + 3))
    assert info_nce(same, same, usable).item() == pytest.approx(expected, rel=1e-3)
    assert info_nce(same, torch.ones(4, 4), usable).item() == pytest.approx(math.log(4), rel=1e-5)


def test_items_without_a_reference_take_no_part_in_the_contrast():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 8, generator=generator)
    usable = torch.tensor([True, True, False])
    alone = info_nce(first[:2], second[:2], usable[:2])
    torch.testing.assert_close(info_nce(first, second, usable), alone)
    assert info_nce(first, second, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_band_levels_that_are_known_cost_nothing():
    losses = AuxiliaryLosses(NUM_BANDS, RATE, infonce_weight=0, band_level_weight=2.0)
    torch.nn.init.eye_(losses.to_band_levels.weight)
    torch.nn.init.zeros_(losses.to_band_levels.bias)
    items = batch()
    noise = items["noisy"] - items["clean"]
    known = band_levels(noise, torch.full((2,), noise.shape[-1]), RATE)
    assert losses(items, Condition(known), None)["band_level"].item() == pytest.approx(0, abs=1e-6)
    assert losses(items, Condition(known + 0.5), None)["band_level"].item() == pytest.approx(2 * 0.5, rel=1e-5)


def test_both_losses_reach_the_first_layer_of_the_encoder_and_are_logged():
    model = tiny(TrainConfig(), infonce_weight=0.1, band_level_weight=0.1)
    logged = {}
    model.log_dict = lambda values, **_: logged.update(values)
    items = batch()
    condition = model.encode(items["reference"], items["reference_length"])
    model._auxiliary(items, condition).backward()
    assert set(logged) == {"train_infonce", "train_band_level"}
    assert model.encoder.convs[0].weight.grad.abs().sum() > 0


def test_a_model_without_auxiliary_losses_has_no_weights_for_them():
    assert not [name for name, _ in tiny().named_parameters() if name.startswith("auxiliary")]
