"""A headless Chromium, driven over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required --remote-debugging-pipe "
    "--disable-dev-shm-usage --window-size=1500,1000"
).split()
_TIMEOUT_S = 60


def executable() -> str | None:
    """The browser on PATH, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `events`: everything the browser reported since it was opened."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._last = write, read, b"", 0
        self.events: list[dict[str, Any]] = []
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path) -> None:
        """Load a file and wait until it, its pictures and scripts are there."""
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Click an element with the mouse, at a fraction of its width."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(
            f"(() => {{ const b = {find}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }})()"
        )
        at = {"x": box[0] + across * box[2], "y": box[1] + box[3] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The page from its top; `height` in pixels, or all of it."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        found = self.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests for anything but files beside the page."""
        self.run("0")  # what was reported in the meantime
        return [
            json.dumps(event) for event in self.events if _is_complaint(event.get("method"), event.get("params", {}))
        ]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], _TIMEOUT_S)[0]:
                raise TimeoutError(f"the browser said nothing for {_TIMEOUT_S} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _is_complaint(method: str | None, told: dict[str, Any]) -> bool:
    if method == "Runtime.consoleAPICalled":
        return told["type"] in ("error", "warning", "assert")
    if method == "Network.requestWillBeSent":
        return not told["request"]["url"].startswith(("file:", "data:", "blob:"))
    if method == "Network.loadingFailed":
        return not told.get("canceled")
    return method == "Runtime.exceptionThrown" or (method == "Log.entryAdded" and told["entry"]["level"] != "verbose")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A tab of a browser that keeps its data in `profile` and ends with the block."""
    program = executable()
    assert program is not None
    to_browser, from_browser = os.pipe(), os.pipe()
    ours = (to_browser[1], from_browser[0])
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_browser[0], from_browser[1])]

    def connect() -> None:  # the protocol's pipes are file descriptors 3 and 4
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    with (profile.parent / "browser.log").open("wb") as log:
        command = [program, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, preexec_fn=connect, pass_fds=(3, 4), stdout=log, stderr=log)
    for fd in (*theirs, to_browser[0], from_browser[1]):
        os.close(fd)
    page = None
    try:
        page = Page(*ours)
        yield page
    finally:
        if page is not None and process.poll() is None:
            page._session = ""
            page.send("Browser.close")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for fd in ours:
            os.close(fd)
