"""The command that makes test sets: what it refuses, in one sentence and before anything is written."""

import make_testset
import numpy as np
import pytest
from commands import call, refusal
from noise_classes import RATE, command, write_corpus
from small_corpora import save

from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_finished_set_is_left_alone_and_a_foreign_folder_refused(corpus, tmp_path, capsys):
    out = tmp_path / "set"
    call(make_testset.main, capsys, *command(corpus, out, "--num", 3))
    before = (out / "set.json").stat().st_mtime_ns
    assert "was there already" in call(make_testset.main, capsys, *command(corpus, out, "--num", 3))
    assert (out / "set.json").stat().st_mtime_ns == before
    sentence = refusal(make_testset.main, capsys, *command(corpus, out, "--num", 3, "--seed", 1))
    assert "exists and is not this test set" in sentence


def test_noise_that_was_trained_on_is_refused_by_content(corpus, tmp_path, capsys):
    twin = tmp_path / "elsewhere/renamed.wav"
    twin.parent.mkdir()
    twin.write_bytes((corpus / "noise/dog/dog1.wav").read_bytes())
    clip = manifest.measure([manifest.Entry(twin, ("x",), "other", "train")], tmp_path)[0]
    file = manifest.write(tmp_path / "corpus", [clip])
    out = tmp_path / "set"
    sentence = refusal(make_testset.main, capsys, *command(corpus, out, "--train_manifest", file), strict=False)
    assert "dog1.wav: was trained on (a file of the same content), one of 1 among the 9 noise files" in sentence
    assert not out.with_name("set.incomplete").exists()
    call(make_testset.main, capsys, *command(corpus, out, "--train_manifest", file, "--classes", "rain", "siren"))


def test_noise_of_a_trained_source_is_refused_and_the_test_split_is_not(corpus, tmp_path, capsys):
    def clips(split):
        return [
            Clip(path, path.parent.name, "recording-" + path.stem[-1], split, RATE, 3.0, sha256=f"{split}{i}")
            for i, path in enumerate(sorted((corpus / "noise").rglob("*1.wav")))
        ]

    noise_dir = tmp_path / "prepared"
    manifest.write(noise_dir, clips("test"))
    words = command(corpus, tmp_path / "set", "--num", 2)
    words[words.index("--noise_dir") + 1] = str(noise_dir)
    seen = [
        Clip(tmp_path / "gone.wav", "dog", "recording-1", "train", RATE, 3.0, "0" * 64),
    ]
    file = manifest.write(tmp_path / "trained", seen)
    assert "the same source recording recording-1" in refusal(
        make_testset.main, capsys, *words, "--train_manifest", file, strict=False
    )
    call(make_testset.main, capsys, *words, "--train_manifest", noise_dir / "manifest.csv")


def test_speech_of_a_run_is_refused_and_its_validation_speech_warned_of(corpus, tmp_path, capsys):
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech/train").symlink_to(corpus / "speech")
    other = save(tmp_path / "noise/train/n.wav", 2.0, rate=RATE)
    config = tmp_path / "config.yaml"
    config.write_text(f"speech_dir: [{tmp_path / 'speech'}]\nnoise_dir: [{other.parent.parent}]\nbase_dir: null\n")
    words = command(corpus, tmp_path / "set", "--num", 3, "--train_manifest", config)
    assert "s0.flac: was trained on (the same file), one of 6 among the 6 speech files" in refusal(
        make_testset.main, capsys, *words, strict=False
    )
    # so it is where an earlier sitting of the run, or the run that its first weights come from, heard it
    later = tmp_path / "later"
    for earlier in ("config.1.yaml", "config.yaml"):
        origin = later / "origin" / "checkpoints" / "last.ckpt"
        place = later if earlier == "config.1.yaml" else origin.parent.parent
        place.mkdir(parents=True, exist_ok=True)
        (place / earlier).write_text(config.read_text())
        text = f"speech_dir: [{other.parent.parent}]\nnoise_dir: [{other.parent.parent}]\nbase_dir: null\n"
        (later / "config.yaml").write_text(text + (f"init_ckpt: {origin}\n" if place != later else ""))
        sitting = command(corpus, tmp_path / "set", "--num", 3, "--train_manifest", later / "config.yaml")
        assert "s0.flac: was trained on" in refusal(make_testset.main, capsys, *sitting, strict=False)
        (place / earlier).unlink()
    (tmp_path / "speech/train").rename(tmp_path / "speech/valid")
    save(tmp_path / "speech/train/other.wav", 1.0)
    assert "6 of 6 speech files served validation" in call(make_testset.main, capsys, *words)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (("--snr", "loud"), "--snr loud"),
        (("--snr", "nan"), "--snr nan"),
        (("--snr", "0", "500"), "--snr"),
        (("--classes", "cat"), "--classes cat: * dog, rain, siren"),
        (("--folds", "1"), "--folds 1"),
        (("--split", "valid"), "--split valid: * train"),
        (("--reference_s", "2", "1"), "--reference_s"),
        (("--reference_s", "9", "9"), "too short for a reference of 9 s"),
        (("--num", "0"), "--num 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--train_manifest", "nowhere.csv"), "nowhere.csv"),
        (("--colour", "red"), "--colour"),
        (("--noise_dir", "empty"), "empty: holds no file"),
        (("--speech_dir", "pairs"), "--speech_dir pairs"),
        (("nonstationary", "--classes", "dog"), "all clips are of 'dog'"),
    ],
)
def test_a_wrong_argument_is_refused_and_named(corpus, tmp_path, capsys, monkeypatch, words, culprit):
    for folder in ("empty", "pairs/clean", "pairs/noisy"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    name, *words = words if words[0] == "nonstationary" else ("ood", *words)
    sentence = refusal(make_testset.main, capsys, *command(corpus, "set", *words, name=name))
    assert all(piece.strip() in sentence for piece in culprit.split("*"))
    assert not list(tmp_path.glob("set*"))


def test_silent_noise_is_one_sentence_and_leaves_no_set(corpus, tmp_path, capsys):
    save(tmp_path / "noise/dog/a.wav", samples=np.zeros(3 * RATE))
    words = command(corpus, tmp_path / "set")
    words[words.index("--noise_dir") + 1] = str(tmp_path / "noise")
    sentence = refusal(make_testset.main, capsys, *words, strict=False)
    assert "leaves no sounding reference of 0.25 s" in sentence
    assert not (tmp_path / "set").exists()
