"""`from_checkpoint` and `enhance`: any waveform in, the same kind out."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from commands import call, saved_run
from small_corpora import save

from sgmse.commands import enhance as enhancement
from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model import Enhancer, NoiseCondScoreModel

RATE = 16000


def noise(*shape: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(sum(shape)).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    torch.manual_seed(0)  # weights whose result does not clip
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture(scope="module")
def model(ckpt):
    return NoiseCondScoreModel.from_checkpoint(ckpt, device="cpu")


def test_a_checkpoint_becomes_a_model_for_use_with_averaged_weights(model, ckpt):
    assert isinstance(model, NoiseCondScoreModel)
    assert not model.training
    averaged = torch.load(ckpt, weights_only=True)["average"]["weights"]
    weights = model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in averaged.items())


@pytest.mark.parametrize("shape", [(5000,), (1, 5000), (3, 5001)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_type_and_shape_are_kept(model, shape, dtype, rate):
    waveform = noise(*shape).astype(dtype)
    result = model.enhance(waveform, rate, noise_ref=noise(4000))
    assert isinstance(result, np.ndarray)
    assert (result.dtype, result.shape) == (dtype, shape)
    assert np.isfinite(result).all()
    tensor = model.enhance(torch.from_numpy(waveform), rate, noise_ref=torch.from_numpy(noise(4000)))
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), result)
    half = model.enhance(torch.from_numpy(waveform).bfloat16(), rate, noise_ref=torch.from_numpy(noise(4000)))
    assert (half.dtype, half.shape) == (torch.bfloat16, shape)


def test_the_command_and_the_interface_agree(model, ckpt, tmp_path, capsys):
    """The bridge's ODE draws no noise, whose keys differ."""
    save(tmp_path / "noisy" / "a.wav", 0.5, RATE)
    reference = save(tmp_path / "reference.wav", 0.5, 22050)
    flags = ("--ckpt", ckpt, "--test_dir", tmp_path / "noisy", "--enhanced_dir", tmp_path / "out")
    call(enhancement.main, capsys, *flags, "--noise_ref", reference, "--guidance_scale", 2)
    waveform = audio.read(tmp_path / "noisy" / "a.wav", RATE)
    written = soundfile.read(tmp_path / "out" / "a.wav")[0]
    for given in ({"noise_ref": reference}, {"noise_ref": audio.read(reference, 22050), "noise_ref_sr": 22050}):
        result = model.enhance(waveform, RATE, guidance_scale=2.0, **given)
        assert np.allclose(result, written, atol=1e-6)  # 24 bit


def test_the_documented_example_runs(ckpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "logs" / "run" / "checkpoints" / "best_pesq.ckpt").write_bytes(ckpt.read_bytes())
    save(tmp_path / "fan.wav", 0.5, RATE)
    lines = [line.split(">>> ")[1] for line in NoiseCondScoreModel.enhance.__doc__.splitlines() if ">>>" in line]
    names = {"NoiseCondScoreModel": NoiseCondScoreModel, "noisy": noise(24000)}
    for line in lines:
        exec(line, names)
    assert names["enhanced"].shape == (24000,)


def test_each_channel_is_enhanced_on_its_own_and_a_silent_one_stays_silent(model):
    waveform = noise(3, 5000) * np.array([[1.0], [0.1], [0.0]], dtype=np.float32)
    before = waveform.copy()
    for options in ({}, {"noise_ref": noise(4000)}):
        together = model.enhance(waveform, RATE, **options)
        assert np.allclose(together[1], model.enhance(waveform[1], RATE, **options), atol=1e-6)
        assert not together[2].any()
    assert (waveform == before).all(), "the input is left as it was"


