"""What every encoder has, and the CNN encoder."""

import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders import ENCODERS
from sgmse.encoders.base import NoiseEncoder
from sgmse.encoders.cnn import CNNNoiseEncoder
from sgmse.settings.config import ModelConfig

ROOT = Path(__file__).parent.parent

HEAVY = {"laion_clap", "panns_inference", "torchlibrosa", "librosa", "transformers", "matplotlib", "h5py"}


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


def built(name: str) -> NoiseEncoder:
    """An encoder at the default settings, without weights of its own and not frozen."""
    changes = {"encoder": name, "encoder_checkpoint": "random", "freeze_encoder": False}
    return ENCODERS[name].from_settings(asdict(ModelConfig()) | changes, encoder().transform)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_card_of_every_encoder_tells_its_parameters_and_whether_it_gives_tokens(name):
    net = built(name)
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert net.card.parameters == f"{count / 1e6:.1f} M"
    assert net.card.pretrained == bool(net.pretrained_parameters())
    condition = net.eval()(torch.randn(1, 16000) * 0.1, torch.tensor([16000]))
    assert condition.vector.shape == (1, net.dim)
    assert net.card.gives_tokens or condition.tokens is None


@pytest.mark.parametrize("name", ["clap", "panns"])
def test_building_a_pretrained_network_opens_no_connection_and_runs_no_command(name, monkeypatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("a connection was opened or a command run")

    for module, function in ((socket, "create_connection"), (socket, "getaddrinfo"), (os, "system")):
        monkeypatch.setattr(module, function, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for module in [m for m in sys.modules if m.startswith(("_laion_clap", "_panns_inference"))]:
        monkeypatch.delitem(sys.modules, module)
    built(name)
    assert not {"laion_clap", "panns_inference", "wget"} & set(sys.modules)


def test_the_cards_are_there_without_the_packages_of_the_pretrained_networks():
    code = f"""
import sys
from sgmse.encoders import ENCODERS
cards = [ENCODERS[name].card for name in ENCODERS]
assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
