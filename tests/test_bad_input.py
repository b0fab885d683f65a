"""A mistake gives one sentence on stderr and exit code 2, before anything is written."""

import os

import numpy as np
import pytest
import soundfile
import torch
from commands import TINY, altered, call, refusal, saved_run
from conftest import GOLDEN
from small_corpora import save

import enhancement_noise_cond as enhancement
import train

RATE = 16000
SECOND = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1


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
def train_refuses(tmp_path, capsys, monkeypatch):
    """The sentence with which train.py refuses; no folder of a run may be there afterwards."""
    monkeypatch.chdir(tmp_path)

    def refuses(*arguments: object) -> str:
        sentence = refusal(train.main, capsys, *TINY, *arguments)
        assert not list(tmp_path.rglob("checkpoints"))
        return sentence

    return refuses


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


def pairs(folder):
    for split in ("train", "valid"):
        for i in range(2):
            for kind in ("clean", "noisy"):
                noise = np.random.default_rng((i, kind == "noisy")).standard_normal(2 * RATE) * 0.1
                save(folder / split / kind / f"{i}.wav", samples=noise, rate=RATE)
    return folder


def broken(path, how):
    """Put a broken file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not audio")
    elif how == "truncated":
        save(path, samples=SECOND, rate=RATE)
        path.write_bytes(path.read_bytes()[:20000])
    elif how == "nan":
        soundfile.write(path, np.full(RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    elif how == "silent":
        save(path, samples=np.zeros(RATE), rate=RATE)
    else:
        save(path, samples=SECOND[: int(how)], rate=RATE)
    return path


# ---- settings ----

IMPOSSIBLE = [
    ("--batchsize 3", "--batchsize: no such setting; did you mean --batch_size?"),
    ("stray", "stray: belongs to no flag"),
    ("--lr abc", "--lr abc: a finite number is needed"),
    ("--lr nan", "--lr nan: a finite number is needed"),
    ("--lr -1", "--lr -1.0 is out of range; use more than 0"),
    ("--batch_size 0", "--batch_size 0 is out of range; use 1 or more"),
    ("--batch_size 1.5", "--batch_size 1.5: a whole number is needed"),
    ("--encoder foo", "--encoder foo: one of none, cnn is needed"),
    ("--seed -1", "--seed -1 is out of range; use 0 or more and at most 4294967295"),
    ("--N -1", "use 1 or more"),
    ("--num_frames 1", "--num_frames 1 is out of range"),
    ("--num_frames 2", "--num_frames 2 is shorter than one STFT window; use 3 or more"),
    ("--mix_snr_db 5", "--mix_snr_db 5.0 is out of range; use two values, the lower one first"),
    ("--mix_snr_db 10 -5", "two values, the lower one first"),
    ("--reference_s 2 1", "two values, the lower one first, each more than 0"),
    ("--val_every_n_steps 0", "--val_every_n_steps 0 is out of range"),
    ("--hop_length 0", "--hop_length 0 is out of range"),
    ("--hop_length 400", "leaves gaps"),
    ("--sde ouve --sigma_min 0.6", "must be less than --sigma_max"),
    ("--ema_decay 1", "less than 1"),
    ("--encoder none --cond_drop_prob 0.1", "--encoder none takes no reference, so --cond_drop_prob has no meaning"),
    ("--sde sbve --theta 2", "--theta belongs to --sde ouve"),
    ("--sde ouve --l1_weight 1", "--l1_weight belongs to --objective data_prediction"),
    ("--sampler pc", "does not fit the model's diffusion process"),
    ("--snr 0.3", "--snr has no meaning for the sampler bridge_ode"),
    ("--nolog --logger wandb", "--nolog turns logging off"),
    ("--wandb_name x", "--wandb_name has no meaning for --logger csv"),
    ("--speech_dir s", "needs both --speech_dir and --noise_dir"),
    ("--base_dir b --speech_dir s", "give one kind"),
    ("--base_dir missing", "missing/train/clean: no such folder"),
    ("--speech_dir missing --noise_dir n", "missing: no such folder (for speech)"),
    ("--ckpt missing.ckpt", "missing.ckpt: no such checkpoint"),
    ("--config missing.yaml", "missing.yaml: no such file"),
]


@pytest.mark.parametrize(("flags", "sentence"), IMPOSSIBLE)
def test_impossible_settings_are_refused(train_refuses, flags, sentence):
    assert sentence in train_refuses("--log_dir", "logs", *flags.split())


@pytest.mark.parametrize("flag", ["--log_dir", "--base_dir", "--ckpt"])
def test_an_empty_value_is_not_taken_for_the_default(train_refuses, flag):
    """`--ckpt "$CKPT"` with the variable unset must not start something else."""
    assert f"{flag} is empty" in train_refuses(flag, "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batchsize: 3", "no such setting: batchsize; did you mean batch_size?"),
        ("config: other.yaml", "no such setting: config"),
        ("nf: many", "--nf many: a whole number is needed"),
        ("seed: null", "seed None: a whole number is needed"),
        ("compile: maybe", "compile maybe: true or false is needed"),
        ("lr: {a: 1}", "a finite number is needed"),
        ("a: [b\n: }", "is no valid YAML (line 2"),
        ("- a", "holds no settings"),
        ("encoder: none\ncond_drop_prob: 0.1", "--encoder none takes no reference"),
    ],
)
def test_a_bad_yaml_file_is_refused_by_name(train_refuses, tmp_path, text, sentence):
    (tmp_path / "bad.yaml").write_text(text)
    refused = train_refuses("--config", "bad.yaml")
    assert refused.startswith("bad.yaml: ")
    assert sentence in refused


def test_a_file_need_not_fit_what_later_flags_change(tmp_path, monkeypatch, capsys):
    """`l1_weight` of the preset means nothing to another process: no contradiction, nobody typed both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("sde: sbve\nl1_weight: 0.1\nbackbone: ncsnpp_v2\nbase_dir: missing\n")
    data = [f"--{kind}_dir={tmp_path / kind}" for kind in ("speech", "noise")]
    for kind in ("speech", "noise"):
        for split in ("train", "valid"):
            save(tmp_path / kind / split / "x.wav", seconds=4.0, rate=RATE)
    said = call(train.main, capsys, "--config", "base.yaml", *TINY, *data, "--sde", "ouve", "--num_eval_files", "0")
    assert "stopped at step 1" in said
    assert "mixed with noise" in said  # the flags replace the corpus of the file


