"""Half precision, the compiled network, and averaged weights that are put in place once."""

import json
import shutil

import pytest
import soundfile
import torch
from commands import call, refusal, saved_run
from small_corpora import save
from tiny import enhanced, tiny

from sgmse.commands import enhance as enhancement
from sgmse.diffusion.samplers import gaussian
from sgmse.enhancement.signals import autocast, compile_network
from sgmse.model.enhancer import Enhancer
from sgmse.model.optimisation import AveragedWeights


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture
def noisy(tmp_path):
    for i in range(2):
        save(tmp_path / "noisy" / f"{i}.wav", 0.3, 16000)
    return tmp_path / "noisy"


def test_bfloat16_is_used_by_the_network_alone():
    model, seen = tiny().eval(), []
    layers = [module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda *called: seen.append(called[2].dtype)) for layer in layers]
    noisy, reference = 0.1 * torch.randn(2, 1, 6000)

    def output():
        return enhanced(model, noisy, reference, gaussian(torch.Generator().manual_seed(0))).waveform

    full = output()
    assert torch.bfloat16 not in seen
    with autocast(model.device, "bf16-mixed"):
        half = output()
    assert torch.bfloat16 in seen
    assert half.dtype == torch.float32
    assert 0 < (half - full).norm() < 0.2 * full.norm()
    for hook in hooks:
        hook.remove()


def test_the_command_takes_half_precision_and_notes_it(ckpt, noisy, tmp_path, capsys):
    flags = ("--ckpt", ckpt, "--test_dir", noisy, "--device", "cpu", "--reference", "none")
    for out, more in (("full", ()), ("half", ("--precision", "bf16-mixed"))):
        call(enhancement.main, capsys, *flags, "--enhanced_dir", tmp_path / out, *more)
    assert json.loads((tmp_path / "half" / "run.json").read_text())["precision"] == "bf16-mixed"
    full, half = (soundfile.read(tmp_path / out / "0.wav")[0] for out in ("full", "half"))
    assert 0 < ((half - full) ** 2).sum() < 0.05 * (full**2).sum()


@pytest.mark.slow
def test_the_compiled_network_computes_the_same():
    model = tiny().eval()
    noisy, reference = 0.1 * torch.randn(2, 1, 6000)

    def output():
        return enhanced(model, noisy, reference, gaussian(torch.Generator().manual_seed(0)), 3.0).waveform

    eager = output()
    compile_network(model)
    assert (output() - eager).norm() < 1e-4 * eager.norm()


def test_compiling_without_a_compiler_is_refused(ckpt, noisy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    flags = ("--ckpt", ckpt, "--test_dir", noisy, "--device", "cpu", "--enhanced_dir", tmp_path / "out", "--compile")
    assert "needs a C++ compiler" in refusal(enhancement.main, capsys, *flags)


def test_averaged_weights_are_put_in_place_once_and_never_swapped_per_file(ckpt, noisy, tmp_path, capsys, monkeypatch):
    content, model = torch.load(ckpt, weights_only=True), Enhancer.from_checkpoint(ckpt, "cpu")
    weights = dict(model.named_parameters())
    assert all(torch.equal(weights[name], average) for name, average in content["average"]["weights"].items())
    monkeypatch.setattr(AveragedWeights, "swapped_into", lambda *_: pytest.fail("weights were swapped"))
    flags = ("--ckpt", ckpt, "--test_dir", noisy, "--device", "cpu", "--reference", "none")
    call(enhancement.main, capsys, *flags, "--enhanced_dir", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2
