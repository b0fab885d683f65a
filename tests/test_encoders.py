"""The CNN encoder."""

import pytest
import torch

from sgmse.encoders import ENCODERS, encoder_class
from sgmse.encoders.cnn import CNNNoiseEncoder
from sgmse.transform import SpectrogramTransform


def encoder() -> CNNNoiseEncoder:
    return CNNNoiseEncoder(SpectrogramTransform(510, 128, 0.15, 0.5), dim=512, channels=4)


def test_vector_has_512_values_for_any_length_of_reference():
    for samples in (1, 300, 4000, 32000):
        reference = torch.randn(2, samples)
        assert encoder()(reference, torch.full((2,), samples)).vector.shape == (2, 512)


def test_padding_of_a_batch_changes_nothing():
    net, reference = encoder(), torch.randn(1, 5000)
    alone = net(reference, torch.tensor([5000])).vector
    padded = net(torch.cat([reference, torch.zeros(1, 9000)], dim=1), torch.tensor([5000])).vector
    other = net(torch.cat([reference, torch.randn(1, 9000)], dim=1), torch.tensor([5000])).vector
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other, alone, rtol=1e-4, atol=1e-4)


def test_level_and_spectrum_of_the_reference_reach_the_vector():
    net, length = encoder(), torch.tensor([16000])
    reference = torch.randn(1, 16000) * 0.1
    vector = net(reference, length).vector
    louder = net(reference * 4, length).vector
    another_draw = net(torch.randn(1, 16000) * 0.1, length).vector
    low_passed = torch.nn.functional.avg_pool1d(reference, 9, 1, 4)
    coloured = net(low_passed * reference.norm() / low_passed.norm(), length).vector

    def distance(other):
        return ((other - vector).norm() / vector.norm()).item()

    assert distance(louder) > 2 * distance(another_draw)
    assert distance(coloured) > 2 * distance(another_draw)


def test_every_weight_receives_a_gradient():
    net = encoder()
    net(torch.randn(2, 16000), torch.tensor([16000, 8000])).vector.square().sum().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ENCODERS)
def test_every_named_encoder_exists(name):
    assert hasattr(encoder_class(name), "from_settings")
