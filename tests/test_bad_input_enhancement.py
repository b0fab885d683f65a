"""A mistake in what enhancement is given gives one sentence on stderr and exit code 2, before anything is written."""

import os

import pytest
import torch
from commands import RATE, SECOND, altered, broken, refusal, saved_run
from small_corpora import save

from sgmse.commands import enhance as enhancement


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture(scope="session")
def undropped(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "undropped", cond_drop_prob=0.0)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "baseline", encoder="none")


@pytest.fixture
def noisy(tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "noisy" / name, samples=SECOND[:4000], rate=RATE)
    return tmp_path / "noisy"


@pytest.fixture
def refuses(tmp_path, capsys, ckpt, noisy):
    """The sentence with which enhancement refuses `noisy`; no output may be there afterwards."""

    def refuse(*arguments: object, ckpt: object = ckpt) -> str:
        out = () if "--enhanced_dir" in arguments else ("--enhanced_dir", tmp_path / "out")
        before = sorted(tmp_path.rglob("*"))
        test_dir = () if "--test_dir" in arguments else ("--test_dir", noisy)
        sentence = refusal(enhancement.main, capsys, "--ckpt", ckpt, *test_dir, *out, *arguments)
        assert sorted(tmp_path.rglob("*")) == before
        return sentence

    return refuse


# ---- flags and checkpoints ----


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--guidance_scale nan", "--guidance_scale nan: a finite number is needed"),
        ("--guidence_scale 2", "did you mean --guidance_scale?"),
        ("--guidance_scal 2", "did you mean --guidance_scale?"),
        ("--N 0", "use 1 or more"),
        ("--N 1.5", "--N 1.5: a whole number is needed"),
        ("--sampler pc", "does not fit the model's diffusion process; use bridge_ode, bridge_ode2 or bridge_sde"),
        ("--snr 0.4", "--snr has no meaning for the sampler bridge_ode"),
        ("--t_eps 0.1", "--t_eps has no meaning for the sampler bridge_ode"),
        ("--seed -1", "out of range"),
        ("--noise_ref a --noise_ref_dir b", "--noise_ref and --noise_ref_dir each choose the reference"),
        ("--reference self --noise_ref a", "--reference and --noise_ref each choose the reference"),
        (
            "--reference blind",
            "--reference blind: one of disjoint, same_class, other_take, mismatched, oracle, estimated, self",
        ),
        ("--oracle_noise", "give --clean_dir"),
        ("--clean_dir x", "add --oracle_noise"),
        ("--noise_ref missing.wav", "missing.wav: no such file"),
        ("--noise_ref_dir missing", "missing: no such folder"),
        ("--noise_ref .", "use --noise_ref_dir"),
        ("--test_dir missing", "missing: no such folder"),
    ],
)
def test_flags_that_cannot_be_met_are_refused(refuses, flags, sentence):
    assert sentence in refuses(*flags.split())


@pytest.mark.parametrize("flag", ["--ckpt", "--enhanced_dir", "--noise_ref", "--test_dir"])
def test_an_empty_flag_of_enhancement_is_not_taken_for_the_default(refuses, flag):
    assert f"{flag} is empty" in refuses(flag, "")


def test_a_file_that_is_no_fitting_checkpoint_is_refused(refuses, ckpt, tmp_path):
    settings = torch.load(ckpt, weights_only=True)["model_settings"]
    other = altered(ckpt, tmp_path / "other.ckpt", model_settings={**settings, "nf": 8})
    (tmp_path / "text.ckpt").write_text("x")
    (tmp_path / "half.ckpt").write_bytes(ckpt.read_bytes()[:5000])
    assert "other.ckpt: does not fit the model" in refuses(ckpt=other)
    for path in (tmp_path / "text.ckpt", tmp_path / "half.ckpt"):
        assert f"{path}: is no checkpoint" in refuses(ckpt=path)
    assert f"{tmp_path}: is a folder" in refuses(ckpt=tmp_path)
    assert "no such checkpoint" in refuses(ckpt=tmp_path / "missing.ckpt")


def test_a_model_trained_without_dropping_has_no_null_to_guide_against_or_fall_back_on(refuses, undropped, tmp_path):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    refused = refuses("--noise_ref", reference, "--guidance_scale", 3, ckpt=undropped)
    assert "null condition is untrained; leave --guidance_scale out" in refused
    for protocol in ("none", "self"):
        assert "null condition is untrained; give a reference" in refuses("--reference", protocol, ckpt=undropped)


def test_the_baseline_takes_neither_reference_nor_guidance(refuses, baseline, tmp_path):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    for flags in (("--noise_ref", reference), ("--guidance_scale", 2), ("--reference", "estimated")):
        assert "has no noise encoder" in refuses(*flags, ckpt=baseline)


