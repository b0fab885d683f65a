"""Fetch the published weights of a pretrained noise encoder: clap (LAION) or panns (Kong et al.).

The file goes where training and enhancement look for it: encoders/ in $SGMSE_CACHE, else in $XDG_CACHE_HOME/sgmse,
else in ~/.cache/sgmse. A stopped download goes on where it stopped. What arrives is checked against a hash before it
gets its name: for panns the published md5; for clap, of which none is published, the sha256 that Hugging Face serves.

examples:
  python scripts/fetch_encoder.py clap
  python scripts/fetch_encoder.py panns --out weights/Cnn14_mAP=0.431.pth
      for a machine without internet: copy the file there and name it with --encoder_checkpoint
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, Annotated

from sgmse.common.bounds import File, OneOf, ValueName
from sgmse.common.download import fetch
from sgmse.common.errors import UserError, run
from sgmse.common.files import file_digest
from sgmse.common.typed import print_next
from sgmse.encoders import ENCODERS
from sgmse.encoders.weights import PUBLISHED
from sgmse.settings.cli import positional, read_command_line

LINKED_HASH = "X-Linked-ETag"  # of the file behind a redirect, as Hugging Face serves it
TIMEOUT_S = 30.0
DOWNLOADED = [name for name, published in PUBLISHED.items() if published.url]


@dataclass(frozen=True)
class FetchSettings:
    """What to fetch"""

    encoder: Annotated[str, OneOf(tuple(sorted(DOWNLOADED)))] = positional()
    """whose weights"""
    out: File | None = None
    """where to put the file. Default: the cache folder"""
    url: Annotated[str, ValueName("URL")] | None = None
    """another address of the same file. Default: the published one"""


def main() -> None:
    settings = read_command_line(FetchSettings, __doc__)
    published = PUBLISHED[settings.encoder]
    path = settings.out or published.default_path()
    if path.is_dir():
        raise UserError(f"--out {path}: is a folder; name a file in it, such as {path / published.file}")
    url, was_there = settings.url or published.url or "", path.exists()
    if not url.startswith(("https://", "http://")):
        raise UserError(f"--url {url}: is no web address; start it with https://")
    digest = published.digest if published.digest or was_there else served_digest(url)
    if digest is None and not was_there:
        print(f"{url} serves no hash: only the size is checked.")
    fetch(url, path, digest, published.size)
    print(f"{path}: {'is there already, ' if was_there else ''}sha256 {file_digest(path)}")
    licence = ENCODERS[published.encoder].card.licence
    named = [] if path == published.default_path() else ["--encoder_checkpoint", path]
    print(f"licence: {licence}")
    print_next("train.py", "--encoder", published.encoder, *named)


class _UntilHash(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not beyond one that tells the hash of the file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        return None if LINKED_HASH in headers else super().redirect_request(req, fp, code, msg, headers, newurl)


def served_digest(url: str) -> str | None:
    """ "sha256:..." where the server tells it, else None. Raises `UserError` when it cannot be reached."""
    opener = urllib.request.build_opener(_UntilHash)
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "sgmse"})
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            headers = response.headers
    except urllib.error.HTTPError as answer:  # a redirect that is not followed counts as one
        headers = answer.headers
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url} cannot be reached ({reason}); check the connection, or fetch the file elsewhere and copy it"
        ) from None
    found = (headers.get(LINKED_HASH) or "").strip('W/"').lower()
    return f"sha256:{found}" if re.fullmatch("[0-9a-f]{64}", found) else None


if __name__ == "__main__":
    run(main)
