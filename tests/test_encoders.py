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
