"""Files in, enhanced files out: formats are kept, work is never done twice, everything is said."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile
from commands import altered, call, saved_run
from small_corpora import save

import enhancement_noise_cond as enhancement
from sgmse.enhancement import Runner
from sgmse.errors import run

RATE = 16000
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture
def testset(tmp_path):
    """set/{noisy,ref}: three short files each."""
    for i in range(3):
        save(tmp_path / "set" / "noisy" / f"{i}.wav", 0.3, RATE)
        save(tmp_path / "set" / "ref" / f"{i}.wav", 0.5, RATE)
    return tmp_path / "set"


@pytest.fixture
def enhance(tmp_path, capsys, ckpt):
    """Enhance into tmp_path/out; returns what was said."""

    def enhanced(test_dir, *arguments: object, ckpt: object = ckpt, out: str = "out") -> str:
        flags = ("--ckpt", ckpt, "--test_dir", test_dir, "--enhanced_dir", tmp_path / out)
        return call(enhancement.main, capsys, *flags, *arguments)

    return enhanced


def samples(path):
    return soundfile.read(path, dtype="float32")[0]


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".json"}


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("stereo48.wav", 48000, 2, "PCM_24"),
        ("float.wav", 22050, 3, "FLOAT"),
        ("telephone.wav", 8000, 1, "ULAW"),
        ("nested/deep/a.flac", 44100, 1, "PCM_16"),
        ("b.ogg", 44100, 2, "VORBIS"),
        ("c.mp3", 44100, 1, "MPEG_LAYER_III"),
    ],
)
def test_name_rate_channels_length_and_format_are_kept(enhance, tmp_path, name, rate, channels, subtype):
    path = tmp_path / "noisy" / name
    path.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).standard_normal((rate * 3 // 10 + 1, channels)) * 0.05
    soundfile.write(path, noise, rate, subtype=subtype)
    enhance(tmp_path / "noisy")
    before, after = soundfile.info(path), soundfile.info(tmp_path / "out" / name)
    assert (after.samplerate, after.channels, after.subtype) == (rate, channels, subtype)
    assert after.frames == before.frames
    result = samples(tmp_path / "out" / name)
    assert np.isfinite(result).all()
    assert np.abs(result).max() > 0


def test_silence_is_enhanced_without_complaint(enhance, tmp_path):
    save(tmp_path / "noisy" / "silent.wav", samples=np.zeros(4000), rate=RATE)
    enhance(tmp_path / "noisy")
    assert np.isfinite(samples(tmp_path / "out" / "silent.wav")).all()


def test_a_rerun_does_nothing_and_an_interrupted_one_goes_on(enhance, testset, tmp_path):
    enhance(testset)
    first = times(tmp_path / "out")
    said = enhance(testset)
    assert "3 files are done already" in said
    assert times(tmp_path / "out") == first
    (tmp_path / "out" / "1.wav").unlink()
    assert "2 files are done already" in enhance(testset)
    again = times(tmp_path / "out")
    assert {name for name in first if again[name] != first[name]} == {"1.wav"}


def test_stopping_in_the_middle_loses_only_the_file_at_work(enhance, testset, tmp_path, monkeypatch, capsys, ckpt):
    work = Runner._enhance
    done = []

    def stopped(self, job):
        if done:
            raise KeyboardInterrupt
        done.append(job)
        return work(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_enhance", stopped)
        flags = [f"--ckpt={ckpt}", f"--test_dir={testset}", f"--enhanced_dir={tmp_path / 'out'}"]
        patch.setattr(sys, "argv", ["x", *flags])
        with pytest.raises(SystemExit) as stop:
            run(enhancement.main)
    assert stop.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    assert set(times(tmp_path / "out")) == {"0.wav"}
    assert "1 files are done already" in enhance(testset)
    assert set(times(tmp_path / "out")) == {"0.wav", "1.wav", "2.wav"}


def test_a_first_run_stopped_before_its_first_entry_can_be_repeated(enhance, testset, tmp_path, monkeypatch):
    """The result is written before its entry in run.json: without one it is done again, not refused."""
    with monkeypatch.context() as patch:
        patch.setattr("sgmse.ledger.Ledger.add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enhance(testset)
    assert (tmp_path / "out" / "0.wav").exists()
    enhance(testset)
    assert len(times(tmp_path / "out")) == 3


@pytest.mark.parametrize("change", [("--guidance_scale", 2), ("--seed", 1), ("--N", 2), ("--sampler", "bridge_sde")])
def test_another_setting_does_all_files_again(enhance, testset, tmp_path, change):
    enhance(testset)
    first = times(tmp_path / "out")
    said = enhance(testset, *change)
    assert f"all files are done again: {change[0].removeprefix('--')} changed" in said
    assert all(time != first[name] for name, time in times(tmp_path / "out").items())


def test_a_changed_reference_does_its_file_again(enhance, testset, tmp_path):
    enhance(testset)
    first = times(tmp_path / "out")
    save(testset / "ref" / "2.wav", 0.7, RATE)
    enhance(testset)
    again = times(tmp_path / "out")
    assert {name for name in first if again[name] != first[name]} == {"2.wav"}


def test_a_moved_checkpoint_is_the_same_checkpoint(enhance, testset, tmp_path, ckpt):
    enhance(testset)
    (tmp_path / "moved.ckpt").write_bytes(ckpt.read_bytes())
    assert "3 files are done already" in enhance(testset, ckpt=tmp_path / "moved.ckpt")


def test_run_json_keeps_every_setting_also_when_nothing_is_left_to_do(enhance, testset, tmp_path):
    enhance(testset, "--guidance_scale", 2)
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (content["guidance_scale"], content["nfe"], content["passes"]) == (2, 1, 2)
    assert (content["reference"], content["sampler"], content["seed"]) == ("disjoint", "bridge_ode", 0)
    assert content["averaged_weights"]
    assert len(content["files"]) == 3
    enhance(testset, "--guidance_scale", 2)
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == content


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
    result = {name: samples(tmp_path / name / "2.wav") for name in ("one", "other", "zero", "none")}
    assert (result["zero"] == result["none"]).all()
    assert (result["one"] != result["none"]).any()
    assert (result["one"] != result["other"]).any()


def test_guidance_without_a_reference_warns_that_it_has_no_effect(enhance, testset):
    said = enhance(testset, "--reference", "none", "--guidance_scale", 3)
    assert "warning: there is no reference, so --guidance_scale 3 has no effect" in said
    assert "references: none, the null condition" in said


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


def test_the_result_of_a_file_does_not_depend_on_the_others(enhance, testset, tmp_path):
    enhance(testset, "--sampler", "bridge_sde", "--N", 2)
    (testset / "noisy" / "0.wav").unlink()
    enhance(testset, "--sampler", "bridge_sde", "--N", 2, out="fewer")
    assert (samples(tmp_path / "out" / "2.wav") == samples(tmp_path / "fewer" / "2.wav")).all()


def test_averaged_weights_are_used_where_there_are_any(enhance, testset, tmp_path, ckpt):
    enhance(testset)
    said = enhance(testset, ckpt=altered(ckpt, tmp_path / "raw.ckpt", average=None), out="raw")
    assert "warning: the checkpoint holds no averaged weights; the raw ones are used" in said
    assert (samples(tmp_path / "out" / "0.wav") != samples(tmp_path / "raw" / "0.wav")).any()


def test_every_file_draws_its_own_noise_from_the_seed_and_its_name(enhance, testset, tmp_path):
    (testset / "noisy" / "1.wav").write_bytes((testset / "noisy" / "0.wav").read_bytes())
    (testset / "ref" / "1.wav").write_bytes((testset / "ref" / "0.wav").read_bytes())
    flags = ("--sampler", "bridge_sde", "--N", 2)
    for out, seed in (("out", 0), ("again", 0), ("other", 1)):
        enhance(testset, *flags, "--seed", seed, out=out)
    first, again, other = (samples(tmp_path / out / "0.wav") for out in ("out", "again", "other"))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != samples(tmp_path / "out" / "1.wav")).any()


def test_the_newest_checkpoint_is_taken_best_pesq_first_and_said(tmp_path, testset, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved_run(tmp_path / "logs" / "20250101-000000_a")
    newest = saved_run(tmp_path / "logs" / "20250102-000000_b")
    newest.with_name("best_pesq.ckpt").write_bytes(newest.read_bytes())
    said = call(enhancement.main, capsys, "--test_dir", testset)
    assert "checkpoint: logs/20250102-000000_b/checkpoints/best_pesq.ckpt (the newest; choose with --ckpt)" in said
    assert set(times(tmp_path / "enhanced" / "20250102-000000_b")) == {"0.wav", "1.wav", "2.wav"}


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


def test_pairs_do_not_change_with_the_seed_of_sampling(enhance, labelled, tmp_path):
    for seed in range(3):
        enhance(labelled, "--reference", "mismatched", "--seed", seed, out=f"{seed}")
    zero, one, two = (run_json(tmp_path / f"{seed}")["references"] for seed in range(3))
    assert zero == one == two


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


def test_the_estimated_reference_is_that_of_the_noisy_file(enhance, testset, tmp_path):
    """White noise without speech: all of it."""
    enhance(testset, "--reference", "estimated")
    enhance(testset, "--noise_ref_dir", testset / "noisy", out="named")
    assert (samples(tmp_path / "out" / "0.wav") == samples(tmp_path / "named" / "0.wav")).all()


def test_an_interrupted_run_counts_the_estimates_of_all_files(enhance, testset, tmp_path):
    enhance(testset, "--reference", "estimated")
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
    assert ("1 references are silent and became the null condition" in said) == (protocol == "estimated")
    for name in ("stereo", "short", "silent"):
        assert np.isfinite(samples(tmp_path / "out" / f"{name}.wav")).all()


def test_a_model_without_encoder_takes_no_reference_and_says_so(enhance, testset, tmp_path):
    baseline = saved_run(tmp_path / "logs" / "baseline", encoder="none")
    said = enhance(testset, "--reference", "none", ckpt=baseline)
    assert "references: none, the model takes none" in said


def test_a_model_trained_without_dropping_works_with_an_estimate(enhance, testset, tmp_path):
    os.rename(testset / "ref", tmp_path / "refs")
    undropped = saved_run(tmp_path / "logs" / "undropped", cond_drop_prob=0.0)
    assert "references: estimated" in enhance(testset, ckpt=undropped)
