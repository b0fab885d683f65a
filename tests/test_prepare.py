"""Facts about the command scripts/prepare.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import published_layouts
import pytest
from commands import call, refusal

from sgmse.data.corpora import clips, split_files, voicebank
from sgmse.data.corpora.noise import NOISE_CORPORA
from sgmse.evaluation import scores as evaluation

SCRIPT = Path(__file__).parent.parent / "scripts" / "prepare.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_and_test_sets_read_what_was_prepared(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = published_layouts.esc50(tmp_path / "esc"), tmp_path / "out"
    said = call(script.main, capsys, "esc50", "--source", source, "--out", out, "--classes", "dog", "--folds", 1, 4)
    assert said == (
        f"{out}/manifest.csv: 2 train, 2 valid clips, 1 classes, 2 recordings, 0.0 h at 44.1 kHz; "
        f"train with --noise_dir {out}\n"
    )
    assert [info.path.parent for info in split_files([out], "train", "noise")] == 2 * [source / "audio"]
    assert {clip.kind for clip in clips(out)} == {"dog"}
    assert [path.name for path in out.iterdir()] == ["manifest.csv"]


def test_voicebank_becomes_a_base_dir(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voicebank, "PAIRS", {"train": 8, "test": 6})
    source = published_layouts.voicebank(tmp_path / "vb")
    said = call(script.main, capsys, "voicebank", "--source", source, "--out", tmp_path / "out")
    assert said == f"{tmp_path}/out: 4 train, 4 valid, 6 test; train with --base_dir {tmp_path}/out\n"


@pytest.mark.parametrize(("pesq", "passes"), [(1.964, True), (1.976, True), (1.95, False), (float("nan"), False)])
def test_the_check_demands_the_published_pesq(
    script: ModuleType,
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
        assert f"unprocessed test set: {pesq:.3f}" in call(script.main, capsys, *arguments, "--check")
    else:
        with pytest.raises(script.UserError, match=rf"score PESQ {pesq:.3f} instead of 1\.97"):
            call(script.main, capsys, *arguments, "--check")


def test_mistakes_are_told_in_one_line(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = published_layouts.esc50(tmp_path / "esc")
    out = tmp_path / "out"
    for arguments, message in (
        (("esc50", "--source", source, "--out", out, "--classes", "cat"), "--classes cat: no such class"),
        (("esc50", "--source", source, "--out", out, "--folds", 9), "--folds 9: no such fold"),
        (("wham", "--source", source, "--out", out), "is not laid out as WHAM! noise: expected tr, cv, tt; found"),
        (("audioset", "--out", out), "AudioSet cannot be downloaded from here"),
        (("voicebank", "--out", out, "--sample_rate", 16), "--sample_rate 16: must lie between"),
        (("esc50", "--source", source, "--out", source / "meta/esc50.csv"), "is a file, but a folder is needed"),
    ):
        assert message in refusal(script.main, capsys, *arguments)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("esc51", "--out", "x"), "NAME: invalid choice: 'esc51'"),
        (("esc50",), "the following arguments are required: --out"),
        (("esc50", "--out", "x", "--folds", "one"), "--folds: invalid int value: 'one'"),
        (("voicebank", "--out", "x", "--folds", "1"), "unrecognized arguments: --folds 1"),
    ],
)
def test_a_wrong_argument_is_one_sentence(script, capsys, arguments, told) -> None:
    assert told in refusal(script.main, capsys, *arguments)


def test_the_help_of_every_corpus_says_where_it_comes_from(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, corpus in NOISE_CORPORA.items():
        with pytest.raises(SystemExit):
            call(script.main, capsys, name, "--help")
        text = " ".join(capsys.readouterr().out.split())
        assert corpus.page in text
        assert corpus.licence in text
