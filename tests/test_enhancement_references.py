"""Which noise reference each file is enhanced with, and that it matters."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
from commands import RATE
from small_corpora import samples, save

pytest_plugins = ("enhancing",)
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


def test_the_references_beside_noisy_are_found_and_said(enhance, testset, tmp_path):
    said = enhance(testset)
    assert f"references: disjoint, {testset / 'ref'} (found beside noisy/)" in said
    enhance(testset / "noisy", "--noise_ref_dir", testset / "ref", out="named")
    assert (samples(tmp_path / "out" / "0.wav") == samples(tmp_path / "named" / "0.wav")).all()


def test_the_reference_matters_and_scale_zero_ignores_it(enhance, testset, tmp_path):
    os.rename(testset / "ref", tmp_path / "refs")
    one, other = (("--noise_ref", tmp_path / "refs" / f"{i}.wav") for i in (0, 1))
    enhance(testset, *one, out="one")
    enhance(testset, *other, out="other")
    enhance(testset, *one, "--guidance_scale", 0, out="zero")
    enhance(testset, "--reference", "none", out="none")
    said = enhance(testset, "--reference", "none", "--guidance_scale", 3, out="guided")
    assert "references: none, the null condition" in said
    assert "warning: there is no reference, so --guidance_scale 3 has no effect" in said
    result = {name: samples(tmp_path / name / "2.wav") for name in ("one", "other", "zero", "none")}
    assert (result["zero"] == result["none"]).all()
    assert (result["one"] != result["none"]).any()
    assert (result["one"] != result["other"]).any()


def test_silent_references_of_a_folder_are_counted(enhance, testset):
    save(testset / "ref" / "1.wav", samples=np.zeros(8000), rate=RATE)
    assert "warning: 1 references are silent and became the null condition" in enhance(testset)


def test_oracle_noise_is_the_difference_of_the_files(enhance, testset, tmp_path):
    """The same result comes from the difference given as a reference recording."""
    for i in range(3):
        noisy = samples(testset / "noisy" / f"{i}.wav")
        clean = np.roll(noisy, 7) * np.float32(0.5)
        (tmp_path / "clean").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "clean" / f"{i}.wav", clean, RATE, subtype="FLOAT")
        (tmp_path / "noise").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "noise" / f"{i}.wav", noisy - clean, RATE, subtype="FLOAT")
    said = enhance(testset, "--oracle_noise", "--clean_dir", tmp_path / "clean", out="oracle")
    assert "an upper bound that leaks" in said
    enhance(testset, "--noise_ref_dir", tmp_path / "noise", out="difference")
    assert np.allclose(samples(tmp_path / "oracle" / "0.wav"), samples(tmp_path / "difference" / "0.wav"), atol=1e-6)


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def labelled(testset):
    """The test set with a manifest: two kinds of noise, and a reference of another kind in ref_other_take/."""
    (testset / "manifest.csv").write_text("id,kind,source\n0,dog,a\n1,dog,b\n2,rain,c\n")
    for i in range(3):
        save(testset / "ref_other_take" / f"{i}.flac", samples=samples(testset / "ref" / f"{i}.wav")[:4000], rate=RATE)
    return testset


def test_a_protocol_takes_its_folder_of_the_test_set(enhance, labelled, tmp_path):
    said = enhance(labelled, "--reference", "other_take")
    assert f"references: other_take, {labelled / 'ref_other_take'}" in said
    content = run_json(tmp_path / "out")
    assert content["reference"] == "other_take"
    assert content["reference_dir"] == str(labelled / "ref_other_take")
    assert content["references"]["1.wav"] == str(labelled / "ref_other_take" / "1.flac")
    enhance(labelled, "--noise_ref_dir", labelled / "ref_other_take", out="named")
    assert (samples(tmp_path / "out" / "1.wav") == samples(tmp_path / "named" / "1.wav")).all()


def test_mismatched_references_are_those_of_items_with_another_kind(enhance, labelled, tmp_path):
    enhance(labelled, "--reference", "mismatched")
    references = run_json(tmp_path / "out")["references"]
    assert references["0.wav"] == references["1.wav"] == str(labelled / "ref" / "2.wav")
    assert references["2.wav"] in (str(labelled / "ref" / "0.wav"), str(labelled / "ref" / "1.wav"))
    enhance(labelled, "--noise_ref", labelled / "ref" / "2.wav", out="named")
    assert (samples(tmp_path / "out" / "0.wav") == samples(tmp_path / "named" / "0.wav")).all()
    for seed in (1, 2):  # the seed of sampling changes no pair
        enhance(labelled, "--reference", "mismatched", "--seed", seed, out=f"{seed}")
        assert run_json(tmp_path / f"{seed}")["references"] == references


def test_without_any_reference_one_is_estimated_so_that_guidance_means_something(enhance, testset, tmp_path):
    os.rename(testset / "ref", tmp_path / "refs")
    said = enhance(testset, "--guidance_scale", 3)
    assert "references: estimated from each noisy file alone (the default; choose with --reference)" in said
    assert "estimated from stretches without speech: 3 files, from minima: 0" in said
    content = run_json(tmp_path / "out")
    assert (content["reference"], content["passes"]) == ("estimated", 2)
    assert content["estimated_from"] == {"gaps": 3}
    enhance(testset, "--reference", "none", out="none")
    assert (samples(tmp_path / "out" / "0.wav") != samples(tmp_path / "none" / "0.wav")).any()


def test_the_estimated_reference_is_that_of_the_noisy_file_and_counted_for_all_files(enhance, testset, tmp_path):
    """White noise without speech: all of it."""
    enhance(testset, "--reference", "estimated")
    shutil.copytree(testset / "noisy", tmp_path / "copies")
    enhance(testset, "--noise_ref_dir", tmp_path / "copies", out="named")
    assert (samples(tmp_path / "out" / "0.wav") == samples(tmp_path / "named" / "0.wav")).all()
    (tmp_path / "out" / "1.wav").unlink()
    assert "stretches without speech: 3 files" in enhance(testset, "--reference", "estimated")
    assert run_json(tmp_path / "out")["estimated_from"] == {"gaps": 3}


def test_self_is_what_the_first_pass_took_away_and_counts_both_passes(enhance, testset, tmp_path):
    said = enhance(testset, "--reference", "self", "--guidance_scale", 2, "--sampler", "bridge_sde", "--N", 2)
    assert "nfe 4, passes 6" in said  # 2 without guidance, then 2 with two passes each
    flags = ("--sampler", "bridge_sde", "--N", 2)
    enhance(testset, "--reference", "none", *flags, out="first")
    (tmp_path / "removed").mkdir()
    for i in range(3):
        removed = samples(testset / "noisy" / f"{i}.wav") - samples(tmp_path / "first" / f"{i}.wav")
        soundfile.write(tmp_path / "removed" / f"{i}.wav", removed, RATE, subtype="FLOAT")
    enhance(testset, "--noise_ref_dir", tmp_path / "removed", "--guidance_scale", 2, *flags, out="second")
    assert np.allclose(samples(tmp_path / "out" / "0.wav"), samples(tmp_path / "second" / "0.wav"), atol=1e-4)
    assert run_json(tmp_path / "out")["passes"] == 6


@pytest.mark.parametrize("protocol", ["estimated", "self"])
def test_stereo_and_very_short_files_need_no_reference_recording(enhance, tmp_path, protocol):
    save(
        tmp_path / "noisy" / "stereo.wav", samples=np.random.default_rng(0).standard_normal((4000, 2)) * 0.1, rate=RATE
    )
    save(tmp_path / "noisy" / "short.wav", samples=np.random.default_rng(0).standard_normal(300) * 0.1, rate=RATE)
    save(tmp_path / "noisy" / "silent.wav", samples=np.zeros(4000), rate=RATE)
    said = enhance(tmp_path / "noisy", "--reference", protocol)
    assert "1 references are silent and became the null condition" in said
    for name in ("stereo", "short", "silent"):
        assert np.isfinite(samples(tmp_path / "out" / f"{name}.wav")).all()
    assert not samples(tmp_path / "out" / "silent.wav").any()


def test_a_model_without_encoder_takes_no_reference_and_says_so(enhance, testset, baseline):
    said = enhance(testset, "--reference", "none", ckpt=baseline)
    assert "references: none, the model takes none" in said


def test_a_model_trained_without_dropping_works_with_an_estimate(enhance, testset, tmp_path, undropped):
    os.rename(testset / "ref", tmp_path / "refs")
    assert "references: estimated" in enhance(testset, ckpt=undropped)


def test_oracle_references_of_a_set_have_a_protocol_of_their_own(enhance, testset, tmp_path):
    shutil.copytree(testset / "ref", testset / "ref_oracle")
    enhance(testset, "--reference", "oracle", out="oracle")
    assert json.loads((tmp_path / "oracle" / "run.json").read_text())["reference"] == "oracle"
