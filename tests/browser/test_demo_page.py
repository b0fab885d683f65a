"""The page to play with in a real browser: an example is enhanced, nothing leaves the machine, nothing is too wide."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import NAMES, Page, browser, executable

from sgmse.commands import demo
from sgmse.common.errors import UserError
from sgmse.model.pretrained import released_models

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, int]]:
    """A tab with the page, and the port that it is served at."""
    if executable() is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on PATH")
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        models = {name: str(path) for name, path in released_models().items()}
        page = demo.make_page(models, "cpu", folder)
        demo.launch(page, port, prevent_thread_lock=True)
        try:
            with browser(folder / "profile") as tab:
                tab.send("Page.navigate", url=f"http://127.0.0.1:{port}")
                tab.wait("document.querySelector('#enhance') !== null", 60)
                yield tab, port
        finally:
            page.close(verbose=False)


def foreign(tab: Page, port: int) -> list[str]:
    """What the browser complained of, and requests to anything but the page's own server."""
    return [complaint for complaint in tab.complaints() if f'"url": "http://127.0.0.1:{port}' not in complaint]


def test_an_example_is_enhanced_and_can_be_heard_and_seen(served: tuple[Page, int]) -> None:
    tab, port = served
    tab.wait("document.querySelector('.gallery-item') !== null")
    tab.click(".gallery-item")
    tab.wait("['noisy', 'noise'].every((id) => document.querySelector(`#${id} audio, #${id} .waveform-container`))")
    tab.click("#enhance")
    tab.wait("document.querySelector('#words textarea').value.includes('of sound')", 120)
    assert "the recording of the noise" in tab.run("document.querySelector('#words textarea').value")
    for name in ("enhanced", "removed"):
        tab.wait(f"document.querySelector('#{name} a[download], #{name} .waveform-container') !== null")
    tab.wait("document.querySelector('#picture img').naturalWidth > 600")
    assert foreign(tab, port) == []


def test_nothing_speaks_of_a_missing_recording_but_one_sentence(served: tuple[Page, int]) -> None:
    tab, port = served
    tab.send("Page.navigate", url=f"http://127.0.0.1:{port}")
    tab.wait("document.querySelector('#enhance') !== null && document.querySelector('#words textarea').value === ''")
    tab.click("#enhance")
    tab.wait("document.body.innerText.includes('Record noisy speech first')")


@pytest.mark.parametrize("width", [400, 1500])
def test_nothing_is_wider_than_the_window(served: tuple[Page, int], width: int) -> None:
    tab, _ = served
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    tab.wait(f"document.documentElement.clientWidth <= {width}")
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    tab.send("Emulation.clearDeviceMetricsOverride")


def test_a_port_that_is_taken_is_refused(served: tuple[Page, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in use"):
        demo.launch(demo.make_page({"one": "a.ckpt"}, "cpu", tmp_path), served[1], prevent_thread_lock=True)
