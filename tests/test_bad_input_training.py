"""A mistake in what training is given gives one sentence on stderr and exit code 2, before anything is written."""

import shlex

import numpy as np
import pytest
from commands import RATE, TINY, altered, broken, call, refusal, saved_run
from golden_numbers import GOLDEN
from small_corpora import save

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.settings import cli
from sgmse.settings.config import TRAIN_GROUPS


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture
def train_refuses(tmp_path, capsys, monkeypatch):
    """The sentence with which train.py refuses; no folder of a run may be there afterwards."""
    monkeypatch.chdir(tmp_path)

    def refuses(*arguments: object) -> str:
        sentence = refusal(train.main, capsys, *TINY, *arguments)
        assert not list(tmp_path.rglob("checkpoints"))
        return sentence

    return refuses


def pairs(folder):
    for split in ("train", "valid"):
        for i in range(2):
            for kind in ("clean", "noisy"):
                noise = np.random.default_rng((i, kind == "noisy")).standard_normal(2 * RATE) * 0.1
                save(folder / split / kind / f"{i}.wav", samples=noise, rate=RATE)
    return folder


# ---- settings ----

IMPOSSIBLE = [
    ("--batchsize 3", "--batchsize: no such setting; did you mean --batch_size?"),
    ("stray", "stray: belongs to no flag"),
    ("--lr abc", "--lr abc: a finite number is needed"),
    ("--lr nan", "--lr nan: a finite number is needed"),
    ("--lr -1", "--lr -1.0 is out of range; use more than 0"),
    ("--batch_size 0", "--batch_size 0 is out of range; use 1 or more"),
    ("--batch_size 1.5", "--batch_size 1.5: a whole number is needed"),
    ("--encoder foo", "one of none, cnn, "),
    ("--seed -1", "--seed -1 is out of range; use 0 or more and at most 4294967295"),
    ("--N -1", "use 1 or more"),
    ("--num_frames 1", "--num_frames 1 is out of range"),
    ("--num_frames 2", "--num_frames 2 is shorter than one STFT window; use 3 or more"),
    ("--num_frames 22 --pesq_weight 1", "crops are too short for the PESQ loss; use 23 or more"),
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
    ("--snr 0.3", "--snr belongs to --sampler pc"),
    ("--nolog --logger wandb", "--nolog turns logging off"),
    ("--wandb_name x", "--wandb_name has no meaning for --logger csv"),
    ("--encoder none --mismatched_share 0.5", "so --mismatched_share has no meaning"),
    ("--sigma_data 0.5", "--sigma_data has no meaning"),
    ("--speech_dir s", "needs both --speech_dir and --noise_dir"),
    ("--base_dir b --speech_dir s", "give one kind"),
    ("--base_dir missing", "missing: no such folder"),
    ("--speech_dir missing --noise_dir n", "missing: no such folder"),
    ("--ckpt missing.ckpt", "missing.ckpt: no such checkpoint"),
    ("--config missing.yaml", "missing.yaml: no such file"),
    ("--log_dir file", "cannot be written"),
    ("--log_dir file/logs", "cannot be written"),
    ("--log_dir /proc/logs", "cannot be written"),
    # `--ckpt "$CKPT"` with the variable unset must not start something else
    ("--log_dir ''", "--log_dir is empty"),
    ("--base_dir ''", "--base_dir is empty"),
    ("--base_dir null", "--base_dir null: is no value"),
    ("--no-compile=true", "--no-compile=true: takes no value"),
    ("--ckpt ''", "--ckpt is empty"),
]


@pytest.mark.parametrize(("flags", "sentence"), IMPOSSIBLE)
def test_impossible_settings_are_refused(train_refuses, tmp_path, flags, sentence):
    (tmp_path / "file").write_text("")
    assert sentence in train_refuses(*shlex.split(flags))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batchsize: 3", "no such setting: batchsize; did you mean batch_size?"),
        ("config: other.yaml", "no such setting: config"),
        ("nf: many", "--nf many: a whole number is needed"),
        ("seed: null", "seed None: a whole number is needed"),
        ("compile: maybe", "compile maybe: true or false is needed"),
        ("lr: {a: 1}", "a finite number is needed"),
        ("lr: .inf", "--lr .inf"),
        ("lr: -1", "--lr -1"),
        ("seed: 010", "--seed 010"),
        ("lr: 1e-4\nlr: 1e-3", "lr stands twice"),
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


def test_a_file_is_read_as_the_command_line_is(tmp_path):
    """A number where text is meant is that text as it is written, and a whole number may be written `1e3`."""
    path = tmp_path / "settings.yaml"
    path.write_text("precision: 32\nc_in: 1\nmax_steps: 1e3\nwandb_name: 007\nwandb_tags: [1.50, yes]\ncompile: yes\n")
    words = "--precision 32 --c_in 1 --max_steps 1e3 --wandb_name 007 --wandb_tags 1.50 yes --compile".split()
    parser = cli.make_parser(TRAIN_GROUPS, "")
    in_file = cli.parse(parser, ["--config", str(path)])[-1].values
    assert in_file == cli.parse(parser, words)[-1].values
    chosen = [in_file[name] for name in ("precision", "c_in", "max_steps", "wandb_name", "wandb_tags", "compile")]
    assert chosen == ["32", "1", 1000, "007", ["1.50", "yes"], True]


@pytest.mark.parametrize("words", ["--max_steps 010", "--lr .inf", "--lr 1e400", "--seed 1.5", "--lr", "--no-lr"])
def test_a_word_that_is_no_value_of_its_flag_is_refused(words):
    with pytest.raises(UserError, match=words.split()[0]):
        cli.parse(cli.make_parser(TRAIN_GROUPS, ""), words.split())


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
    # also of files that validation enhances and of which its loss, of one crop, sees nothing
    refused = train_refuses("--base_dir", "corpus", "--num_eval_files", 2, "--num_valid_items", 1)
    assert refused.startswith("corpus/valid/noisy/1.wav: ")
    assert sentence in refused


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


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--nf 8 --max_steps 9", "was trained with nf 4, not 8"),
        ("--log_dir x", "--log_dir has no meaning"),
        ("", "has done 4 of 4 steps"),
        # with a YAML file, too, the model is the run's: the only complaint is about the steps
        ("--config lr.yaml", "has done 4 of 4 steps"),
    ],
)
def test_a_run_is_resumed_with_its_settings_and_only_where_something_is_left(
    capsys, ckpt, tmp_path, monkeypatch, flags, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr.yaml").write_text("lr: 0.002\n")
    assert sentence in refusal(train.main, capsys, "--ckpt", ckpt, *flags.split())


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
