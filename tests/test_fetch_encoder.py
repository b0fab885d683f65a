"""The command that fetches weights, against a server on this machine; resuming is a matter of `download`."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from commands import call
from file_server import Served, serving

from scripts import fetch_encoder
from sgmse.common.errors import run
from sgmse.encoders import weights

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OF_CLAP = replace(weights.CLAP, size=len(CONTENT))


@pytest.fixture
def server() -> Iterator[Served]:
    """Like Hugging Face: /file redirects, telling the hash, to /store, which sends the bytes."""
    with serving(CONTENT) as served:
        served.url = served.url.removesuffix("/file")
        served.redirects = {
            "/file": ("/store", {"X-Linked-ETag": f'"{SHA256}"'}),
            "/moved": ("/file", {}),
            "/unsigned": ("/store", {}),
            "/wrong": ("/store", {"X-Linked-ETag": "0" * 64}),
            "/gone": None,
        }
        yield served


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> Path:
    """Where clap's weights go."""
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(weights.PUBLISHED, "clap", OF_CLAP)
    return weights.CLAP.default_path()


def refusal_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence with which the command refuses. Progress bars write to the same stream, before it."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(fetch_encoder.main)
    assert stop.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    return last


@pytest.mark.parametrize("address", ["/file", "/moved"])
def test_the_file_is_checked_against_the_hash_that_the_redirect_tells(address, server, cached, capsys):
    printed = call(fetch_encoder.main, capsys, "clap", "--url", server.url + address)
    assert cached.read_bytes() == CONTENT
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    assert SHA256 in printed
    assert "CC0-1.0" in printed
    assert "serves no hash" not in printed
    assert server.requests == [None], "the redirect is not followed for the hash"


def test_without_a_hash_the_command_says_that_none_was_checked(server, cached, capsys):
    printed = call(fetch_encoder.main, capsys, "clap", "--url", server.url + "/unsigned")
    assert "serves no hash" in printed
    assert cached.read_bytes() == CONTENT


def test_the_weights_of_panns_must_be_the_published_ones_wherever_they_come_from(server, tmp_path, capsys, monkeypatch):
    out, url = tmp_path / "weights.pth", server.url + "/store"
    monkeypatch.setitem(weights.PUBLISHED, "panns", replace(weights.PANNS, size=len(CONTENT)))
    assert weights.PANNS.digest.removeprefix("md5:") in refusal_of(capsys, "panns", "--out", out, "--url", url)
    assert not out.exists()
    right = replace(weights.PANNS, size=len(CONTENT), digest=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    monkeypatch.setitem(weights.PUBLISHED, "panns", right)
    assert "CC BY 4.0" in call(fetch_encoder.main, capsys, "panns", "--out", out, "--url", url)
    assert out.read_bytes() == CONTENT
    assert "is there already" in call(fetch_encoder.main, capsys, "panns", "--out", out, "--url", url)
    assert len(server.requests) == 2
    out.write_bytes(bytes(len(CONTENT)))
    assert "delete it" in refusal_of(capsys, "panns", "--out", out)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ("", "ENCODER"),
        ("cnn", "ENCODER cnn"),
        ("panns --depth 3", "--depth"),
        ("clap --url URL/gone", "404"),
        ("clap --url URL/wrong", SHA256),
        ("clap --url file.pt", "--url file.pt"),
        ("clap --out .", "--out ."),
        ("clap --url http://127.0.0.1:9/file", "http://127.0.0.1:9/file"),
        ("panns --url http://127.0.0.1:9/file", "http://127.0.0.1:9/file"),
    ],
)
def test_a_mistake_is_refused_and_its_culprit_named(server, cached, capsys, words, culprit):
    assert culprit in refusal_of(capsys, *words.replace("URL", server.url).split())
    assert not cached.parent.exists() or not list(cached.parent.iterdir())


def test_another_place_is_named_as_training_wants_it(server, tmp_path, capsys):
    out = tmp_path / "there.pt"
    printed = call(fetch_encoder.main, capsys, "clap", "--out", out, "--url", server.url + "/file")
    assert f"--encoder clap --encoder_checkpoint {out}" in printed
