"""Guidance from the command line: other references, a weaker model, the adaptive scale, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import RATE, altered, call, refusal, saved_run
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


# ---- what it does ----


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


@pytest.mark.parametrize("reference", [(), ("--reference", "estimated")])
def test_unrelated_references_work_in_batches_and_in_parts(enhance, testset, reference):
    flags = ("--guidance", "icg", "--guidance_scale", 2, *reference)
    alone, batched = enhance(*flags), enhance(*flags, "--batch_size", 3, out="batched")
    for name in alone:
        np.testing.assert_allclose(alone[name], batched[name], atol=1e-3)
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


def test_distances_of_files_done_before_stay_in_run_json(enhance, tmp_path):
    enhance("--guidance_scale", "adaptive", ckpt="adaptive")
    before = run_json(tmp_path / "out")["adaptive"]
    (tmp_path / "out" / "1.wav").unlink()
    enhance("--guidance_scale", "adaptive", ckpt="adaptive")
    assert run_json(tmp_path / "out")["adaptive"] == before


def test_the_interval_saves_passes_and_every_setting_is_in_run_json(enhance, tmp_path):
    flags = ("--guidance_scale", 2, "--guidance_interval", 0.4, 0.8, "--guidance_rescale", 0.7, "--guidance_apg")
    enhance(*flags, "--N", 4)  # asked at t = 1, 0.75, 0.5 and 0.25
    told = run_json(tmp_path / "out")
    assert (told["nfe"], told["passes"]) == (4, 6)
    assert told.keys() >= set(GuidanceSettings.__dataclass_fields__)
    assert (told["guidance_interval"], told["guidance_rescale"], told["guidance_apg"]) == ([0.4, 0.8], 0.7, True)
    assert "from t = 0.4 to 0.8, rescaled by 0.7, projected (APG)" in enhance.said


# ---- what is refused ----


@pytest.fixture
def refuses(tmp_path, capsys, runs, testset):
    """The sentence with which enhancement refuses; nothing may be written."""

    def refuse(*arguments: object, ckpt: str = "plain") -> str:
        flags = ("--ckpt", runs[ckpt], "--test_dir", testset, "--enhanced_dir", tmp_path / "out")
        sentence = refusal(enhancement.main, capsys, *flags, *arguments)
        assert not (tmp_path / "out").exists()
        return sentence

    return refuse


@pytest.mark.parametrize("scale", ["nan", ".nan", "inf", "1e999", "strong", "Adaptive", "1,5"])
def test_a_scale_that_is_no_number_is_refused(refuses, scale):
    assert "a finite number is needed, or the word adaptive" in refuses("--guidance_scale", scale)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--guidance other", "--guidance other: one of cfg, icg, auto is needed"),
        ("--guidance_interval 0.2 0.6", "--guidance_interval has no effect at w = 1"),
        ("--guidance icg", "--guidance has no effect at w = 1"),
        ("--guidance_scale 2 --guidance_interval 0.6 0.2", "the lower one first"),
        ("--guidance_scale 2 --guidance_interval 0.01 0.6", "between t_eps = 0.03 and 1"),
        ("--guidance_scale 2 --guidance_interval 0.2 1.5", "between t_eps = 0.03 and 1"),
        ("--guidance_scale 2 --guidance_interval 0.2", "needs two diffusion times"),
        ("--guidance_scale 2 --guidance_interval .nan 0.5", "--guidance_interval .nan: a finite number is needed"),
        ("--guidance_scale 2 --guidance_rescale 1.5", "--guidance_rescale 1.5 is out of range"),
        ("--guidance_rescale 0.5", "acts where w is above 1 only; give a larger --guidance_scale"),
        ("--guidance_apg --guidance_scale 0.5", "acts where w is above 1 only; give a larger --guidance_scale"),
        ("--guidance_scale 2 --guidance auto", "give --weak_ckpt"),
        ("--guidance_scale 2 --guidance auto --weak_ckpt missing.ckpt", "no such checkpoint"),
        ("--guidance_scale 2 --weak_ckpt x.ckpt", "add --guidance auto"),
        ("--guidance_scale adaptive --guidance icg", "which --guidance icg does not use"),
        ("--guidance_scale adaptive", "holds no statistics of its training references"),
        ("--guidance_scale adaptive --adaptive_near 3", "must be less than --adaptive_far 3"),
        ("--guidance_scale 2 --adaptive_full 3", "--adaptive_full serves --guidance_scale adaptive only"),
        ("--guidance_scale 2 --guidance icg --reference self", "use --reference estimated"),
        ("--guidance_scale 2 --guidance icg --noise_ref REF", "there is only one"),
    ],
)
def test_guidance_that_cannot_be_met_is_refused(refuses, testset, flags, sentence):
    assert sentence in refuses(*flags.replace("REF", str(testset / "ref" / "0.wav")).split())


@pytest.mark.parametrize("scale", [0, 3, "adaptive"])
def test_a_model_trained_without_dropping_refuses_the_null_and_says_what_works(refuses, scale):
    refused = refuses("--guidance_scale", scale, ckpt="undropped")
    assert "null condition is untrained; leave --guidance_scale out, use --guidance icg or auto" in refused


@pytest.mark.parametrize("how", [("--guidance", "icg"), ()])
def test_a_model_without_encoder_refuses_all_but_autoguidance(refuses, how):
    refused = refuses("--guidance_scale", 2, *how, "--reference", "none", ckpt="baseline")
    assert "has no noise encoder" in refused
    assert "use --guidance auto" in refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_fft": 126, "hop_length": 32}, "has n_fft 126, the guided model 510"),
        ({"sample_rate": 8000}, "has sample_rate 8000, the guided model 16000"),
        ({"sde": "ouve"}, "was trained with OUVE("),
        ({"k": 2.0}, "was trained with SBVE("),
        ({"ch_mult": [1, 1, 1]}, "needs a multiple of 4 frames, the guided model one of 2"),
    ],
)
def test_a_weaker_model_of_another_shape_is_refused(refuses, tmp_path, settings, sentence):
    weak = saved_run(tmp_path / "logs" / "weak", **settings)
    refused = refuses("--guidance", "auto", "--guidance_scale", 2, "--weak_ckpt", weak)
    assert refused.startswith(f"--weak_ckpt {weak}: ")
    assert sentence in refused
