"""Facts about the command scripts/prepare.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import prepare
import published_layouts
import pytest
from commands import call, refusal

from sgmse.common.errors import UserError
from sgmse.data.corpora import clips, split_files, voicebank
from sgmse.data.corpora.published import NOISE_CORPORA
from sgmse.evaluation import scores as evaluation


def test_training_and_test_sets_read_what_was_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = published_layouts.esc50(tmp_path / "esc"), tmp_path / "out"
    printed = call(prepare.main, capsys, "esc50", "--source", source, "--out", out, "--classes", "dog", "--folds", 1, 4)
    assert printed.splitlines() == [
        f"{out}/manifest.csv: 2 train, 2 valid clips, 1 classes, 2 recordings, 0.0 h at 44.1 kHz",
        f"next: python scripts/doctor.py --speech_dir SPEECH --noise_dir {out}",
        f"next: python train.py --speech_dir SPEECH --noise_dir {out}",
    ]
    assert [info.path.parent for info in split_files([out], "train", "noise")] == 2 * [source / "audio"]
    assert {clip.kind for clip in clips(out)} == {"dog"}
    assert [path.name for path in out.iterdir()] == ["manifest.csv"]


def test_voicebank_becomes_a_base_dir(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voicebank, "PAIRS", {"train": 8, "test": 6})
    source = published_layouts.voicebank(tmp_path / "vb")
    printed = call(prepare.main, capsys, "voicebank", "--source", source, "--out", tmp_path / "out")
    out = tmp_path / "out"
    assert printed.splitlines() == [
        f"{out}: 4 train, 4 valid, 6 test",
        f"next: python scripts/doctor.py --data {out}",
        f"next: python train.py --base_dir {out}",
    ]


@pytest.mark.parametrize(("pesq", "passes"), [(1.964, True), (1.976, True), (1.95, False), (float("nan"), False)])
def test_the_check_demands_the_published_pesq(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pesq: float,
    passes: bool,
) -> None:
    monkeypatch.setattr(voicebank, "PAIRS", {"train": 8, "test": 6})
    frame = pd.DataFrame({"system": "noisy", "pesq": [pesq - 0.5, pesq + 0.5]})
    monkeypatch.setattr(evaluation, "evaluate", lambda clean, systems, noisy: frame)
    arguments = ["voicebank", "--source", published_layouts.voicebank(tmp_path / "vb"), "--out", tmp_path / "out"]
    if passes:
        assert f"unprocessed test set: {pesq:.3f}" in call(prepare.main, capsys, *arguments, "--check")
    else:
        with pytest.raises(UserError, match=rf"score PESQ {pesq:.3f} instead of 1\.97"):
            call(prepare.main, capsys, *arguments, "--check")


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ("esc50 --source ESC --out out --classes cat", "--classes cat"),
        ("esc50 --source ESC --out out --folds 9", "--folds 9"),
        ("wham --source ESC --out out", "is not laid out as WHAM! noise: expected tr, cv, tt"),
        ("audioset --out out", "AudioSet cannot be downloaded from here"),
        ("voicebank --out out --sample_rate 16", "--sample_rate 16"),
        ("esc50 --source ESC --out ESC/meta/esc50.csv", "is a file, but a folder is needed"),
        ("esc51 --out out", "esc51"),
        ("esc50", "--out"),
        ("esc50 --out out --folds one", "--folds one"),
        ("voicebank --out out --folds 1", "--folds"),
        ("esc50 --out out --check", "--check"),
        ("esc50 --source ESC --out set", "set/manifest.csv"),
    ],
)
def test_a_mistake_is_refused_and_its_culprit_named(tmp_path, monkeypatch, capsys, words, culprit) -> None:
    published_layouts.esc50(tmp_path / "ESC")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.csv").write_text("id,kind\na,rain\n")
    monkeypatch.chdir(tmp_path)
    assert culprit in refusal(prepare.main, capsys, *words.split())
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "set" / "manifest.csv").read_text() == "id,kind\na,rain\n"


def test_the_help_says_where_every_corpus_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(prepare.main, capsys, "--help")
    text = " ".join(capsys.readouterr().out.split())
    for corpus in NOISE_CORPORA.values():
        assert corpus.page in text
        assert corpus.licence in text
