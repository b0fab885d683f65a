"""Test sets in which a reference is necessary: two talkers with swapped roles, and speech without pauses."""

import sys
from collections import Counter
from itertools import count
from pathlib import Path

import make_testset
import numpy as np
import pytest
from commands import refusal
from noise_classes import RATE
from small_corpora import save

from sgmse.data import audio
from sgmse.data.noise.talkers import talker
from sgmse.data.references import leak
from sgmse.data.testsets import items
from sgmse.data.testsets.build import read_rows
from sgmse.evaluation.scores import evaluate


def speech(folder: Path, talkers: int, files: int) -> Path:
    rng = np.random.default_rng(0)
    for t in range(talkers):
        for n in range(files):
            samples = 0.1 * rng.standard_normal(2 * RATE + RATE // 4 * n)
            samples[RATE // 2 : RATE] *= 0.001  # a pause
            save(folder / f"p{t}_{n:02d}.wav", rate=RATE, samples=samples)
    return folder


def make(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_testset.py", *map(str, arguments), "--sample_rate", str(RATE), "--jobs", "1"])
        make_testset.main()


@pytest.fixture(scope="module")
def swap(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swap")
    make("swap", "--speech_dir", speech(folder / "speech", talkers=4, files=4), "--out", folder / "set", "--num", 24)
    return folder / "set"


def read(folder: Path, kind: str, row: dict[str, str]) -> np.ndarray:
    return audio.read(folder / kind / f"{row['id']}.flac", RATE)


def pairs(folder: Path) -> list[tuple[dict[str, str], dict[str, str]]]:
    rows = read_rows(folder)
    return list(zip(rows[::2], rows[1::2], strict=True))


def test_every_mixture_stands_twice_with_the_roles_exchanged(swap):
    for first, second in pairs(swap):
        assert np.array_equal(read(swap, "noisy", first), read(swap, "noisy", second))
        for ours, theirs in (("clean", "noise"), ("noise", "clean")):
            assert np.abs(read(swap, ours, first) - read(swap, theirs, second)).max() <= 1 / 32768
        assert float(first["snr_db"]) == -float(second["snr_db"])
        levels = [items.sounding_rms(read(swap, kind, first), RATE) for kind in ("clean", "noise")]
        assert 20 * np.log10(levels[0] / levels[1]) == pytest.approx(float(first["snr_db"]), abs=0.1)


def test_a_reference_is_another_utterance_of_the_one_to_remove_at_the_level_it_has_there(swap):
    for row in read_rows(swap):
        assert row["kind"] == talker(Path(row["noise_file"])) == talker(Path(row["ref_source"]))
        assert Path(row["noise_file"]).stem not in row["ref_source"].split("+")
        assert talker(Path(row["speech_file"])) != row["kind"]
        assert 2 <= float(row["ref_seconds"]) <= 4
        levels = [items.sounding_rms(read(swap, kind, row), RATE) for kind in ("ref", "noise")]
        assert levels[0] == pytest.approx(levels[1], rel=0.05)


def test_no_reference_but_the_oracle_holds_samples_of_its_mixture_of_however_many_utterances_it_is_joined(swap):
    for row in read_rows(swap):
        for kind in ("ref", "ref_same_class", "ref_mismatched"):
            assert not leak.score(read(swap, kind, row), read(swap, "noise", row), RATE).shared, (row["id"], kind)


def test_the_mismatched_reference_is_that_of_the_other_role_and_a_pair_is_one_source(swap):
    for first, second in pairs(swap):
        assert first["mismatched_from"] == second["id"]
        assert second["mismatched_from"] == first["id"]
        assert first["source"] == second["source"]
        assert {first["kind"], second["kind"]} == set(first["source"].split("&"))
    assert set(Counter(row["kind"] for row in read_rows(swap)).values()) == {6}


def test_a_model_without_a_reference_is_right_about_exactly_half_of_them(swap, tmp_path):
    """One output for two opposite targets: whatever it is, it is nearer to one of them."""
    rng = np.random.default_rng(1)
    for first, second in pairs(swap):
        output = read(swap, "clean", first) * rng.random() + read(swap, "noise", first) * rng.random()
        for row in (first, second):
            audio.write(tmp_path / "blind" / f"{row['id']}.wav", output, RATE)
            audio.write(tmp_path / "told" / f"{row['id']}.wav", output + read(swap, "clean", row), RATE)
    systems = {name: tmp_path / name for name in ("blind", "told")}
    frame = evaluate(swap / "clean", systems, swap / "noisy", jobs=1, asked=["right_talker"])
    assert frame.groupby("system")["right_talker"].mean().to_dict() == {"blind": 0.5, "noisy": 0.5, "told": 1.0}
    assert set(frame["right_talker"]) == {0, 1}


def noise(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    for kind in ("fan", "rain"):
        for n in range(3):
            save(folder / kind / f"{n}.wav", rate=RATE, samples=0.1 * rng.standard_normal(6 * RATE))
    return folder


def test_a_ladder_holds_the_same_items_longer_and_shorter_and_without_pauses(tmp_path):
    corpus, noises = speech(tmp_path / "speech", talkers=2, files=4), noise(tmp_path / "noise")
    make(
        "ood",
        "--speech_dir",
        corpus,
        "--noise_dir",
        noises,
        "--out",
        tmp_path / "set",
        "--seconds",
        0.6,
        1.0,
        "--snr",
        -5,
        5,
    )
    short, long = (read_rows(tmp_path / "set" / name) for name in ("0.6s", "1s"))
    assert len(short) == len(long) == 8
    for one, other in zip(short, long, strict=True):
        for name in ("speech_file", "noise_file", "snr_db", "ref_start"):
            assert one[name] == other[name]
        for row, name in ((one, "0.6s"), (other, "1s")):
            heard = read(tmp_path / "set" / name, "noise", row)
            source = audio.read(noises / row["noise_file"], RATE)[int(row["noise_start"]) :][: len(heard)]
            assert np.corrcoef(heard, source)[0, 1] > 0.99
            assert row["timeline"] == f"0.00-{float(row['seconds']):.2f} {row['kind']}"
        assert float(one["activity"]) >= 0.9
        assert (float(one["seconds"]), float(other["seconds"])) == (0.6, 1.0)
        part, whole = (read(tmp_path / "set" / name, "clean", one) for name in ("0.6s", "1s"))
        matches = np.correlate(whole, part) / np.sqrt(np.sum(part**2) * np.sum(whole**2))
        assert matches.max() > 0.7  # the shorter one lies in the longer one


def test_a_stretch_that_is_faint_beside_its_recording_is_no_noise_of_a_ladder(tmp_path):
    corpus, rng = speech(tmp_path / "speech", talkers=2, files=6), np.random.default_rng(3)
    for kind in ("fan", "rain"):
        samples = 0.1 * rng.standard_normal(12 * RATE)
        for second in range(0, 12, 2):
            samples[second * RATE : (second + 1) * RATE] *= 10 ** (-32 / 20)
        save(tmp_path / "noise" / kind / "0.wav", rate=RATE, samples=np.clip(samples, -1, 1))
    words = ("--speech_dir", corpus, "--noise_dir", tmp_path / "noise", "--out", tmp_path / "set", "--num", 24)
    make("ood", *words, "--seconds", 0.5, 0.9, "--snr", 0)
    for row in read_rows(tmp_path / "set" / "0.5s"):
        heard, reference = (
            items.sounding_rms(read(tmp_path / "set/0.5s", kind, row), RATE) for kind in ("noise", "ref")
        )
        assert 20 * np.log10(reference / heard) < 24


def test_the_densest_stretch_is_the_one_with_the_fewest_pauses():
    waveform = np.random.default_rng(0).standard_normal(3 * RATE)
    waveform[RATE : 2 * RATE] = 0
    assert items.find_densest(waveform, RATE, RATE) == (0, 1.0)
    begin, share = items.find_densest(waveform[RATE // 2 :], RATE, RATE)
    assert begin == pytest.approx(1.5 * RATE, abs=RATE / 100)
    assert share == 1.0
    assert items.find_densest(waveform[:RATE], 2 * RATE, RATE) == (0, 0.0)


def test_what_makes_no_such_set_is_refused(tmp_path, capsys):
    corpus, noises = speech(tmp_path / "speech", talkers=2, files=2), noise(tmp_path / "noise")
    alone, single = speech(tmp_path / "alone", talkers=1, files=3), speech(tmp_path / "single", talkers=3, files=1)

    number = count()

    def refused(*arguments: object) -> str:
        rate = ("--out", tmp_path / f"set{next(number)}", "--sample_rate", RATE, "--jobs", 1)
        return refusal(make_testset.main, capsys, *arguments, *rate, strict=False)

    assert "alone" in refused("swap", "--speech_dir", alone)
    assert "single" in refused("swap", "--speech_dir", single)
    assert "--noise_dir" in refused("swap", "--speech_dir", corpus, "--noise_dir", noises)
    assert "--noise_dir" in refused("ood", "--speech_dir", corpus)
    assert "--seconds" in refused("nonstationary", "--speech_dir", corpus, "--noise_dir", noises, "--seconds", 1)
    assert "without pauses" in refused("ood", "--speech_dir", corpus, "--noise_dir", noises, "--seconds", 2)
    assert "reference" in refused("swap", "--speech_dir", corpus, "--reference_s", 8, 9)
    assert "even number" in refused("swap", "--speech_dir", corpus, "--num", 5)
