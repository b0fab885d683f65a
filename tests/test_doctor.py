"""The doctor finds what is broken, says what to do, and finds nothing where nothing is."""

import sys

import numpy as np
import pytest
import yaml
from commands import refusal
from examined import RATE, only, problems, speech, white, write_pairs
from small_corpora import save

from sgmse.commands import doctor
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.doctor import Report, leaks, sample, signals
from sgmse.doctor.examine import Request, examine


@pytest.fixture
def good(tmp_path):
    return write_pairs(tmp_path / "corpus")


def exit_code(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    before, sys.argv = sys.argv, ["doctor.py", *map(str, arguments)]
    try:
        doctor.main()
    except SystemExit as stop:
        return int(str(stop.code)), capsys.readouterr().out
    finally:
        sys.argv = before
    return 0, capsys.readouterr().out


def test_a_good_corpus_has_no_problem(good, capsys):
    code, page = exit_code(capsys, "--data", good)
    assert code == 0
    assert page.startswith("NO PROBLEMS FOUND")
    assert "clean speech: 12 files in train, valid, test compared by content, 0 pairs across splits" in page


def test_a_wrong_rate_comes_first_and_ends_with_code_1(good, capsys):
    save(good / "train/clean/train0.wav", samples=speech(4.5, 0, 0), rate=3 * RATE)
    save(good / "train/noisy/train0.wav", samples=speech(4.5, 0, 0) + white(4.5, 9), rate=3 * RATE)
    save(good / "valid/noisy/valid0.wav", samples=np.zeros(RATE * 3 // 2), rate=RATE)
    (good / "test/noisy/test0.wav").unlink()
    code, page = exit_code(capsys, "--data", good)
    assert code == 1
    first = page.splitlines()[1]
    assert "!! 2 of 23 clean and noisy files are not at the model's 16000 Hz (2 at 48000 Hz)" in first


def swap_files(corpus):
    a, b = corpus / "valid/noisy/valid1.wav", corpus / "valid/noisy/valid2.wav"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def exchange_roles(corpus):
    (corpus / "test/clean").rename(corpus / "test/x")
    (corpus / "test/noisy").rename(corpus / "test/clean")
    (corpus / "test/x").rename(corpus / "test/noisy")


def delay_files(corpus):
    for n in range(4):
        noisy = np.roll(speech(1.5, 2, n), 37) + 0.3 * white(1.5, 7, n)
        save(corpus / f"test/noisy/test{n}.wav", samples=noisy, rate=RATE)


def leave_out_noise(corpus):
    (corpus / "train/noisy/train1.wav").write_bytes((corpus / "train/clean/train1.wav").read_bytes())


def leak_under_another_name(corpus):
    clean = speech(1.5, 0, 3)
    save(corpus / "test/clean/new.flac", samples=clean, rate=RATE)
    save(corpus / "test/noisy/new.flac", samples=clean + white(1.5, 33), rate=RATE)


def remove_partner(corpus):
    (corpus / "train/noisy/train1.wav").unlink()


def shorten_one(corpus):
    save(corpus / "train/noisy/train2.wav", samples=speech(1, 0, 2), rate=RATE)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (swap_files, "valid: of 4 pairs, 2 noisy files do not hold their clean file"),
        (exchange_roles, "test: of 4 pairs, 4 have clean and noisy exchanged"),
        (delay_files, "4 are not aligned; the most frequent delay of the noisy file is 37 samples (4 files)"),
        (leave_out_noise, "train: of 4 pairs, 1 noisy files equal their clean file"),
        (leak_under_another_name, "1 are in the training data and in another split"),
        (remove_partner, "train: of 4 names, 1 have no partner of the same name"),
        (shorten_one, "train: of 4 pairs, 1 differ in length or rate"),
    ],
)
def test_what_falsifies_results_is_found(good, spoil, found):
    spoil(good)
    only(problems(data=good), found)


def test_rate_and_folders_are_those_of_the_settings(good, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"base_dir": str(good), "sample_rate": 48000}))
    only(problems(config=[config]), "24 of 24 clean and noisy files are not at the model's 48000 Hz")


