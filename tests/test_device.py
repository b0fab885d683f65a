"""A device is not kept waiting: what would make the host wait for a GPU, counted without one.

On a pretended GPU tensors have sizes and no values, so that reading a value there is an error.
"""

import sys
from collections import Counter

import pytest
import torch
from tiny import batch, tiny
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sgmse.commands import train
from sgmse.diffusion.guidance import GuidanceSettings, Guide
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, sample
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings.config import TrainConfig

MODELS = [
    {"encoder": "none"},
    {"encoder": "cnn"},
    {"encoder": "sequence", "cross_attention_resolutions": [128], "reference_statistics": True},
    {"encoder": "cnn", "reference_prepend": True},
    {"encoder": "cnn", "sde": "ouve"},
]
WAITS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "unique")  # they need values on the host


class Operations(TorchDispatchMode):
    """Counts waits by their name, and copies between host and device."""

    def __init__(self):
        super().__init__()
        self.waits, self.copies = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        self.waits[name] += name in WAITS
        if name in ("_to_copy", "copy_"):
            kinds = {x.device.type for x in (*args, result) if isinstance(x, torch.Tensor)}
            self.copies += len(kinds) > 1
        return result


@pytest.fixture(params=MODELS, ids=lambda settings: "-".join(map(str, settings.values())))
def on_gpu(request, monkeypatch):
    """A model and a batch on a pretended GPU, without the inverse transform, in which PyTorch itself waits."""
    model, data = tiny(TrainConfig(), l1_weight=0.0, **request.param), batch()
    monkeypatch.setattr(NoiseCondScoreModel, "_generator", lambda self, *key: None)
    monkeypatch.setattr(model.transform, "inverse", lambda y, length: torch.zeros(len(y), length, device=y.device))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model._apply(lambda weight: torch.empty_like(weight, device="cuda"))
        yield model, {name: torch.empty_like(value, device="cuda") for name, value in data.items()}


def test_the_loss_is_computed_without_a_wait_or_a_copy(on_gpu):
    model, data = on_gpu
    with Operations() as found:
        loss, _ = model.loss(data, model.encode(data["reference"], data["reference_length"]), None)
    assert loss.device.type == "cuda"
    assert (found.waits.total(), found.copies) == (0, 0)


@torch.no_grad()
def test_no_sampler_waits_or_copies_even_where_guidance_acts_at_some_times_only(on_gpu):
    model, data = on_gpu
    encoded = model.encode_reference(data["reference"], data["noisy"].abs().amax(dim=-1))
    y = model.transform(data["noisy"])
    guidance = GuidanceSettings(guidance_scale=3.0, guidance_interval=[0.4, 0.8])
    names = [name for name, sampler in SAMPLERS.items() if sampler.process is type(model.sde) and name != "rk45"]
    assert len(names) >= 3
    for name in names:
        guide = Guide(model.predict, y, encoded, 3.0, guidance, model.sde)
        with Operations() as found:
            drawn = sample(guide, model.sde, y, torch.randn_like, SamplerSettings(sampler=name, N=5), 0.03)
        guided = guide.passes - drawn.nfe
        assert guided == 0 if model.encoder is None else 0 < guided < drawn.nfe
        assert (found.waits.total(), found.copies) == (0, 0), name


def test_the_pretended_gpu_notices_a_value_that_is_read(on_gpu):
    with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        bool(on_gpu[1]["noisy"].sum() > 0)


def test_a_step_of_training_waits_once_for_its_gradient_and_twice_within_the_inverse_transform(tmp_path, monkeypatch):
    """Read in whole trainings of a few steps, whose difference is that of the steps."""
    settings = """--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --batch_size 2 --nolog
    --num_workers 0 --num_valid_items 2 --num_eval_files 0 --N 1 --device cpu --encoder cnn --cond_dim 16
    --encoder_channels 2 --val_every_n_steps 100""".split()
    counts = []
    for steps in (2, 5):
        arguments = [*settings, "--max_steps", str(steps), "--run_dir", str(tmp_path / str(steps))]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with Operations() as found:
            train.main()
        counts.append(found.waits)
    each = {name: (counts[1][name] - counts[0][name]) / 3 for name in WAITS}
    assert each == dict.fromkeys(WAITS, 0) | {"_local_scalar_dense": 2, "equal": 1}  # torch.istft checks its window


@pytest.mark.parametrize("settings", MODELS[:3], ids=lambda settings: settings["encoder"])
def test_the_network_is_compiled_as_one_graph(settings):
    model, data = tiny(**settings).eval(), batch()
    condition = model.encode(data["reference"], data["reference_length"])
    y = model.transform(data["noisy"])
    t = torch.full((len(y),), 0.5)
    found = torch.compile(model.backbone, backend="eager", fullgraph=True)(y, y, t, condition)
    torch.testing.assert_close(found, model.backbone(y, y, t, condition))
