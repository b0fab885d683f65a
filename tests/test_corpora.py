"""Facts about corpora: which files belong to a split, and what is wrong with the others."""

from __future__ import annotations

import logging
from pathlib import Path

import published_layouts
import pytest
from small_corpora import RATE, save, small_pairs

from sgmse.common.errors import UserError
from sgmse.data.corpora import clips, manifest, paired_files, split_files
from sgmse.data.corpora.manifest import Entry


def test_a_folder_without_splits_is_training_data_only(tmp_path: Path) -> None:
    for name in ("plain/a.wav", "split/train/b.wav", "split/valid/c.wav", "split/test/d.wav"):
        save(tmp_path / name)
    both = [tmp_path / "plain", tmp_path / "split"]
    assert [info.path.stem for info in split_files(both, "train", "noise")] == ["a", "b"]
    assert [info.path.stem for info in split_files(both, "valid", "noise")] == ["c"]


@pytest.mark.parametrize(
    ("folders", "split", "message"),
    [
        (["plain"], "valid", r"plain: no noise for the split 'valid'.*train/ and valid/"),
        (["tested"], "train", "tested: no noise for the split 'train'"),
        (["nowhere"], "train", "nowhere: no such folder"),
        (["empty"], "train", "empty: holds no file"),
        (["broken"], "train", r"b\.wav: is empty"),
        (["pairs"], "train", "holds pairs of clean and noisy speech, not noise; use it with --base_dir"),
        ([], "train", "no noise folder given"),
    ],
)
def test_folders_without_data_for_a_split_are_named(
    tmp_path: Path, folders: list[str], split: str, message: str
) -> None:
    save(tmp_path / "plain/a.wav")
    save(tmp_path / "tested/test/a.wav")
    save(tmp_path / "broken/a.wav")
    (tmp_path / "broken/b.wav").touch()
    (tmp_path / "empty").mkdir()
    small_pairs(tmp_path / "pairs")
    with pytest.raises(UserError, match=message):
        split_files([tmp_path / name for name in folders], split, "noise")


def test_a_file_in_folders_named_twice_is_one(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        save(tmp_path / f"noise/{name}.wav")
    found = split_files([tmp_path / "noise", tmp_path / "noise/b", f"{tmp_path}/noise/../noise"], "train", "noise")
    assert [info.path.stem for info in found] == ["a", "c"]


def test_very_short_files_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "speech/a.wav")
    save(tmp_path / "speech/b.wav", 0.05)
    with caplog.at_level(logging.WARNING):
        assert [info.path.stem for info in split_files([tmp_path / "speech"], "train", "speech")] == ["a"]
    assert "1 of 2 files" in caplog.text
    save(tmp_path / "click/b.wav", 0.05)
    with pytest.raises(UserError, match="all files are shorter"):
        split_files([tmp_path / "click"], "train", "noise")


def test_pairs_are_matched_by_relative_path_whatever_their_format(tmp_path: Path) -> None:
    pairs = paired_files(small_pairs(tmp_path), "train")
    assert [pair.name for pair in pairs] == ["a/p0", "a/p1", "a/p2", "a/p3"]
    assert {pair.clean.path.suffix + pair.noisy.path.suffix for pair in pairs} == {".wav.flac"}


def test_a_file_without_partner_is_named(tmp_path: Path) -> None:
    small_pairs(tmp_path)
    save(tmp_path / "train/noisy/a/extra1.wav")
    save(tmp_path / "train/clean/other.wav")
    with pytest.raises(UserError, match=r"extra1\.wav: has no partner in .*clean \(and 1 more files\)"):
        paired_files(tmp_path, "train")


@pytest.mark.parametrize(("seconds", "rate", "message"), [(1.9, RATE, "15200 samples"), (2.0, 2 * RATE, "16000 Hz")])
def test_pairs_of_unequal_length_or_rate_are_named(tmp_path: Path, seconds: float, rate: int, message: str) -> None:
    save(tmp_path / "train/clean/x.wav")
    save(tmp_path / "train/noisy/x.wav", seconds, rate)
    with pytest.raises(UserError, match=rf"x\.wav: h.*{message}"):
        paired_files(tmp_path, "train")


def _with_manifest(folder: Path) -> Path:
    """A folder whose manifest names one file of it for training, one elsewhere for validation, and not a third."""
    paths = [save(folder / "a.wav"), save(folder.parent / "elsewhere/b.wav")]
    save(folder / "train" / "unnamed.wav")
    entries = [Entry(path, ("rain",), path.stem, split) for path, split in zip(paths, ("train", "valid"), strict=True)]
    manifest.write(folder, manifest.measure(entries, folder))
    return folder


def test_a_manifest_decides_which_files_belong_to_a_split(tmp_path: Path) -> None:
    folder = _with_manifest(tmp_path / "noise")
    assert [info.path for info in split_files([folder], "train", "noise")] == [folder / "a.wav"]
    assert [info.path for info in split_files([folder], "valid", "noise")] == [tmp_path / "elsewhere/b.wav"]
    assert clips(folder) == manifest.read(folder / "manifest.csv")
    with pytest.raises(UserError, match="no noise for the split 'test'"):
        split_files([folder], "test", "noise")


def test_a_file_that_the_manifest_names_and_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = _with_manifest(tmp_path / "noise")
    (folder / "a.wav").unlink()
    assert len(split_files([folder], "valid", "noise")) == 1
    with pytest.raises(UserError, match=r"manifest\.csv: names .*a\.wav, which cannot be found"):
        split_files([folder], "train", "noise")
    with pytest.raises(UserError, match=r"manifest\.csv: names .*a\.wav, which cannot be found"):
        clips(folder)


def test_clips_of_an_esc50_tree_carry_class_recording_and_split(tmp_path: Path) -> None:
    found = clips(published_layouts.esc50(tmp_path))
    assert [(clip.kind, clip.source, clip.split, clip.fold) for clip in found[-3:]] == [
        ("dog", "5001", "test", 5),
        ("dog", "5001", "test", 5),
        ("rain", "5002", "test", 5),
    ]
    assert found[0].seconds == 0.2


def test_clips_of_a_plain_folder_are_classed_by_folder_or_by_the_letters_of_their_name(tmp_path: Path) -> None:
    for name in ("rain/x1", "hum-white_02", "n17", "test/n4", "valid/wind/1", "007"):
        save(tmp_path / f"{name}.wav")
    found = {clip.source: (clip.kind, clip.split) for clip in clips(tmp_path)}
    assert found == {
        "rain/x1": ("rain", "train"),
        "hum-white_02": ("hum-white", "train"),
        "n17": ("noise", "train"),
        "test/n4": ("noise", "test"),
        "valid/wind/1": ("wind", "valid"),
        "007": ("noise", "train"),
    }
    with pytest.raises(UserError, match="nowhere: no such folder"):
        clips(tmp_path / "nowhere")
