"""Test sets in which the noise is one other talker and the reference another utterance of that talker."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import make_testset
import numpy as np
import pytest
from commands import call, refusal
from noise_classes import RATE
from small_corpora import save

from sgmse.data import audio, corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import rms
from sgmse.data.noise.talkers import talker
from sgmse.data.references import leak
from sgmse.data.testsets import build
from sgmse.data.testsets.build import read_rows


def speech(folder: Path, talkers: int, files: int) -> Path:
    rng = np.random.default_rng(0)
    for t in range(talkers):
        for n in range(files):
            samples = 0.1 * rng.standard_normal(RATE + RATE // 4 * n)
            save(folder / f"p{t}_{n:02d}.wav", rate=RATE, samples=samples)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talkers")
    corpus = speech(folder / "speech", talkers=3, files=4)
    arguments = ["talkers", "--speech_dir", corpus, "--noise_dir", corpus, "--sample_rate", RATE, "--num", 12]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_testset.py", *map(str, [*arguments, "--out", folder / "one", "--jobs", 1])])
        make_testset.main()
    return folder


def test_speech_noise_and_references_are_of_the_talkers_that_the_protocols_name(made):
    rows = {row["id"]: row for row in read_rows(made / "one")}
    for row in rows.values():
        assert talker(Path(row["speech_file"])) != row["kind"]
        assert row["ref_source"] != row["source"]
        assert talker(Path(row["ref_source"])) == talker(Path(row["source"])) == row["kind"]
        other = rows[row["same_class_from"]]
        assert other["kind"] == row["kind"]
        assert other["ref_source"] != row["source"]
        assert rows[row["mismatched_from"]]["kind"] != row["kind"]
    assert Counter(row["snr_db"] for row in rows.values()) == {"0": 4, "5": 4, "10": 4}
    assert {row["kind"] for row in rows.values()} == {"p0", "p1", "p2"}


def test_every_utterance_is_a_recording_of_its_own_whatever_a_manifest_calls_its_source(tmp_path):
    corpus = speech(tmp_path / "speech", talkers=2, files=2)
    clips = [Clip(clip.path, "speech", "session 1", "test", RATE, 1.0) for clip in corpora.clips(corpus)]
    manifest.write(corpus, clips)
    settings = argparse.Namespace(name="talkers", classes=None, folds=None, split=None)
    found = make_testset.choose_clips(settings, corpus)
    assert [(clip.kind, clip.source) for clip in found] == [(f"p{t}", f"p{t}_{n:02d}") for t in (0, 1) for n in (0, 1)]


def test_offsets_lead_back_to_both_files(made):
    for row in read_rows(made / "one"):
        for name, source, column in (("ref", "ref_source", "ref_start"), ("noise", "source", "noise_start")):
            written = audio.read(made / "one" / name / f"{row['id']}.flac", RATE)[: RATE // 5]
            there = audio.read(made / "speech" / f"{row[source]}.wav", RATE)[int(row[column]) :][: len(written)]
            assert np.corrcoef(written, there)[0, 1] > 0.97  # infrasound is filtered out


def test_no_reference_shares_samples_with_its_mixture_and_levels_agree(made):
    for row in read_rows(made / "one"):
        reference, noise = (audio.read(made / "one" / n / f"{row['id']}.flac", RATE) for n in ("ref", "noise"))
        assert not leak.score(reference, noise, RATE).shared
        assert rms(reference) == pytest.approx(rms(noise), rel=0.05)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "talkers_000"}'])
def test_an_item_whose_row_is_damaged_is_made_again(text, made, tmp_path, capsys, monkeypatch):
    def stopped(*given):
        raise KeyboardInterrupt

    corpus, out = made / "speech", tmp_path / "out"
    arguments = ["talkers", "--speech_dir", corpus, "--noise_dir", corpus, "--sample_rate", RATE, "--num", 3]
    arguments += ["--jobs", 1, "--out"]
    with monkeypatch.context() as patched:
        patched.setattr(build, "_write_partners", stopped)
        with pytest.raises(KeyboardInterrupt):
            call(make_testset.main, capsys, *arguments, out)
    (tmp_path / "out.incomplete" / ".build" / "items" / "talkers_001.json").write_text(text)
    assert "2 of 3 items are there from an earlier start" in call(make_testset.main, capsys, *arguments, out)
    call(make_testset.main, capsys, *arguments, tmp_path / "whole")
    assert build.set_digest(out) == build.set_digest(tmp_path / "whole")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_beginning_is_refused_in_a_sentence(text, made, tmp_path, capsys):
    state = tmp_path / "out.incomplete" / ".build" / "arguments.json"
    state.parent.mkdir(parents=True)
    state.write_text(text)
    corpus = made / "speech"
    arguments = ["talkers", "--speech_dir", corpus, "--noise_dir", corpus, "--out", tmp_path / "out", "--jobs", 1]
    assert "out.incomplete: " in refusal(make_testset.main, capsys, *arguments)


def test_a_single_talker_is_refused(tmp_path, capsys):
    corpus = speech(tmp_path / "speech", talkers=1, files=3)
    arguments = ["talkers", "--speech_dir", corpus, "--noise_dir", corpus, "--out", tmp_path / "out"]
    assert "told apart by file names" in refusal(make_testset.main, capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_talkers_of_another_folder_need_not_be_more_than_one(tmp_path, capsys):
    corpus, other = (speech(tmp_path / name, talkers=1, files=3) for name in ("a", "b"))
    for path in other.glob("*.wav"):
        path.rename(path.with_name(path.name.replace("p0", "q7")))
    arguments = ["talkers", "--speech_dir", corpus, "--noise_dir", other, "--num", 3, "--sample_rate", RATE]
    call(make_testset.main, capsys, *arguments, "--jobs", 1, "--out", tmp_path / "out")
    assert {row["kind"] for row in read_rows(tmp_path / "out")} == {"q7"}