@pytest.mark.parametrize("log_dir", ["file", "file/logs", "/proc/logs"])
def test_a_log_folder_that_cannot_be_written_is_refused(train_refuses, tmp_path, log_dir):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in train_refuses("--log_dir", log_dir)


# ---- training data ----


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("empty", "is empty (0 bytes)"),
        ("text", "is not a readable audio file"),
        ("truncated", "is truncated"),
        ("nan", "holds NaN"),
        ("8000", "a pair must have one length"),
    ],
)
def test_a_broken_training_file_is_refused_before_training(train_refuses, tmp_path, how, sentence):
    broken(pairs(tmp_path / "corpus") / "valid" / "noisy" / "1.wav", how)
    if how == "nan":
        broken(tmp_path / "corpus" / "valid" / "clean" / "1.wav", str(RATE))
    refused = train_refuses("--base_dir", "corpus", "--num_eval_files", 2)
    assert refused.startswith("corpus/valid/noisy/1.wav: ")
    assert sentence in refused


@pytest.mark.parametrize("name", ["0.wav", "1.wav"])
def test_files_that_only_validation_enhances_are_tried_too(train_refuses, tmp_path, name):
    """One crop for the validation loss sees one of the two files only."""
    broken(pairs(tmp_path / "corpus") / "valid" / "noisy" / name, "nan")
    broken(tmp_path / "corpus" / "valid" / "clean" / name, str(RATE))
    flags = ("--num_eval_files", 2, "--num_valid_items", 1, "--encoder", "none")
    assert f"valid/noisy/{name}: holds NaN" in train_refuses("--base_dir", "corpus", *flags)


def test_pairs_without_partner_are_refused(train_refuses, tmp_path):
    (pairs(tmp_path / "corpus") / "train" / "noisy" / "1.wav").rename(tmp_path / "corpus/train/noisy/x.wav")
    assert "corpus/train/clean/1.wav: has no partner" in train_refuses("--base_dir", "corpus")


