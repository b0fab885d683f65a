"""Facts about published noise corpora: classes, recordings, splits that share nothing, and wrong layouts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import published_layouts
import pytest
from file_server import serving
from small_corpora import save

from sgmse.common.download import Archive
from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip, shared_sources
from sgmse.data.corpora.published import DEMAND_SPLITS, NOISE_CORPORA, prepare

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "esc50": published_layouts.esc50,
    "urbansound8k": published_layouts.urbansound8k,
    "wham": published_layouts.wham,
    "audioset": published_layouts.audioset,
    "demand": published_layouts.demand,
}


def prepared(name: str, folder: Path, **selection: list) -> list[Clip]:
    return prepare(NOISE_CORPORA[name], LAYOUTS[name](folder / name), folder / "out", **selection)


def splits(clips: list[Clip]) -> Counter[str]:
    return Counter(clip.split for clip in clips)


@pytest.mark.parametrize("name", ["esc50", "urbansound8k", "audioset", "demand"])
def test_no_recording_is_in_two_splits(tmp_path: Path, name: str) -> None:
    clips = prepared(name, tmp_path)
    assert shared_sources(clips) == []
    assert set(splits(clips)) == (set(manifest.SPLITS) if name != "audioset" else {"train", "valid"})


def test_esc50_keeps_folds_classes_and_recordings(tmp_path: Path) -> None:
    clips = prepared("esc50", tmp_path)
    assert splits(clips) == {"train": 9, "valid": 3, "test": 3}
    assert {(clip.fold, clip.split) for clip in clips} == set(enumerate(["train"] * 3 + ["valid", "test"], 1))
    assert (clips[0].path.name, clips[0].kind, clips[0].source) == ("1-1001-A-0.wav", "dog", "1001")
    assert (clips[0].sample_rate, clips[0].seconds, len(clips[0].sha256)) == (44100, 0.2, 64)
    assert len({clip.source for clip in clips}) == 10


def test_urbansound_slices_of_a_recording_in_two_splits_stay_in_the_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = prepared("urbansound8k", tmp_path)
    assert splits(clips) == {"train": 13, "valid": 2, "test": 5}
    assert {clip.split for clip in clips if clip.source == "1"} == {"test"}
    assert "2 of 22 clips have recordings that another split has too: they are left out" in capsys.readouterr().out
    assert {clip.sample_rate for clip in clips} == {22050, 11025}
    assert [clip.source for clip in prepared("urbansound8k", tmp_path, folds=[1])] == ["11"]  # whatever is selected


def test_wham_keeps_its_own_splits_and_says_what_they_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = prepared("wham", tmp_path)
    assert splits(clips) == {"train": 2, "valid": 2, "test": 2}
    assert {(clip.kind, clip.source) for clip in clips if clip.split == "train"} == {
        ("loc00", "file000"),
        ("loc01", "file_tr"),
    }
    assert "1 of 6 clips have recordings that another split has too: they stay" in capsys.readouterr().out
    root = published_layouts.wham(tmp_path / "wham_noise", metadata=False)
    unnamed = prepare(NOISE_CORPORA["wham"], root, tmp_path / "out")
    assert {clip.kind for clip in unnamed} == {"noise"}
    assert len({clip.source for clip in unnamed}) == 6


def test_demand_takes_one_channel_of_each_environment_at_the_lower_rate(tmp_path: Path) -> None:
    clips = prepared("demand", tmp_path)
    assert [(clip.source, clip.kind, clip.split) for clip in clips] == [
        ("DKITCHEN", "domestic", "train"),
        ("NPARK", "nature", "valid"),
        ("TBUS", "transportation", "test"),
    ]
    assert {(clip.path.name, clip.sample_rate) for clip in clips} == {("ch01.wav", 16000)}


def test_demand_splits_hold_each_environment_once() -> None:
    names = [name for part in DEMAND_SPLITS.values() for name in part]
    assert len(names) == len(set(names)) == 18
    assert {archive.stem.split("_")[0] for archive in NOISE_CORPORA["demand"].archives} == set(names)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("eval_segments.csv", {"test"}),
        ("unbalanced_train_segments.csv", {"train", "valid"}),
        ("mine.csv", {"train", "valid", "test"}),
    ],
)
def test_audioset_splits_follow_the_csv_or_else_the_youtube_id(tmp_path: Path, table: str, expected: set[str]) -> None:
    root = published_layouts.audioset(tmp_path / "clips", table)
    clips = prepare(NOISE_CORPORA["audioset"], root, tmp_path / "out")
    assert set(splits(clips)) == expected
    assert len({clip.source for clip in clips}) == len(clips) == 40
    assert prepare(NOISE_CORPORA["audioset"], root, tmp_path / "out") == clips


def test_an_audioset_clip_is_known_by_its_rarest_label_and_excluded_by_any(tmp_path: Path) -> None:
    clips = prepared("audioset", tmp_path)
    assert Counter(clip.kind for clip in clips) == {"Animal": 30, "Dog": 5, "Speech": 5}
    without = prepared("audioset", tmp_path, exclude_classes=["Speech"])
    assert Counter(clip.kind for clip in without) == {"Animal": 30, "Dog": 5}
    assert len(prepared("audioset", tmp_path, classes=["Animal"], exclude_classes=["Dog", "Speech"])) == 30


def test_classes_and_folds_select(tmp_path: Path) -> None:
    clips = prepared("esc50", tmp_path, classes=["dog"], folds=[1, 5])
    assert {(clip.kind, clip.fold) for clip in clips} == {("dog", 1), ("dog", 5)}
    assert {clip.kind for clip in prepared("esc50", tmp_path, exclude_classes=["dog"])} == {"rain"}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"classes": ["dogs"]}, "--classes dogs: .* has none; it has 2, e.g. dog$"),
        ({"exclude_classes": ["x"]}, "--exclude_classes x: .* dog, rain"),
        ({"folds": [6]}, "--folds 6: .* 1, 2, 3, 4, 5"),
        ({"classes": ["dog"], "exclude_classes": ["dog"]}, "nothing is left of the corpus"),
    ],
)
def test_a_class_or_fold_that_does_not_exist_is_named(tmp_path: Path, selection: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared("esc50", tmp_path, **selection)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("esc50", r"ESC-50: expected audio and esc50\.csv"),
        ("urbansound8k", r"UrbanSound8K: expected audio and UrbanSound8K\.csv"),
        ("wham", "WHAM! noise: expected tr, cv, tt"),
        ("audioset", "AudioSet: expected clips and a CSV file"),
        ("demand", "DEMAND: expected a folder per environment"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    corpus = NOISE_CORPORA[name]
    save(tmp_path / "other" / "a.wav", 0.2)
    with pytest.raises(UserError, match=rf"other: is not laid out as {expected}.*; found a\.wav"):
        prepare(corpus, tmp_path / "other", tmp_path / "out")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare(corpus, tmp_path / "nowhere", tmp_path / "out")


def entries_of(name: str, folder: Path) -> list[tuple[object, ...]]:
    return [(e.path.name, e.kinds, e.source, e.split, e.fold) for e in NOISE_CORPORA[name].read(folder)]


@pytest.mark.parametrize("name", ["esc50", "urbansound8k"])
def test_flat_copies_hold_what_the_published_layout_does(tmp_path: Path, name: str) -> None:
    """As data-science sites give them: the table at the top, and sometimes a folder more, or one per rate."""
    published = LAYOUTS[name](tmp_path / "published")
    expected, table = entries_of(name, published), next(published.glob("meta*/*.csv"))
    for path in (published / "audio").rglob("*.wav"):
        save(tmp_path / "flat" / path.relative_to(published / "audio"), 0.2)
        for rate in (16000, 44100):
            save(tmp_path / "deep" / "audio" / "audio" / str(rate) / path.name, 0.2, rate)
    for place in ("flat", "deep"):
        shutil.copy(table, tmp_path / place)
        assert entries_of(name, tmp_path / place) == expected
    assert {entry.path.parent.name for entry in NOISE_CORPORA[name].read(tmp_path / "deep")} == {"44100"}


def test_linked_environments_of_demand_are_found(tmp_path: Path) -> None:
    published_layouts.demand(tmp_path / "store")
    (tmp_path / "linked").mkdir()
    for name in ("DKITCHEN", "NPARK", "TBUS"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "store" / name)
    assert {row[2] for row in entries_of("demand", tmp_path / "linked")} == {"DKITCHEN", "NPARK", "TBUS"}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("fold", "part", r"esc50\.csv: .*column fold"),
        (",3,", ",x,", r"esc50\.csv: .*fold 'x'"),
        ("2-2001-A", "gone", r"metadata of ESC-50: names .*gone-0\.wav"),
    ],
)
def test_damaged_metadata_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    root = published_layouts.esc50(tmp_path / "esc50")
    table = root / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace(before, after))
    with pytest.raises(UserError, match=message):
        prepare(NOISE_CORPORA["esc50"], root, tmp_path / "out")


def test_audioset_has_to_be_collected_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="AudioSet cannot be downloaded from here"):
        prepare(NOISE_CORPORA["audioset"], None, tmp_path)


def test_a_download_is_unpacked_below_the_folder_and_named_relative_to_it(tmp_path: Path) -> None:
    published_layouts.esc50(tmp_path / "pack" / "ESC-50-master")
    content = Path(shutil.make_archive(str(tmp_path / "esc"), "zip", tmp_path / "pack")).read_bytes()
    with serving(content) as server:
        corpus = replace(NOISE_CORPORA["esc50"], archives=(Archive(server.url, "ESC-50-master.zip"),))
        prepare(corpus, None, tmp_path / "out")
        prepare(corpus, None, tmp_path / "out", classes=["rain"])
        assert len(server.requests) == 1
    assert (tmp_path / "out" / "manifest.csv").read_text().splitlines()[1].startswith("download/ESC-50-master/audio/1-")
    assert len(corpora.split_files([tmp_path / "out"], "train", "noise")) == 3
