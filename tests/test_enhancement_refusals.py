"""A mistake in what enhancement is given is one sentence that names it, before anything is written; exit code 2."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import RATE, SECOND, altered, broken, call, refusal, saved_run
from small_corpora import save

from sgmse.commands import enhance as enhancement

pytest_plugins = ("enhancing",)


@pytest.fixture
def noisy(tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "noisy" / name, samples=SECOND[:4000], rate=RATE)
    return tmp_path / "noisy"


@pytest.fixture
def refuses(tmp_path, capsys, ckpt, noisy):
    """The sentence with which enhancement refuses `noisy`; nothing may be written."""

    def refuse(*arguments: object, ckpt: object = ckpt) -> str:
        flags = ["--ckpt", ckpt]
        flags += [] if "--test_dir" in arguments else ["--test_dir", noisy]
        flags += [] if "--enhanced_dir" in arguments else ["--enhanced_dir", tmp_path / "out"]
        before = sorted(tmp_path.rglob("*"))
        sentence = refusal(enhancement.main, capsys, *flags, *arguments)
        assert sorted(tmp_path.rglob("*")) == before
        return sentence

    return refuse


FLAGS = """
--guidence_scale 2                                  did you mean --guidance_scale
--guidance_scal 2                                   did you mean --guidance_scale
--N 0                                               --N and --corrector_steps count steps
--N 1.5                                             --N 1.5
--seed -1                                           --seed -1
--sampler pc                                        use bridge_ode, bridge_ode2 or bridge_sde
--snr 0.4                                           --snr has no meaning
--t_eps 0.1                                         --t_eps has no meaning
--batch_size 0                                      --batch_size 0
--batch_size -3                                     --batch_size -3
--chunk_s -1                                        --chunk_s -1
--chunk_s nan                                       --chunk_s nan
--chunk_s 4 --overlap_s 4                           --overlap_s 4 must be less than --chunk_s 4
--chunk_s 1.5                                       --chunk_s 1.5 is shorter than the 2.04 s
--overlap_s 0                                       --overlap_s 0
--num_samples 0                                     --num_samples 0
--num_samples 2                                     the sampler bridge_ode with N = 1 draws no noise
--num_samples 2 --sampler bridge_sde --N 1          draws no noise
--channels left                                     --channels left
--shard 4/3                                         --shard 4/3
--shard 0/3                                         --shard 0/3
--shard 1/0                                         --shard 1/0
--shard 1.5/3                                       --shard 1.5/3
--shard 1/3/5                                       --shard 1/3/5
--shard abc                                         --shard abc
--noise_ref a --noise_ref_dir b                     --noise_ref and --noise_ref_dir
--reference self --noise_ref a                      --reference and --noise_ref
--reference blind                                   --reference blind
--oracle_noise                                      --clean_dir
--clean_dir x                                       --oracle_noise
--noise_ref missing.wav                             missing.wav: no such file
--noise_ref_dir missing                             missing: no such folder
--noise_ref .                                       use --noise_ref_dir
--test_dir missing                                  missing: no such folder
--reference disjoint                                holds no ref for --reference disjoint
--guidance_scale nan                                --guidance_scale nan
--guidance_scale inf                                --guidance_scale inf
--guidance_scale 1e999                              --guidance_scale
--guidance_scale Adaptive                           --guidance_scale Adaptive
--guidance_scale 1,5                                --guidance_scale 1,5
--guidance other                                    --guidance other
--guidance_interval 0.2 0.6                         --guidance_interval acts where w is above 1
--guidance icg                                      --guidance has no effect at w = 1
--guidance_scale 2 --guidance_interval 0.6 0.2      the lower one first
--guidance_scale 2 --guidance_interval 0.01 0.6     between t_eps = 0.03 and 1
--guidance_scale 2 --guidance_interval 0.2 1.5      between t_eps = 0.03 and 1
--guidance_scale 2 --guidance_interval 0.2          needs two diffusion times
--guidance_scale 2 --guidance_interval .nan 0.5     --guidance_interval .nan
--guidance_scale 2 --guidance_rescale 1.5           --guidance_rescale 1.5
--guidance_rescale 0.5                              larger --guidance_scale
--guidance_apg --guidance_scale 0.5                 larger --guidance_scale
--guidance_scale 2 --guidance auto                  --weak_ckpt
--guidance_scale 2 --guidance auto --weak_ckpt missing.ckpt    missing.ckpt: no such checkpoint
--guidance_scale 2 --weak_ckpt x.ckpt               --guidance auto
--guidance_scale adaptive --guidance icg            --guidance icg
--guidance_scale adaptive                           no statistics of its training references
--guidance_scale adaptive --adaptive_near 3         --adaptive_far 3
--guidance_scale 2 --adaptive_full 3                --adaptive_full
--guidance_scale 2 --guidance icg --reference self  --reference estimated
"""


@pytest.mark.parametrize(("flags", "culprit"), [re.split(r"  +", line) for line in FLAGS.strip().splitlines()])
def test_flags_that_cannot_be_met_are_refused(refuses, flags, culprit):
    assert culprit in refuses(*flags.split())


@pytest.mark.parametrize("flag", ["--ckpt", "--enhanced_dir", "--noise_ref", "--test_dir"])
def test_an_empty_flag_is_not_taken_for_the_default(refuses, flag):
    assert f"{flag} is empty" in refuses(flag, "")


# ---- checkpoints ----


def test_a_file_that_is_no_fitting_checkpoint_is_refused(refuses, ckpt, tmp_path):
    settings = torch.load(ckpt, weights_only=True)["model_settings"]
    other = altered(ckpt, tmp_path / "other.ckpt", model_settings={**settings, "nf": 8})
    (tmp_path / "text.ckpt").write_text("x")
    (tmp_path / "half.ckpt").write_bytes(ckpt.read_bytes()[:5000])
    for path in (other, tmp_path / "text.ckpt", tmp_path / "half.ckpt", tmp_path, tmp_path / "missing.ckpt"):
        assert str(path) in refuses(ckpt=path)


@pytest.mark.parametrize("scale", [0, 3, "adaptive"])
def test_a_model_trained_without_dropping_has_no_null_to_guide_against(refuses, undropped, tmp_path, scale):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    refused = refuses("--noise_ref", reference, "--guidance_scale", scale, ckpt=undropped)
    assert "use --guidance icg or auto" in refused


@pytest.mark.parametrize("protocol", ["none", "self"])
def test_a_model_trained_without_dropping_has_no_null_to_fall_back_on(refuses, undropped, protocol):
    assert "null condition is untrained; give a reference" in refuses("--reference", protocol, ckpt=undropped)


@pytest.mark.parametrize(
    "flags", ["--noise_ref REF", "--reference estimated", "--guidance_scale 2", "--guidance_scale 2 --guidance icg"]
)
def test_a_model_without_encoder_takes_neither_reference_nor_guidance(refuses, baseline, tmp_path, flags):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    assert "has no noise encoder" in refuses(*flags.replace("REF", str(reference)).split(), ckpt=baseline)


def test_guidance_against_the_reference_of_another_file_needs_another_one(refuses, tmp_path):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    flags = ("--guidance_scale", 2, "--guidance", "icg", "--noise_ref", reference)
    assert "only one" in refuses(*flags)


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"n_fft": 126, "hop_length": 32}, "has n_fft 126, the guided model 510"),
        ({"sample_rate": 8000}, "has sample_rate 8000, the guided model 16000"),
        ({"sde": "ouve"}, "was trained with OUVE("),
        ({"k": 2.0}, "was trained with SBVE("),
        ({"ch_mult": [1, 1, 1]}, "needs a multiple of 4 frames, the guided model one of 2"),
        ({"objective": "predictive"}, "knows the last diffusion time alone"),
    ],
)
def test_a_weaker_model_of_another_shape_is_refused(refuses, tmp_path, settings, culprit):
    weak = saved_run(tmp_path / "logs" / "weak", **settings)
    refused = refuses("--guidance", "auto", "--guidance_scale", 2, "--weak_ckpt", weak)
    assert f"--weak_ckpt {weak}: {culprit}" in refused


# ---- files ----

BROKEN = {
    "empty": "is empty",
    "text": "is not a readable audio file",
    "truncated": "is truncated",
    "nan": "holds NaN",
    "100": "is shorter than one frame",
}


@pytest.mark.parametrize(("how", "sentence"), BROKEN.items())
def test_a_broken_file_is_named_and_the_others_are_enhanced(tmp_path, capsys, ckpt, noisy, how, sentence):
    path = broken(noisy / "z.wav", how)
    flags = ("--ckpt", ckpt, "--test_dir", noisy, "--enhanced_dir", tmp_path / "out")
    for _ in range(2):
        refused = refusal(enhancement.main, capsys, *flags, strict=False)
        assert f"{path}: {sentence}" in refused
        assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == ["a.wav", "b.wav"]
    save(path, rate=RATE, samples=SECOND[:4000])
    assert "2 files are done already" in call(enhancement.main, capsys, *flags)


def test_audio_in_a_foreign_format_and_names_of_other_bytes_are_named_and_the_others_enhanced(
    tmp_path, capsys, ckpt, noisy
):
    (noisy / "phone.m4a").write_bytes(b"x")
    (noisy / "gone.wav").symlink_to(tmp_path / "missing.wav")
    Path(os.fsdecode(os.fsencode(noisy) + b"/caf\xe9.wav")).touch()
    flags = ("--ckpt", ckpt, "--test_dir", noisy, "--enhanced_dir", tmp_path / "out")
    refused = refusal(enhancement.main, capsys, *flags, strict=False)
    assert "3 cannot be used" in refused
    assert all(word in refused for word in ("phone.m4a", "gone.wav: is no such file", "caf\\xe9.wav"))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == ["a.wav", "b.wav"]


def test_where_no_file_can_be_used_nothing_is_written(refuses, noisy):
    for name, how in (("a.wav", "text"), ("b.wav", "nan")):
        broken(noisy / name, how)
    assert refuses().startswith("2 files cannot be used: ")


def test_no_file_may_be_broken_where_references_of_others_are_taken(refuses, noisy):
    broken(noisy / "z.wav", "text")
    assert "z.wav: is not a readable" in refuses("--guidance_scale", 2, "--guidance", "icg")


@pytest.mark.parametrize(("how", "sentence"), (BROKEN | {"silent": "is silent"}).items())
def test_an_unusable_reference_is_refused_before_the_first_file(refuses, tmp_path, how, sentence):
    path = broken(tmp_path / "reference.wav", how)
    assert f"{path}: {sentence}" in refuses("--noise_ref", path)


def test_all_files_that_cannot_be_used_are_named(refuses, noisy, tmp_path):
    for name, how in (("x.wav", "text"), ("y.wav", "nan"), ("z.flac", "truncated"), ("reference.wav", "silent")):
        broken((tmp_path if name == "reference.wav" else noisy) / name, how)
    sentence = refuses("--noise_ref", tmp_path / "reference.wav")
    assert sentence.startswith("4 files cannot be used: ")
    assert all(name in sentence for name in ("x.wav", "y.wav", "z.flac", "reference.wav"))


def test_a_damaged_end_of_a_long_file_is_found_before_the_work(refuses, noisy):
    (noisy / "b.wav").unlink()
    values = np.tile(SECOND, 5)
    values[-1] = np.nan
    soundfile.write(noisy / "a.wav", values, RATE, subtype="FLOAT")
    assert "a.wav: holds NaN" in refuses("--chunk_s", 2.5)


def test_every_noisy_file_needs_exactly_one_reference(refuses, tmp_path):
    for name in ("a.wav", "x/b.wav", "y/b.flac"):
        save(tmp_path / "refs" / name, rate=RATE)
    assert "b.flac could be its partner" in refuses("--noise_ref_dir", tmp_path / "refs")
    for name in ("x/b.wav", "y/b.flac"):
        (tmp_path / "refs" / name).unlink()
    assert "1 of 2 noisy files have no partner there" in refuses("--noise_ref_dir", tmp_path / "refs")


@pytest.mark.parametrize(
    ("protocol", "manifest", "culprit"),
    [
        ("other_take", "", "set: holds no ref_other_take for --reference other_take"),
        ("same_class", "", "set: holds no ref_same_class/"),
        ("mismatched", "id,noise\na,x\nb,y\n", "manifest.csv: every row needs an id and a kind"),
        ("mismatched", "id,kind\na,dog\n", "manifest.csv: has no row whose id is b"),
        ("mismatched", "id,kind\na,dog\nb,dog\n", "another kind, first a"),
        ("same_class", "id,kind,source\na,dog,x\nb,dog,x\n", "the same kind from another"),
    ],
)
def test_a_protocol_that_the_test_set_cannot_serve_is_refused(refuses, tmp_path, protocol, manifest, culprit):
    for folder in ("noisy", "ref"):
        for name in ("a.wav", "b.wav"):
            save(tmp_path / "set" / folder / name, rate=RATE)
    if manifest:
        (tmp_path / "set" / "manifest.csv").write_text(manifest)
    assert culprit in refuses("--reference", protocol, "--test_dir", tmp_path / "set")


def test_oracle_noise_needs_clean_files_that_agree(refuses, noisy, tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / "clean" / name, samples=SECOND[:4001], rate=RATE)
    assert "a pair must agree" in refuses("--oracle_noise", "--clean_dir", tmp_path / "clean")
    assert "is the folder of the noisy files" in refuses("--oracle_noise", "--clean_dir", noisy)


def test_an_empty_folder_is_refused(refuses, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "nothing: holds no file ending in .wav" in refuses("--test_dir", tmp_path / "nothing")


# ---- the output folder ----


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
def test_a_damaged_record_is_refused(refuses, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    assert "run.json: is damaged" in refuses()