def test_the_reference_and_the_seed_matter(model, monkeypatch):
    waveform = noise(5000)
    assert (model.enhance(waveform, RATE, noise(4000)) != model.enhance(waveform, RATE)).any()
    monkeypatch.setattr(model, "sampler", SamplerSettings(sampler="bridge_sde", N=2))
    first, again, other = (model.enhance(waveform, RATE, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"waveform": np.zeros(5000, dtype=np.int16)}, "waveform holds values of type int16"),
        ({"waveform": noise(1, 1, 5000)}, r"waveform has the shape \[1, 1, 5000\]"),
        ({"waveform": noise(0)}, r"waveform has the shape \[0\]"),
        ({"waveform": np.full(5000, np.nan)}, "waveform holds NaN"),
        ({"waveform": noise(200)}, "waveform is shorter than one frame"),
        ({"waveform": noise(5000).astype(float) * 1e300}, "beyond 32 bit"),
        ({"sr": 0}, "the rate of waveform is 0 Hz"),
        ({"sr": np.nan}, "the rate of waveform is nan Hz"),
        ({"sr": "16000"}, "the rate of waveform is 16000 Hz"),
        ({"noise_ref": noise(4000), "noise_ref_sr": 0}, "the rate of noise_ref is 0 Hz"),
        ({"guidance_scale": "adaptive"}, "guidance_scale adaptive is no finite number"),
        ({"chunk_s": np.inf}, "chunk_s inf is no finite number"),
        ({"chunk_s": None}, "chunk_s None is no finite number"),
        ({"noise_ref": noise(100)}, "noise_ref is shorter than one frame"),
        ({"noise_ref": noise(2, 4000)}, r"noise_ref has the shape \[2, 4000\]"),
        ({"noise_ref": noise(4000), "noise_ref_sr": -1}, "the rate of noise_ref is -1 Hz"),
        ({"noise_ref": "missing.wav"}, "missing.wav: no such file"),
        ({"guidance_scale": np.nan}, "guidance_scale nan is no finite number"),
        ({"chunk_s": -1.0}, "chunk_s -1 and overlap_s 1 do not fit"),
        ({"chunk_s": 1.0, "overlap_s": 1.0}, "chunk_s 1 and overlap_s 1 do not fit"),
        ({"chunk_s": 1.0, "overlap_s": 0.0}, "chunk_s 1 and overlap_s 0 do not fit"),
    ],
)
def test_what_cannot_be_enhanced_is_refused(model, arguments, problem):
    with pytest.raises(UserError, match=problem):
        model.enhance(**{"waveform": noise(5000), "sr": RATE, **arguments})


def test_a_list_is_a_waveform_and_of_a_long_reference_the_beginning_is_used(model, monkeypatch):
    monkeypatch.setattr("sgmse.model.waveforms.HEAD_S", 0.25)
    reference = noise(RATE)
    found = model.enhance(noise(5000), RATE, noise_ref=reference)
    assert (found == model.enhance(noise(5000), RATE, noise_ref=reference[: RATE // 4])).all()
    assert (found == model.enhance(noise(5000).tolist(), RATE, noise_ref=reference)).all()


def test_a_model_says_which_references_it_cannot_take(tmp_path):
    baseline = Enhancer.from_checkpoint(saved_run(tmp_path / "baseline", encoder="none"))
    undropped = Enhancer.from_checkpoint(saved_run(tmp_path / "undropped", cond_drop_prob=0.0))
    with pytest.raises(UserError, match="has no noise encoder"):
        baseline.enhance(noise(5000), RATE, noise(4000))
    with pytest.raises(UserError, match="null condition is untrained"):
        undropped.enhance(noise(5000), RATE)
    assert baseline.enhance(noise(5000), RATE).shape == undropped.enhance(noise(5000), RATE, noise(4000)).shape


def test_using_a_model_imports_no_lightning(ckpt):
    code = f"""
import sys
import numpy as np
from sgmse.model import Enhancer
Enhancer.from_checkpoint({str(ckpt)!r}, "cpu").enhance(np.ones(4000, np.float32), 16000)
assert not [name for name in sys.modules if name.startswith(("pytorch_lightning", "lightning"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
