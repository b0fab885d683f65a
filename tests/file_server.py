"""A local web server for the tests of downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What a server sends: `content`, whether parts of it on request, and how many bytes before it hangs up.

    redirects: paths that lead elsewhere, each with where and with more headers; None: there is nothing.
    """

    content: bytes
    ranges: bool = True
    stop_after: int | None = None
    url: str = ""
    kind: str = "application/octet-stream"
    redirects: dict[str, tuple[str, dict[str, str]] | None] = field(default_factory=dict)
    requests: list[str | None] = field(default_factory=list)


@contextmanager
def serving(content: bytes, ranges: bool = True) -> Iterator[Served]:
    """Serve `content` under all other paths on a free port; `requests` collects the Range headers of its requests."""
    served = Served(content, ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.path in served.redirects:
                found = served.redirects[self.path]
                self.send_response(404 if found is None else 302)
                target, headers = found or ("", {})
                for name, value in ({"Location": target, "Content-Length": "0"} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                return
            wanted = self.headers["Range"]
            served.requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and served.ranges else 0
            total = len(served.content)
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Type", served.kind)
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(served.content[start : served.stop_after])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
