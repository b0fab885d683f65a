"""Facts about VoiceBank-DEMAND: held-out speakers, references from other files, whole or not there."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published_layouts
import pytest
from small_corpora import save

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora import Pair, manifest, paired_files, voicebank
from sgmse.data.corpora.voicebank import check_partners, choose_references, prepare
from sgmse.doctor.examine import Request, examine

RATE = 16000


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(voicebank, "PAIRS", {"train": 8, "test": 6})
    return published_layouts.voicebank(tmp_path / "published")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_speakers_are_held_out_and_everything_is_resampled(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(source, out, RATE)
    found = {split: paired_files(out, split) for split in manifest.SPLITS}
    speakers = {split: {voicebank.speaker(pair.name) for pair in pairs} for split, pairs in found.items()}
    assert speakers == {"train": {"p225", "p300"}, "valid": {"p226", "p287"}, "test": {"p232", "p257"}}
    assert [len(pairs) for pairs in found.values()] == [4, 4, 6]
    assert {pair.noisy.sample_rate for pairs in found.values() for pair in pairs} == {RATE}
    pair = found["valid"][0]
    expected = audio.read(source / "noisy_trainset_28spk_wav" / f"{pair.name}.wav", RATE)
    np.testing.assert_allclose(audio.read(pair.noisy.path, RATE), expected, atol=2**-15)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.csv", "test", "train", "valid"]


def test_the_manifest_names_speaker_noise_and_split_of_every_noisy_file(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", RATE)
    clips = manifest.read(tmp_path / "out" / "manifest.csv")
    assert len(clips) == 14
    assert manifest.shared_sources(clips) == []
    assert {(clip.source, clip.kind) for clip in clips if clip.split == "valid"} == {
        (speaker, kind) for speaker in ("p226", "p287") for kind in ("ssn", "metro")
    }
    assert manifest.count_per_split(clips) == "4 train, 4 valid, 6 test"


def test_the_published_sets_can_be_prepared_one_by_one(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "whole", RATE)
    for kind in ("clean", "noisy"):
        (source / f"{kind}_trainset_28spk_wav").rename(tmp_path / kind)
    prepare(source, tmp_path / "out", RATE, ["test"])
    assert manifest.count_per_split(manifest.read(tmp_path / "out" / "manifest.csv")) == "6 test"
    for kind in ("clean", "noisy"):
        (tmp_path / kind).rename(source / f"{kind}_trainset_28spk_wav")
        shutil.rmtree(source / f"{kind}_testset_wav")
    prepare(source, tmp_path / "out", RATE, ["train"])
    found, whole = (files(tmp_path / name) for name in ("out", "whole"))
    assert sorted(found.pop("manifest.csv").splitlines()) == sorted(whole.pop("manifest.csv").splitlines())
    assert found == whole


def test_what_is_published_is_sent_through_the_preparation(source: Path) -> None:
    with pytest.raises(UserError, match=rf"scripts/prepare\.py voicebank --source {source}"):
        paired_files(source, "train")
    with pytest.raises(UserError, match=rf"scripts/prepare\.py voicebank --source {source}"):
        examine(Request(data=source))


def test_references_are_the_noise_of_another_test_file_of_the_same_type(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", RATE)
    test = tmp_path / "out" / "test"
    with open(test / "manifest.csv", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {path.stem for path in (test / "noisy").iterdir()}
    for name, row in rows.items():
        other = rows[row["ref_source"]]
        assert other["kind"] == row["kind"] == row["source"], "DEMAND has one recording of each kind"
        assert other["id"].split("_")[1] != name.split("_")[1]
        clean, noisy = (audio.read(test / part / f"{other['id']}.flac", RATE) for part in ("clean", "noisy"))
        reference = audio.read(test / "ref" / f"{name}.flac", RATE)
        np.testing.assert_allclose(reference, noisy - clean, atol=2**-15)
        assert float(row["ref_seconds"]) == pytest.approx(len(reference) / RATE, abs=1e-3)
    assert rows["p232_002"]["snr_db"] == "12.5"


def test_every_file_serves_about_once_as_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voicebank, "_shares_noise", lambda pair, other: False)
    names = [f"p{speaker}_{number:03d}" for speaker in (232, 257) for number in range(100)]
    conditions = {name: (("bus", "cafe")[i % 2], 2.5) for i, name in enumerate(names)}
    pairs = [Pair(name, None, None) for name in names]
    chosen = choose_references(pairs, conditions)
    assert chosen == choose_references(pairs[::-1], dict(reversed(conditions.items())))
    used = list(chosen.values())
    assert max(used.count(name) for name in names) <= 2
    assert len(set(used)) > 0.95 * len(names)


def test_a_file_whose_noise_shares_samples_is_passed_over(tmp_path: Path) -> None:
    recording = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    pairs = []
    for number, start in ((1, 0), (2, RATE // 2), (3, 2 * RATE)):  # the first two are cut from one stretch
        noise, infos = recording[start : start + RATE], []
        for kind, samples in (("clean", np.zeros(RATE)), ("noisy", noise)):
            infos.append(audio.info(save(tmp_path / kind / f"p1_{number}.flac", samples=samples, rate=RATE)))
        pairs.append(Pair(f"p1_{number}", *infos))
    chosen = choose_references(pairs, {pair.name: ("bus", 0.0) for pair in pairs})
    assert (chosen["p1_1"], chosen["p1_2"]) == ("p1_3", "p1_3")


def test_a_noise_type_with_one_sentence_alone_has_no_reference() -> None:
    conditions = {"p232_001": ("bus", 2.5), "p257_001": ("bus", 7.5)}
    with pytest.raises(UserError, match=r"p\d+_001: no other test file has the noise 'bus'"):
        check_partners(conditions)


@pytest.mark.parametrize("stop_at", [3, 20, 33])
def test_an_interrupted_build_never_looks_whole_and_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    prepare(source, tmp_path / "whole", RATE)
    out, written, write = tmp_path / "out", [], audio.write

    def counted(path: Path, waveform: np.ndarray, sample_rate: int) -> float:
        if len(written) == stop_at:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, waveform, sample_rate)

    monkeypatch.setattr(voicebank.audio, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, RATE)
    for split, number in (("train", 4), ("valid", 4), ("test", 6)):
        assert not (out / split).exists() or len(paired_files(out, split)) == number
    assert not (out / "manifest.csv").exists()
    monkeypatch.setattr(voicebank.audio, "write", lambda *a: (written.append(""), write(*a))[1])
    prepare(source, out, RATE)
    assert len(written) <= 34 + 1  # of a pair that was cut the clean file is written again
    assert files(out) == files(tmp_path / "whole")


def test_a_build_begun_at_another_rate_is_not_mixed_in(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", RATE)
    with pytest.raises(UserError, match=r"train: exists at 16000 Hz; name another --out or --sample_rate 16000"):
        prepare(source, tmp_path / "out", 8000)


def test_a_folder_that_is_whole_needs_its_source_no_more(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", RATE)
    before = files(tmp_path / "out")
    shutil.rmtree(source)
    prepare(source, tmp_path / "out", RATE)
    assert files(tmp_path / "out") == before


def test_a_half_build_at_another_rate_is_begun_anew(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "whole", 8000)
    published_layouts.save(tmp_path / f"out/.incomplete/{RATE}/train/clean/p225_001.flac", 0.1, RATE)
    prepare(source, tmp_path / "out", 8000)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_zip_files_are_unpacked_and_logs_may_lie_beside(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "whole", RATE)
    shutil.make_archive(str(source / "noisy_testset_wav"), "zip", source, "noisy_testset_wav")
    shutil.rmtree(source / "noisy_testset_wav")
    for log in (source / "logfiles").iterdir():
        shutil.move(log, source / log.name)
    (source / "logfiles").rmdir()
    prepare(source, tmp_path / "out", RATE)
    shutil.rmtree(tmp_path / "out" / "download")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_pair_that_would_clip_is_attenuated_as_a_whole(source: Path, tmp_path: Path) -> None:
    loud = np.sin(2 * np.pi * 0.005 * np.arange(12000))
    for kind, factor in (("clean", 0.8), ("noisy", 0.999)):
        square = factor * np.sign(loud)  # its edges ring beyond 1 when it is resampled
        published_layouts.save(source / f"{kind}_testset_wav/p232_001.wav", rate=48000, samples=square)
    prepare(source, tmp_path / "out", RATE)
    clean, noisy = (audio.read(tmp_path / f"out/test/{part}/p232_001.flac", RATE) for part in ("clean", "noisy"))
    assert 0.99 < np.abs(noisy).max() <= 1
    np.testing.assert_allclose(noisy, clean * 0.999 / 0.8, atol=2**-14)


def rename_speaker(source: Path) -> None:
    for part in ("clean", "noisy"):
        for number in (1, 2):
            folder = source / f"{part}_trainset_28spk_wav"
            (folder / f"p287_00{number}.wav").rename(folder / f"p301_00{number}.wav")


def write_log(old: str, new: str) -> Callable[[Path], object]:
    text = published_layouts.TEST_LOG.replace(old, new, 1)
    return lambda source: (source / "logfiles" / "log_testset.txt").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda source: shutil.rmtree(source / "clean_trainset_28spk_wav"), r"clean_trainset_28spk_wav\.zip; found"),
        (lambda source: source.rename(source.with_name("elsewhere")), "published: no such folder"),
        (lambda source: save(source / "noisy_testset_wav/p257_001.wav", 0.2, 48000), r"p257_001\.wav: holds 9600"),
        (lambda source: [path.unlink() for path in source.glob("*_testset_wav/p257_001.wav")], "holds 5 pairs"),
        (rename_speaker, "holds no file of speaker p287"),
        (write_log("p232_003 bus 7.5\n", ""), "lacks p232_003 and 0 more"),
        (write_log("7.5", "loud"), "line 1 is not 'name noise SNR'"),
        (lambda source: (source / "logfiles" / "log_testset.txt").unlink(), r"log_testset\.txt: is missing"),
    ],
)
def test_a_source_that_lacks_something_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(source)
    with pytest.raises(UserError, match=message):
        prepare(source, tmp_path / "out", RATE)
    assert not (tmp_path / "out").exists()
