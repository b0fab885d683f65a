"""The command that fetches weights, against a server on this machine."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from commands import call, refusal

from scripts import fetch_encoder
from sgmse.common.errors import run
from sgmse.encoders import weights

CONTENT = bytes(range(256)) * 20000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    linked_hash: str | None = SHA256
    ranges: bool = True
    stop_after: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """Like Hugging Face: /file redirects, telling the hash, to /store, which sends the bytes."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.command, self.path, wanted))
            if self.path == "/file":
                self.send_response(302)
                self.send_header("Location", "/store")
                if state.linked_hash is not None:
                    self.send_header("X-Linked-ETag", f'"{state.linked_hash}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == "/moved":
                self.send_response(307)
                self.send_header("Location", "/file")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == "/store":
                self.send_content(int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else None)
            else:
                self.send_error(404)

        def send_content(self, start: int | None) -> None:
            body = CONTENT[start or 0 :]
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: state.stop_after])

        def log_message(self, format: str, *arguments: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_address[1]}"
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> Path:
    """Where clap's weights go."""
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path / "cache"))
    return weights.CLAP.default_path()


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def refusal_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence with which the command refuses. Progress bars write to the same stream, before it."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(fetch_encoder.main)
    assert stop.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "culprit"), [((), "ENCODER"), (("cnn",), "ENCODER cnn"), (("panns", "--depth", "3"), "--depth")]
)
def test_a_wrong_argument_is_refused_and_named(capsys, arguments, culprit):
    assert culprit in refusal(fetch_encoder.main, capsys, *arguments)


@pytest.mark.parametrize("address", ["/file", "/moved"])
def test_the_file_is_checked_against_the_hash_that_the_redirect_tells(address, server, cached, capsys):
    printed = call(fetch_encoder.main, capsys, "clap", "--url", server.url + address)
    assert cached.read_bytes() == CONTENT
    assert not part_of(cached).exists()
    assert SHA256 in printed
    assert "CC0-1.0" in printed
    assert "serves no hash" not in printed
    assert ("HEAD", "/store", None) not in server.asked


def test_a_stopped_download_says_how_to_go_on_and_goes_on(server, cached, capsys):
    server.stop_after = 100_000
    said = refusal_of(capsys, "clap", "--url", server.url + "/file")
    assert "repeat the command" in said
    assert part_of(cached).stat().st_size == 100_000
    server.stop_after = None
    call(fetch_encoder.main, capsys, "clap", "--url", server.url + "/file")
    assert ("GET", "/store", "bytes=100000-") in server.asked
    assert cached.read_bytes() == CONTENT


def test_a_server_that_cannot_resume_sends_everything_again(server, cached, capsys):
    server.ranges = False
    part_of(cached).parent.mkdir(parents=True)
    part_of(cached).write_bytes(CONTENT[:1000])
    call(fetch_encoder.main, capsys, "clap", "--url", server.url + "/file")
    assert cached.read_bytes() == CONTENT


def test_a_wrong_hash_leaves_no_file(server, cached, capsys):
    server.linked_hash = "0" * 64
    said = refusal_of(capsys, "clap", "--url", server.url + "/file")
    assert SHA256 in said
    assert "0" * 64 in said
    assert list(cached.parent.iterdir()) == []


def test_without_a_hash_the_command_says_that_none_was_checked(server, cached, capsys):
    server.linked_hash = None
    printed = call(fetch_encoder.main, capsys, "clap", "--url", server.url + "/file")
    assert "serves no hash" in printed
    assert cached.read_bytes() == CONTENT


def test_the_weights_of_panns_must_be_the_published_ones_wherever_they_come_from(server, tmp_path, capsys, monkeypatch):
    out, url = tmp_path / "weights.pth", server.url + "/store"
    as_long = replace(weights.PANNS, size=len(CONTENT))
    monkeypatch.setitem(weights.PUBLISHED, "panns", as_long)
    said = refusal_of(capsys, "panns", "--out", out, "--url", url)
    assert "541141fa2ee191a88f24a3219fff024e and was deleted" in said
    right = replace(as_long, digest=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    monkeypatch.setitem(weights.PUBLISHED, "panns", right)
    printed = call(fetch_encoder.main, capsys, "panns", "--out", out, "--url", url)
    assert "CC BY 4.0" in printed
    assert out.read_bytes() == CONTENT


def test_a_file_that_is_there_is_kept_and_one_with_another_hash_is_told(server, tmp_path, cached, capsys):
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert "is there already" in call(fetch_encoder.main, capsys, "clap", "--url", server.url + "/file")
    wrong = tmp_path / "panns.pth"
    wrong.write_bytes(b"weights")
    assert weights.PANNS.digest.removeprefix("md5:") in refusal_of(capsys, "panns", "--out", wrong)
    assert server.asked == []


def test_no_connection_is_told_in_a_sentence(server, cached, capsys):
    said = refusal_of(capsys, "clap", "--url", "http://127.0.0.1:9/file")
    assert said.startswith("http://127.0.0.1:9/file cannot be reached")
    assert "127.0.0.1:9" in refusal_of(capsys, "panns", "--url", "http://127.0.0.1:9/file")


def test_a_wrong_address_and_a_folder_as_target_are_told(server, tmp_path, capsys):
    assert "404" in refusal_of(capsys, "clap", "--url", server.url + "/gone")
    assert "is no web address" in refusal_of(capsys, "clap", "--url", "file.pt")
    assert "is a folder; name a file in it" in refusal_of(capsys, "clap", "--out", tmp_path)


def test_another_place_is_named_as_training_wants_it(server, tmp_path, capsys):
    out = tmp_path / "there.pt"
    printed = call(fetch_encoder.main, capsys, "clap", "--out", out, "--url", server.url + "/file")
    assert f"--encoder clap --encoder_checkpoint {out}" in printed