# ---- files ----


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("empty", "is empty (0 bytes)"),
        ("text", "is not a readable audio file"),
        ("truncated", "is truncated"),
        ("nan", "holds NaN"),
        ("100", "is shorter than one frame"),
    ],
)
def test_one_broken_file_is_refused_before_the_first_is_enhanced(refuses, noisy, how, sentence):
    path = broken(noisy / "z.wav", how)
    refused = refuses()
    assert refused.startswith(f"{path}: ")
    assert sentence in refused


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("empty", "is empty (0 bytes)"),
        ("text", "is not a readable audio file"),
        ("truncated", "is truncated"),
        ("nan", "holds NaN"),
        ("100", "is shorter than one frame"),
        ("silent", "is silent, so it tells nothing of the noise"),
    ],
)
def test_an_unusable_reference_is_refused_before_the_first_file(refuses, tmp_path, how, sentence):
    path = broken(tmp_path / "reference.wav", how)
    refused = refuses("--noise_ref", path)
    assert refused.startswith(f"{path}: ")
    assert sentence in refused


def test_every_noisy_file_needs_exactly_one_reference(refuses, tmp_path):
    for name in ("a.wav", "x/b.wav"):
        save(tmp_path / "refs" / name, rate=RATE)
    save(tmp_path / "refs" / "y" / "b.flac", rate=RATE)
    assert "could be its partner" in refuses("--noise_ref_dir", tmp_path / "refs")
    (tmp_path / "refs" / "x" / "b.wav").unlink()
    (tmp_path / "refs" / "y" / "b.flac").unlink()
    assert "1 of 2 noisy files have no partner there" in refuses("--noise_ref_dir", tmp_path / "refs")


@pytest.mark.parametrize(
    ("protocol", "manifest", "sentence"),
    [
        ("other_take", "", "set: holds no ref_other_take for --reference other_take; choose another --reference"),
        ("same_class", "", "set: holds no ref_same_class/"),
        ("mismatched", "id,noise\na,x\nb,y\n", "manifest.csv: every row needs an id and a kind"),
        ("mismatched", "id,kind\na,dog\n", "manifest.csv: has no row whose id is b"),
        (
            "mismatched",
            "id,kind\na,dog\nb,dog\n",
            "2 of 2 files have no other item with noise of another kind, first a",
        ),
        ("same_class", "id,kind,source\na,dog,x\nb,dog,x\n", "no other item with noise of the same kind from another"),
    ],
)
def test_a_protocol_that_the_test_set_cannot_serve_is_refused(refuses, tmp_path, protocol, manifest, sentence):
    for folder in ("noisy", "ref"):
        for name in ("a.wav", "b.wav"):
            save(tmp_path / "set" / folder / name, rate=RATE)
    if manifest:
        (tmp_path / "set" / "manifest.csv").write_text(manifest)
    assert sentence in refuses("--reference", protocol, "--test_dir", tmp_path / "set")


def test_references_of_a_test_set_need_a_test_set(refuses, tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "flat" / name, rate=RATE)
    assert "is no test set" in refuses("--reference", "disjoint", "--test_dir", tmp_path / "flat")


def test_oracle_noise_needs_clean_files_that_agree(refuses, noisy, tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "clean" / name, samples=SECOND[:4001], rate=RATE)
    assert "a pair must agree" in refuses("--oracle_noise", "--clean_dir", tmp_path / "clean")
    assert "is the folder of the noisy files" in refuses("--oracle_noise", "--clean_dir", noisy)


def test_an_empty_folder_is_refused(refuses, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "holds no file ending in .wav" in refuses("--test_dir", tmp_path / "nothing")


@pytest.mark.parametrize("out", ["file", "file/out", "/proc/out"])
def test_an_output_folder_that_cannot_be_written_is_refused(refuses, tmp_path, out):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refuses("--enhanced_dir", tmp_path / out)


@pytest.mark.parametrize("out", ["noisy", "noisy/", "noisy/out", "other/../noisy", "link", "refs", "refs/out"])
def test_results_never_fall_among_the_inputs(refuses, tmp_path, out):
    """Equal folders would overwrite the recordings; a folder inside would enhance the results at the next run."""
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "refs" / name, rate=RATE)
    (tmp_path / "other").mkdir()
    os.symlink(tmp_path / "noisy", tmp_path / "link")
    refused = refuses("--noise_ref_dir", tmp_path / "refs", "--enhanced_dir", f"{tmp_path}/{out}")
    assert "choose another --enhanced_dir" in refused


def test_a_reference_among_earlier_results_is_not_overwritten(refuses, tmp_path):
    reference = save(tmp_path / "out" / "a.wav", rate=RATE)
    (tmp_path / "out" / "run.json").write_text('{"files": {}}')
    assert "would fall among the input files" in refuses("--noise_ref", reference)


def test_files_of_somebody_else_are_never_overwritten(refuses, tmp_path):
    clean = save(tmp_path / "clean" / "b.wav", rate=RATE)
    content = clean.read_bytes()
    assert "was not made by this command" in refuses("--enhanced_dir", tmp_path / "clean")
    assert clean.read_bytes() == content


@pytest.mark.parametrize("content", ["{", "[1]", '{"x": 1}'])
def test_a_damaged_ledger_is_refused(refuses, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    assert "run.json: is damaged" in refuses()
