"""Facts about downloads: resumed, checked, whole or not there."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import serving

from sgmse.common.download import Archive, fetch, obtain, unpack
from sgmse.common.errors import UserError
from sgmse.common.files import file_digest

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.mark.parametrize("digest", [SHA256, MD5, MD5.upper().replace("MD5", "md5"), None])
def test_a_file_arrives_whole(tmp_path: Path, digest: str | None) -> None:
    with serving(CONTENT) as server:
        fetch(server.url, tmp_path / "new" / "file.bin", digest, len(CONTENT))
        assert server.requests == [None]
    assert (tmp_path / "new" / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.bin"]


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with serving(CONTENT) as server:
        server.stop_after = 1_200_000
        with pytest.raises(UserError, match=r"file\.bin: downloading .* stopped .*1200000 bytes are kept"):
            fetch(server.url, path, SHA256)
        assert not path.exists()
        server.stop_after = None
        fetch(server.url, path, SHA256)
        assert server.requests == [None, "bytes=1200000-"]
    assert path.read_bytes() == CONTENT


def test_a_server_that_cannot_send_parts_sends_everything_again(tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"other bytes")
    with serving(CONTENT, ranges=False) as server:
        fetch(server.url, tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_part_that_is_whole_is_only_checked(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    with serving(CONTENT) as server:
        fetch(server.url, tmp_path / "file.bin", SHA256, size)
        assert len(server.requests) == (size is None)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    with serving(CONTENT) as server:
        fetch(server.url, tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_name_and_are_not_resumed(tmp_path: Path) -> None:
    with serving(CONTENT[::-1]) as server, pytest.raises(UserError, match=r"sha256 .* instead of .* was deleted"):
        fetch(server.url, tmp_path / "file.bin", SHA256)
    with serving(CONTENT) as server, pytest.raises(UserError, match=r"has 3000000 bytes instead of 5"):
        fetch(server.url, tmp_path / "file.bin", None, 5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_checked_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    fetch("http://127.0.0.1:1/nobody", path, SHA256)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"file\.bin: has the sha256 .* delete it"):
        fetch("http://127.0.0.1:1/nobody", path, SHA256)
    assert path.read_bytes() == b"something else"


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stopped \(Connection refused\); nothing has arrived yet"):
        fetch("http://127.0.0.1:1/nobody", tmp_path / "file.bin")


def test_a_web_page_is_not_taken_for_the_file(tmp_path: Path) -> None:
    with serving(b"<html>") as server:
        server.kind = "text/html; charset=utf-8"
        with pytest.raises(UserError, match="sent a web page instead of the file"):
            fetch(server.url, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Set.zip", "Set.tar.gz"])
def test_an_archive_unpacks_to_no_more_than_the_disk_has_free(tmp_path: Path, name: str, monkeypatch) -> None:
    archive = _archive(tmp_path / name, {"x.txt": "x" * 1000, "y.txt": "y" * 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1500))
    with pytest.raises(UserError, match="more than its disk has free"):
        unpack(archive, tmp_path / "Set")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def _archive(path: Path, files: dict[str, str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            (path.parent / "member").write_text(text)
            archive.add(path.parent / "member", name)
    (path.parent / "member").unlink()
    return path


@pytest.mark.parametrize("name", ["Set.zip", "Set.tar.gz"])
@pytest.mark.parametrize("prefix", ["Set/", ""])
def test_an_archive_becomes_the_folder_with_or_without_one_inside(tmp_path: Path, name: str, prefix: str) -> None:
    archive = _archive(tmp_path / name, {f"{prefix}a/x.txt": "x", f"{prefix}y.txt": "y"})
    unpack(archive, tmp_path / "Set")
    assert (tmp_path / "Set/a/x.txt").read_text() + (tmp_path / "Set/y.txt").read_text() == "xy"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["Set", name])


def test_a_damaged_archive_leaves_no_folder(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "Set.tar.gz", {"x.txt": "x" * 1000, "y.txt": "y" * 1000})
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"Set\.tar\.gz: is no whole archive"):
        unpack(archive, tmp_path / "Set")
    assert not (tmp_path / "Set").exists()


def test_archives_are_fetched_and_unpacked_once_and_then_deleted(tmp_path: Path) -> None:
    content = _archive(tmp_path / "Set.zip", {"Set/x.txt": "x"}).read_bytes()
    digest = f"sha256:{file_digest(tmp_path / 'Set.zip')}"
    with serving(content) as server:
        archives = [Archive(server.url, "Set.zip", digest)]
        for _ in range(2):
            obtain(archives, tmp_path / "out")
        assert len(server.requests) == 1
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")] == [
        "Set",
        "Set/x.txt",
    ]
