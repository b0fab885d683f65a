"""Large downloads: with progress, resumed where they stopped, checked by hash, and never half a file under its name."""

from __future__ import annotations

import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest, remove_leftovers, whole_folder
from sgmse.common.progress import progress

_BLOCK = 2**20
_TIMEOUT_S = 60.0
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Archive:
    """A published zip or tar file; `digest` is "md5:..." or "sha256:...", None where no sum is published."""

    url: str
    name: str
    digest: str | None = None

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".zip").removesuffix(".tar.gz")


def obtain(archives: Sequence[Archive], folder: Path) -> Path:
    """Download archives and unpack each as `folder`/<stem>, then delete them; what is there already stays."""
    for archive in archives:
        if not (folder / archive.stem).exists():
            fetch(archive.url, folder / archive.name, archive.digest)
            unpack(folder / archive.name, folder / archive.stem)
        (folder / archive.name).unlink(missing_ok=True)
    return folder


def fetch(url: str, path: Path, digest: str | None = None, size: int | None = None) -> None:
    """Download `url` to `path`, going on where an earlier call stopped; a `path` that is there is only checked.

    What has arrived lies in `<path>.part` until `digest` ("md5:..." or "sha256:...") and `size` (bytes), where they are
    given, have been checked. A part with a wrong hash is deleted, because resuming would not mend it.
    """
    path = Path(path)
    if path.exists():
        wrong = _mismatch(path, digest, size)
        if wrong:
            raise UserError(f"{path}: {wrong}; choose another place, or delete it if it was downloaded")
        return
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, path, size)
        wrong = _mismatch(part, digest, size)
        if wrong:
            part.unlink()
            raise UserError(
                f"{path}: what {url} sent {wrong} and was deleted; repeat the command, and if it happens again the "
                "file has changed there"
            )
        part.replace(path)
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{path}: downloading {url} stopped ({_reason(error)}); {_kept(part)}, so repeat the command to go on, or "
            f"download it elsewhere and put it there"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check the folder and the disk") from error
    except KeyboardInterrupt:
        raise UserError(f"{path}: interrupted; {_kept(part)}, repeat the command to go on") from None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file as `folder`, which appears whole or not at all; a `folder` that is there is kept.

    An archive that holds a single folder of that name becomes `folder` itself.
    """
    if folder.exists():
        return
    remove_leftovers(folder)
    print(f"Unpacking {archive.name} ...", flush=True)
    with whole_folder(folder) as part:
        _extract(archive, part)
        inner = part / folder.name
        if [path.name for path in part.iterdir()] == [folder.name] and inner.is_dir() and not inner.is_symlink():
            inner = inner.rename(part / f".{folder.name}")  # it may hold something of its own name
            for path in inner.iterdir():
                path.rename(part / path.name)
            inner.rmdir()


def _extract(archive: Path, folder: Path) -> None:
    try:
        room = _Room(archive, folder)
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                members = [member for member in file.infolist() if not member.filename.startswith("__MACOSX")]
                room.take(sum(member.file_size for member in members))
                file.extractall(folder, members)
        else:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter=room.filter)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: is no whole archive ({error}); delete it and repeat the command") from error


class _Room:
    """What an archive may unpack to: what the disk has free."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.left = archive, shutil.disk_usage(folder).free

    def take(self, size: int) -> None:
        """Raise `UserError` where `size` more bytes are too many."""
        self.left -= size
        if self.left < 0:
            raise UserError(f"{self.archive}: unpacks to {-self.left / 1e9:.1f} GB more than its disk has free")

    def filter(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        self.take(member.size)
        return tarfile.data_filter(member, folder)


def _receive(url: str, part: Path, path: Path, size: int | None) -> None:
    """Append to `part` what is missing; start anew where the server cannot send the rest alone."""
    done = part.stat().st_size if part.exists() else 0
    if size is not None and done >= size:
        return  # all there, or too much: the check decides
    headers = {"User-Agent": "sgmse", "Accept-Encoding": "identity"}  # compressed bytes could not be resumed
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if done and error.code == _RANGE_NOT_SATISFIABLE:
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(done):
                return
            part.unlink()
            return _receive(url, part, path, size)
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{path}: {url} sent a web page instead of the file; download it by hand and put it there")
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        _append(response, part, path, done if resumed else 0, size)


def _append(response: HTTPResponse, part: Path, path: Path, done: int, size: int | None) -> None:
    """Write the body of `response` behind the first `done` bytes of `part`, with a progress bar.

    `size` is what the whole file should have, for servers that do not say how much they send.
    """
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else size
    with (
        open(part, "ab" if done else "wb") as file,
        progress(total, path.name, "B", done) as counter,
    ):
        while block := response.read(_BLOCK):
            file.write(block)
            done += len(block)
            counter.update(len(block))
    if total is not None and done < total:
        raise ConnectionError(f"{total - done} of {total} bytes are missing")


def _mismatch(path: Path, digest: str | None, size: int | None) -> str:
    """What differs from the promised size and hash, or nothing."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found} bytes instead of {size}"
    algorithm, _, expected = (digest or "").partition(":")
    actual = file_digest(path, algorithm) if expected else ""
    return f"has the {algorithm} {actual} instead of {expected}" if actual != expected.lower() else ""


def _kept(part: Path) -> str:
    return f"{part.stat().st_size} bytes are kept in {part.name}" if part.exists() else "nothing has arrived yet"


def _reason(error: Exception) -> str:
    """The system's words for what went wrong, e.g. "HTTP 404 Not Found"."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
