"""Encoders, backbones, samplers and metrics of other packages: the example of CONTRIBUTING.md, through the commands."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import TINY, call, refusal

from sgmse.commands import enhance, evaluate, train
from sgmse.diffusion.samplers import SAMPLERS
from sgmse.encoders import ENCODERS
from sgmse.evaluation.metrics import METRICS
from sgmse.networks import BACKBONES

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
SIZES = [*" ".join(TINY).replace("--N 1 ", "").split(), "--sde", "sbve"]
CHOICES = "--encoder my_lab:SpectrumEncoder --backbone my_lab:two_layers --sampler my_lab:once".split()


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    """The example as a module that can be imported; afterwards no dictionary knows of it."""
    (tmp_path / "my_lab.py").write_text(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1])
    (tmp_path / "broken_lab.py").write_text("import my_absent_package\n")
    (tmp_path / "failing_lab.py").write_text("1 / 0\n")
    (tmp_path / "poor_lab.py").write_text(
        "from sgmse.encoders.base import NoiseEncoder\nfrom sgmse.diffusion.samplers import Sampler\n"
        "from sgmse.diffusion.sde import SBVE\nclass NoCard(NoiseEncoder): ...\n"
        "from my_lab import SpectrumEncoder\n"
        "class NoForward(NoiseEncoder): card, settings = SpectrumEncoder.card, {'x'}\n"
        "strange = Sampler(print, SBVE, {'no_setting'})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()


def forget() -> None:
    """As in a new process."""
    for registry in (ENCODERS, BACKBONES, SAMPLERS, METRICS):
        for name in [name for name in registry if ":" in name]:
            del registry[name]
    for name in [name for name in sys.modules if name.endswith("_lab")]:
        del sys.modules[name]


def test_they_are_trained_kept_in_files_found_again_and_scored(my_lab, monkeypatch, capsys):
    monkeypatch.chdir(my_lab)
    call(train.main, capsys, *SIZES, *CHOICES, "--run_dir", "run")
    config = yaml.safe_load((my_lab / "run" / "config.yaml").read_text())
    assert [config[name] for name in ("encoder", "backbone", "sampler")] == CHOICES[1::2]
    ckpt = my_lab / "run" / "checkpoints" / "last.ckpt"
    stored = torch.load(ckpt, weights_only=True)["model_settings"]
    assert (stored["encoder"], stored["backbone"]) == ("my_lab:SpectrumEncoder", "my_lab:two_layers")
    forget()
    call(train.main, capsys, "--ckpt", ckpt, "--max_steps", 2)
    forget()
    assert "my_lab:once" in call(enhance.main, capsys, "--ckpt", ckpt, "-o", "out")
    printed = call(evaluate.main, capsys, "--enhanced_dir", "out", "--metrics", "my_lab:peak_level", "--csv", "s.csv")
    assert "peak" in printed
    assert "my_lab:peak_level" in (my_lab / "s.csv").read_text().partition("\n")[0]


REFUSALS = """
--encoder my_laboratory:Mine        there is no module my_laboratory
--encoder my_lab.sub:Mine           there is no module my_lab.sub
--encoder broken_lab:Mine           needs the module my_absent_package
--encoder failing_lab:Mine          ZeroDivisionError
--encoder my_lab:Mine               holds no Mine
--encoder my_lab:                   is no name of a plug-in
--encoder my_lab:a:b                is no name of a plug-in
--encoder my_lab                    --encoder my_lab
--encoder my_lab:two_layers         is no subclass of NoiseEncoder
--encoder poor_lab:NoCard           `card`
--encoder poor_lab:NoForward        does not define from_settings
--backbone my_lab:TwoLayers         is no Backbone
--sampler my_lab:two_layers         is no Sampler
--sampler poor_lab:strange          no_setting
"""


@pytest.mark.parametrize(("line", "culprit"), [re.split(r"  +", line) for line in REFUSALS.strip().splitlines()])
def test_what_cannot_be_used_is_refused_in_a_sentence(my_lab, capsys, line, culprit):
    sentence = refusal(train.main, capsys, *SIZES, "--run_dir", my_lab / "run", *line.split())
    assert culprit in sentence
    assert line.split()[1].partition(":")[0] in sentence


def test_a_checkpoint_whose_plug_in_is_gone_says_so(my_lab, capsys):
    call(train.main, capsys, *SIZES, *CHOICES, "--run_dir", my_lab / "run")
    forget()
    (my_lab / "my_lab.py").unlink()
    sentence = refusal(enhance.main, capsys, "--ckpt", my_lab / "run/checkpoints/last.ckpt", "-o", my_lab / "out")
    assert "there is no module my_lab" in sentence


def test_a_metric_that_is_none_is_refused(my_lab, capsys):
    assert "is no Metric" in refusal(evaluate.main, capsys, "--metrics", "my_lab:two_layers", "--enhanced_dir", my_lab)