@pytest.mark.parametrize("snr_db", [-10, 20])
@pytest.mark.parametrize("lag", [-250, 0, 40])
def test_lag_gain_and_snr_are_measured(snr_db, lag):
    clean, noise = speech(3, 5), white(3, 6)
    noise *= np.sqrt(np.mean(clean**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    found = signals.compare(clean, np.roll(clean, lag) + noise, RATE)
    assert found.lag == lag
    assert found.gain == pytest.approx(1, abs=0.1)
    assert found.snr_db == pytest.approx(snr_db, abs=0.5)
    assert not found.is_reversed


def test_silence_clipping_and_offset_are_found_and_do_not_falsify(good):
    save(good / "train/clean/train0.wav", samples=np.zeros(RATE), rate=RATE)
    save(good / "train/noisy/train0.wav", samples=white(1, 4), rate=RATE)
    save(good / "train/noisy/train1.wav", samples=np.clip(60 * speech(1.5, 0, 1), -1, 1), rate=RATE)
    save(good / "train/noisy/train2.wav", samples=speech(1.5, 0, 2) + white(1.5, 8) + 0.1, rate=RATE)
    found = problems(data=good)
    assert [what.split(", ")[1].split(" (")[0] for what in found if "files" in what] == [
        "1 are silent",
        "1 are clipped",
        "1 have a constant offset of more than 10% of their RMS",
    ]
    assert not any(found.values())


def test_a_damaged_file_is_found_and_the_rest_is_looked_at(good):
    whole = save(good / "train/clean/train1.flac", samples=speech(1.5, 0, 1), rate=RATE).read_bytes()
    (good / "train/clean/train1.wav").unlink()
    (good / "train/clean/train1.flac").write_bytes(whole[: len(whole) // 2])
    (good / "test/noisy/test2.wav").write_bytes(b"")
    found = problems(data=good)
    assert [(what.partition(":")[0], "1 cannot be read" in what) for what in found] == [
        ("train/clean", True),
        ("test/noisy", True),
    ]


def test_files_that_are_none_of_a_pair_hide_nothing_else(good):
    save(good / "train/clean/train1.flac", samples=speech(1.5, 0, 1), rate=RATE)  # beside train1.wav
    (good / "test/noisy/stray.m4a").write_bytes(b"x")
    (good / "test/noisy/link.wav").symlink_to("nowhere.wav")
    found = problems(data=good)
    assert any("train/clean: of" in what and "1 have the name of another" in what for what in found)
    assert any("test/noisy" in what and "2 cannot be read" in what for what in found)


def test_a_loud_but_whole_wave_is_not_clipped():
    assert not signals.is_clipped(np.sin(np.arange(RATE) * 0.3))
    assert signals.is_clipped(np.clip(1.5 * np.sin(np.arange(RATE) * 0.3), -1, 1))


def test_noise_at_a_higher_rate_is_no_problem_and_at_a_lower_one_is(tmp_path):
    for name, rate in (("a", 48000), ("b", 8000)):
        save(tmp_path / f"noise/train/{name}.wav", samples=white(1, rate), rate=rate)
    only(problems(noise_dir=[tmp_path / "noise"]), "1 of 2 files are below the model's 16000 Hz", falsifies=False)


def test_sources_shared_by_two_splits_are_found(tmp_path):
    clips = [
        Clip(save(tmp_path / f"{i}.wav", 1.0, RATE), "a", "one", split, RATE, 1.0, f"{i}" * 8)
        for i, split in enumerate(("train", "valid"))
    ]
    manifest.write(tmp_path, clips)
    only(problems(noise_dir=[tmp_path]), "of the source recordings, 1 are in the training data")


def test_a_recording_is_known_by_its_course_whatever_format_level_and_sign(tmp_path):
    samples = speech(2, 1)
    kept = leaks.course(save(tmp_path / "a.wav", samples=samples))
    for name, other in (("b.flac", samples), ("c.wav", -0.3 * samples)):
        path = save(tmp_path / name, samples=other)
        np.testing.assert_allclose(leaks.course(path), kept, atol=0.05)
    assert np.abs(leaks.course(save(tmp_path / "e.wav", samples=samples[::-1])) - kept).max() > 1
    assert leaks.course(save(tmp_path / "f.wav", samples=np.zeros(8000))) is None


def test_files_are_sampled_evenly_and_their_number_is_a_fact(good):
    assert sample(range(10), 5, "files") == ([0, 2, 4, 6, 8], "5 of 10 files")
    facts = examine(Request(data=good, max_files=2)).facts
    assert "train/clean: of 2 of 4 files, 0 silent, 0 clipped, 0 with a constant offset (DC)" in facts


def test_problems_that_falsify_come_first_with_their_remedy():
    report = Report()
    report.add_problem("a small one", "do this")
    report.add_problem("a grave one", "do that", True, ["a", "b", "c", "d", "e"])
    report.facts.append("a fact")
    lines = str(report).splitlines()
    assert lines[0] == "PROBLEMS: 2, 1 of which would falsify a result (!!)"
    assert lines[1:7] == [" !! a grave one", "      a", "      b", "      c", "      and 2 more", "      → do that"]
    assert lines[7:] == ["  - a small one", "      → do this", "", "LOOKED AT", "  a fact"]


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "nothing to look at"),
        (["--data", "odd", "--max_files", 0], "--max_files 0"),
        (["--data", "nowhere"], "nowhere: no such folder; check --data"),
        (["--data", "odd"], "found stuff"),
        (["--test_dir", "odd"], "--test_dir odd"),
        (["--ckpt", "x.ckpt"], "x.ckpt"),
    ],
)
def test_wrong_arguments_are_refused_and_the_culprit_is_named(arguments, culprit, tmp_path, monkeypatch, capsys):
    (tmp_path / "odd/stuff").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert culprit in refusal(doctor.main, capsys, *arguments)
