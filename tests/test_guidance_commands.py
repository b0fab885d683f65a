"""Guidance from the command line: other references, a weaker model, the adaptive scale, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import RATE, altered, call, saved_run
from small_corpora import save

from sgmse.commands import enhance as enhancement
from sgmse.diffusion import adaptive as familiarity
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import gaussian
from sgmse.model.enhancer import Enhancer

pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Checkpoints: plain, without dropping, without encoder, and with statistics of 40 references like `testset`'s."""
    folder = tmp_path_factory.mktemp("logs")
    made = {"plain": saved_run(folder / "plain"), "undropped": saved_run(folder / "undropped", cond_drop_prob=0.0)}
    made["baseline"] = saved_run(folder / "baseline", encoder="none", nf=8)
    model = Enhancer.from_checkpoint(made["plain"], "cpu")
    references = [torch.from_numpy(reference(seed)) for seed in range(40)]
    statistics = familiarity.fit_training_references(model.encode, references, model.device)
    made["adaptive"] = altered(made["plain"], folder / "adaptive.ckpt", familiarity=statistics.state_dict())
    return made


def reference(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(RATE // 2).astype(np.float32) * 0.1


@pytest.fixture
def testset(tmp_path):
    """set/{noisy,ref}: three short files each; noisy files have a peak of 1, so that references keep their level."""
    for i in range(3):
        noisy = np.random.default_rng(50 + i).standard_normal(4000).astype(np.float32) * 0.1
        noisy[0] = 1.0
        save(tmp_path / "set" / "noisy" / f"{i}.wav", samples=noisy, rate=RATE)
        save(tmp_path / "set" / "ref" / f"{i}.wav", samples=reference(100 + i), rate=RATE)
    return tmp_path / "set"


@pytest.fixture
def enhance(tmp_path, capsys, runs, testset):
    """Enhance `testset` into tmp_path/out; returns the results by name."""

    def enhanced(*arguments: object, ckpt: str = "plain", out: str = "out") -> dict[str, np.ndarray]:
        flags = ("--ckpt", runs[ckpt], "--test_dir", testset, "--enhanced_dir", tmp_path / out)
        enhanced.said = call(enhancement.main, capsys, *flags, *arguments)
        return {p.name: soundfile.read(p, dtype="float32")[0] for p in sorted((tmp_path / out).rglob("*.wav"))}

    return enhanced


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def differ(a, b) -> bool:
    return any((a[name] != b[name]).any() for name in a)


def test_a_model_trained_without_dropping_is_guided_against_the_references_of_other_files(enhance, testset, tmp_path):
    guided = enhance("--guidance", "icg", "--guidance_scale", 3, ckpt="undropped", out="icg")
    assert "guidance scale 3, against the reference of another file" in enhance.said
    assert run_json(tmp_path / "icg")["passes"] == 2
    assert differ(guided, enhance(ckpt="undropped", out="plain"))
    assert not differ(guided, enhance("--guidance", "icg", "--guidance_scale", 3, ckpt="undropped", out="again"))
    for i in (1, 2):  # whichever of them is the other one of file 0
        save(testset / "ref" / f"{i}.wav", samples=2 * reference(200), rate=RATE)
    changed = enhance("--guidance", "icg", "--guidance_scale", 3, ckpt="undropped", out="changed")
    assert (changed["0.wav"] != guided["0.wav"]).any()


def test_beside_a_silent_reference_of_the_other_file_nothing_is_guided(enhance, testset):
    plain = enhance(ckpt="undropped", out="plain")
    for i in (1, 2):
        save(testset / "ref" / f"{i}.wav", samples=0 * reference(200), rate=RATE)
    guided = enhance("--guidance", "icg", "--guidance_scale", 3, ckpt="undropped", out="icg")
    np.testing.assert_allclose(guided["0.wav"], plain["0.wav"], atol=1e-4)


def test_a_changed_reference_of_the_other_file_is_one_of_this_file_too(enhance, testset):
    for kind in ("noisy", "ref"):
        (testset / kind / "2.wav").unlink()  # 0 and 1 are left, each of which is led away from the other's reference
    enhance("--guidance", "icg", "--guidance_scale", 2)
    save(testset / "ref" / "0.wav", samples=reference(7), rate=RATE)
    enhance("--guidance", "icg", "--guidance_scale", 2)
    assert "done already" not in enhance.said


@pytest.mark.parametrize("reference", [(), ("--reference", "estimated")])
def test_unrelated_references_work_in_parts(enhance, testset, reference):
    flags = ("--guidance", "icg", "--guidance_scale", 2, *reference)
    save(testset / "noisy" / "0.wav", samples=np.random.default_rng(0).standard_normal(4 * RATE) * 0.1, rate=RATE)
    assert np.isfinite(enhance(*flags, "--chunk_s", 2.1, out="parts")["0.wav"]).all()


def test_a_weaker_model_may_be_smaller_and_have_no_encoder(enhance, runs, tmp_path):
    flags = ("--guidance", "auto", "--weak_ckpt", runs["baseline"], "--guidance_scale")
    guided, weak = enhance(*flags, 2), enhance(*flags, 0, out="zero")
    assert run_json(tmp_path / "out")["passes"] == 2
    assert (
        run_json(tmp_path / "out")["weak_sha256"] == Enhancer.from_checkpoint(runs["baseline"], "cpu").checkpoint_sha256
    )
    assert differ(guided, enhance(out="plain"))
    baseline = enhance("--reference", "none", ckpt="baseline", out="baseline")
    assert not differ(weak, baseline)


@pytest.mark.parametrize("ckpt", ["undropped", "baseline"])
def test_autoguidance_needs_neither_a_null_nor_an_encoder(enhance, runs, ckpt):
    assert enhance("--guidance", "auto", "--weak_ckpt", runs["plain"], "--guidance_scale", 2, ckpt=ckpt)


def test_autoguidance_against_the_model_itself_on_the_null_is_classifier_free_guidance(runs):
    model = Enhancer.from_checkpoint(runs["plain"], "cpu")
    with torch.no_grad():
        for name, p in model.backbone.named_parameters():
            if "condition_proj" in name:
                torch.nn.init.normal_(p, std=0.3)

    noisy, given = torch.randn(2, 2048), torch.randn(2, 4000)
    encoded = model.encode_reference(given, noisy.abs().amax(dim=-1))
    settings = GuidanceSettings(guidance_scale=3.0)
    auto, cfg = (
        model.enhance_batch(noisy, reference, gaussian(torch.Generator()), settings).waveform
        for reference in (replace(encoded, worse_network=model.predict), encoded)
    )
    torch.testing.assert_close(auto, cfg, rtol=1e-4, atol=1e-4)
    unguided = model.enhance_batch(noisy, encoded, gaussian(torch.Generator())).waveform
    assert not torch.allclose(cfg, unguided, rtol=1e-2, atol=1e-2)


def test_of_several_channels_the_mean_of_the_scales_in_force_is_on_record(enhance, testset, tmp_path):
    noisy = soundfile.read(testset / "noisy" / "0.wav")[0]
    stereo = np.stack([noisy, 1e-3 * noisy], axis=1)  # beside the soft channel the reference is louder than any known
    save(testset / "noisy" / "0.wav", samples=stereo, rate=RATE)
    enhance("--guidance_scale", "adaptive", "--adaptive_near", 2, ckpt="adaptive")
    assert run_json(tmp_path / "out")["adaptive"]["0.wav"]["guidance_scale"] == 0.75


def test_the_adaptive_scale_is_full_for_familiar_references_and_zero_for_others(enhance, testset, tmp_path):
    tone = np.sin(np.arange(RATE) * 0.4).astype(np.float32)
    save(testset / "ref" / "2.wav", samples=tone, rate=RATE)
    adaptive = enhance("--guidance_scale", "adaptive", "--adaptive_near", 2, ckpt="adaptive")
    assert "guidance scale 0 to 1.5, adaptive" in enhance.said
    told = run_json(tmp_path / "out")
    assert told["guidance_scale"] == "adaptive"
    assert [told["adaptive"][f"{i}.wav"]["guidance_scale"] for i in range(3)] == [1.5, 1.5, 0]
    assert told["adaptive"]["2.wav"]["distance"] > 3
    assert (tmp_path / "out" / "adaptive_guidance.png").stat().st_size > 10000
    plain, null = enhance("--guidance_scale", 1.5, out="plain"), enhance("--guidance_scale", 0, out="null")
    for name, expected in (("0.wav", plain), ("1.wav", plain), ("2.wav", null)):
        np.testing.assert_allclose(adaptive[name], expected[name], atol=1e-4)
    (tmp_path / "out" / "1.wav").unlink()
    enhance("--guidance_scale", "adaptive", "--adaptive_near", 2, ckpt="adaptive")
    assert run_json(tmp_path / "out")["adaptive"] == told["adaptive"], "files done before stay in run.json"


def test_the_interval_saves_passes_and_every_setting_is_in_run_json(enhance, tmp_path):
    flags = ("--guidance_scale", 2, "--guidance_interval", 0.4, 0.8, "--guidance_rescale", 0.7, "--guidance_apg")
    enhance(*flags, "--N", 4)  # asked at t = 1, 0.75, 0.5 and 0.25
    told = run_json(tmp_path / "out")
    assert (told["nfe"], told["passes"]) == (4, 6)
    assert told.keys() >= set(GuidanceSettings.__dataclass_fields__)
    assert (told["guidance_interval"], told["guidance_rescale"], told["guidance_apg"]) == ([0.4, 0.8], 0.7, True)
    assert "from t = 0.4 to 0.8, rescaled by 0.7, projected (APG)" in enhance.said
