"""Facts about manifests: what is written is read, what is wrong is named, what was measured is not measured again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from small_corpora import save

from sgmse.common.errors import UserError
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip, Entry


def entries(folder: Path) -> list[Entry]:
    """Three files, one of them outside of the folder `folder`/set."""
    paths = [save(folder / name) for name in ("set/a.wav", "set/deep/b.flac", "elsewhere/c.wav")]
    return [
        Entry(path, ("rain", "water"), path.stem, split) for path, split in zip(paths, manifest.SPLITS, strict=True)
    ]


def test_what_is_written_is_read_with_paths_below_the_folder_relative(tmp_path: Path) -> None:
    clips = manifest.measure(entries(tmp_path), tmp_path / "set")
    path = manifest.write(tmp_path / "set", [replace(clips[0], fold=3), *clips[1:]])
    assert manifest.read(path) == [replace(clips[0], fold=3), *clips[1:]]
    assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == [
        "a.wav",
        "deep/b.flac",
        str(tmp_path / "elsewhere/c.wav"),
    ]
    (tmp_path / "set").rename(tmp_path / "moved")
    assert manifest.read(tmp_path / "moved" / "manifest.csv")[0].path == tmp_path / "moved/a.wav"


def test_rate_length_and_hash_are_those_of_the_file(tmp_path: Path) -> None:
    [clip, *_] = manifest.measure(entries(tmp_path), tmp_path)
    assert (clip.kind, clip.sample_rate, clip.seconds) == ("rain", 8000, 2.0)
    assert clip.sha256 == hashlib.sha256(clip.path.read_bytes()).hexdigest()


def test_an_interrupted_measurement_goes_on_and_sees_changed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, hashed = entries(tmp_path), []

    def counted(path: Path) -> str:
        if len(hashed) == 2:
            raise KeyboardInterrupt
        hashed.append(path.stem)
        return "0"

    monkeypatch.setattr(manifest, "file_digest", counted)
    with pytest.raises(KeyboardInterrupt):
        manifest.measure(files, tmp_path / "out")
    journal = next((tmp_path / "out").iterdir())
    journal.write_text(journal.read_text() + '\n[["cut by the inter')
    hashed.clear()
    save(files[0].path, 3.0)
    clips = manifest.measure(files, tmp_path / "out")
    assert hashed == ["a", "c"]
    assert [clip.seconds for clip in clips] == [3.0, 2.0, 2.0]
    manifest.write(tmp_path / "out", clips)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("path,kind", "file,kind", "lacks the column path"),
        (",train,", ",training,", r"line 2 is damaged \(the split 'training' is none of train, valid, test"),
        (",8000,", ",fast,", "line 2 is damaged"),
    ],
)
def test_other_columns_splits_and_numbers_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = manifest.write(tmp_path, manifest.measure(entries(tmp_path), tmp_path))
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(UserError, match=rf"manifest\.csv: .*{message}"):
        manifest.read(path)


def test_a_manifest_without_rows_or_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no row"):
        manifest.read(manifest.write(tmp_path, []))
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a CSV file"):
        manifest.read(tmp_path / "manifest.csv")


def test_shared_sources_are_those_across_splits() -> None:
    facts = (("a", "1", "train"), ("b", "1", "train"), ("c", "2", "valid"), ("d", "1", "test"), ("e", "1", "test"))
    clips = [Clip(Path(name), "rain", source, split, 16000, 1.0) for name, source, split in facts]
    assert [(a.path.name, b.path.name) for a, b in manifest.shared_sources(clips)] == [("a", "d")]
    assert manifest.shared_sources(clips[:2]) == []