def test_a_corpus_whose_references_are_all_silent_is_refused(train_refuses, tmp_path):
    folder = pairs(tmp_path / "corpus")
    for path in folder.glob("*/clean/*.wav"):
        path.write_bytes((path.parent.parent / "noisy" / path.name).read_bytes())
    assert "100.0% of the references are silent" in train_refuses("--base_dir", "corpus")


@pytest.mark.parametrize("encoder", ["cnn", "none"])
def test_silent_speech_is_refused_before_training(train_refuses, tmp_path, encoder):
    for name in ("noise/train/x.wav", "noise/valid/x.wav", "speech/valid/x.wav"):
        save(tmp_path / name, seconds=4.0, rate=RATE)
    broken(tmp_path / "speech" / "train" / "x.wav", "silent")
    refused = train_refuses("--speech_dir", "speech", "--noise_dir", "noise", "--encoder", encoder)
    assert "speech/train/x.wav: is silent" in refused


# ---- resuming ----


def test_resuming_refuses_another_model_and_another_folder(capsys, ckpt):
    size = TINY[TINY.index("--num_frames") :]
    assert "was trained with nf 4, not 8" in refusal(train.main, capsys, "--ckpt", ckpt, "--nf", 8, "--max_steps", 9)
    assert "--log_dir has no meaning" in refusal(train.main, capsys, "--ckpt", ckpt, *size, "--log_dir", "x")


def test_resuming_a_finished_run_says_so(capsys, ckpt):
    assert "has done 4 of 4 steps" in refusal(train.main, capsys, "--ckpt", ckpt)


def test_resuming_keeps_the_settings_of_the_run_under_a_further_config(capsys, ckpt, tmp_path):
    """With a YAML file, too, the model is the run's: only then is the next complaint about the steps."""
    (tmp_path / "lr.yaml").write_text("lr: 0.002\n")
    assert "has done 4 of 4" in refusal(train.main, capsys, "--ckpt", ckpt, "--config", tmp_path / "lr.yaml")


def test_what_is_no_checkpoint_of_training_cannot_be_resumed(capsys, ckpt, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    published = GOLDEN / "official_ncsnpp_v2_sbve.ckpt"
    without_average = altered(ckpt, folder / "raw.ckpt", average=None)
    for path in (published, without_average, altered(ckpt, folder / "old.ckpt", model_settings=None)):
        assert "checkpoints of train.py only" in refusal(train.main, capsys, "--ckpt", path)
    (folder / "text.ckpt").write_text("x")
    assert "is no checkpoint" in refusal(train.main, capsys, "--ckpt", folder / "text.ckpt")
    lonely = altered(ckpt, folder / "lonely.ckpt")
    assert "the folder of the run must be whole" in refusal(train.main, capsys, "--ckpt", lonely)


# ---- enhancement: flags and checkpoints ----


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--guidance_scale nan", "--guidance_scale nan: a finite number is needed"),
        ("--guidence_scale 2", "did you mean --guidance_scale?"),
        ("--guidance 2", "did you mean --guidance_scale?"),
        ("--N 0", "use 1 or more"),
        ("--N 1.5", "--N 1.5: a whole number is needed"),
        ("--sampler pc", "does not fit the model's diffusion process; use bridge_ode or bridge_sde"),
        ("--snr 0.4", "--snr has no meaning for the sampler bridge_ode"),
        ("--t_eps 0.1", "--t_eps has no meaning for the sampler bridge_ode"),
        ("--seed -1", "out of range"),
        ("--noise_ref a --noise_ref_dir b", "--noise_ref and --noise_ref_dir each choose the reference"),
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
    assert "null condition is untrained; give a reference" in refuses(ckpt=undropped)


def test_the_baseline_takes_neither_reference_nor_guidance(refuses, baseline, tmp_path):
    reference = save(tmp_path / "ref.wav", rate=RATE)
    for flags in (("--noise_ref", reference), ("--guidance_scale", 2)):
        assert "has no noise encoder" in refuses(*flags, ckpt=baseline)


# ---- enhancement: files ----


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
