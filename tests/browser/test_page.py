"""The pages of a run in a real browser: no network, sounds that play, rows in order, a comparison that is blind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import NAMES, Page, browser, executable
from experiment_run import make_run

from sgmse.experiments.page.write import write

pytestmark = pytest.mark.browser
GAINS = "[...document.querySelectorAll('.row .gain')].map((e) => Number(e.textContent.replace('−', '-').split(' ')[0]))"
FILES = "[...document.querySelectorAll('.row header b')].map((e) => e.textContent)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with sounds long enough to be heard."""
    run = tmp_path_factory.mktemp("run")
    make_run(run, ("BASE-00", "CFG-00", "CFG-01"), seconds=2.0)
    return write(run, run / "page", 4).parent


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if executable() is None:
        pytest.fail(f"none of {', '.join(NAMES)} is on PATH; on Debian: apt-get install -y chromium")
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def listening(tab: Page, folder: Path) -> Page:
    """The listening page, fresh, without votes."""
    tab.open(folder / "listening.html")
    tab.run("localStorage.clear()")
    tab.open(folder / "listening.html")
    return tab


def choose(page: Page, select: str, value: str) -> None:
    page.run(f"byId('{select}').value = '{value}'; byId('{select}').onchange({{target: byId('{select}')}})")


@pytest.mark.parametrize("name", ["index.html", "listening.html"])
def test_a_page_loads_without_errors_and_without_network(tab, folder, name):
    tab.open(folder / name)
    tab.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    tab.wait("[...document.images].every((image) => image.complete)")
    assert tab.run("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert tab.complaints() == []


def test_no_text_of_the_results_leaves_the_page_on_its_side(tab, folder):
    tab.open(folder / "index.html")
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_click_plays_from_there_and_the_cursor_moves(listening):
    listening.click(".row:nth-child(2) .panel:nth-child(2) .player", 0.5)
    listening.wait("playing.audio.currentTime > 1.1 && !playing.audio.error")
    assert listening.run("rows.indexOf(rows.find((r) => r.panels.includes(playing.panel)))") == 1
    assert listening.run("parseFloat(playing.panel.element.querySelector('.cursor').style.left)") > 50
    assert listening.complaints() == []


def test_one_sound_plays_at_a_time_and_keys_keep_the_moment(listening):
    listening.run(
        "window.audios = []; window.Audio = class extends Audio { constructor(u) { super(u); audios.push(this); } }"
    )
    listening.click(".row:nth-child(1) .panel:nth-child(2) .player", 0.4)
    listening.wait("playing.audio.currentTime > 0.85")
    listening.press("5")
    assert listening.run("playing.panel.title") == "CFG-00"
    assert listening.run("playing.audio.currentTime") >= 0.8
    assert listening.run("audios.filter((a) => !a.paused).length") == 1
    listening.press(" ")
    assert listening.run("audios.filter((a) => !a.paused).length") == 0
    assert listening.run("document.querySelectorAll('.panel.active').length") == 1


def test_rows_are_sorted_and_filtered(listening):
    falling = listening.run(GAINS)
    assert len(falling) == 12
    assert falling == sorted(falling, reverse=True)
    choose(listening, "sort", "failure")
    assert listening.run(GAINS) == sorted(falling)
    choose(listening, "set", "esc50")
    files = listening.run(FILES)
    assert len(files) == 4
    assert all(file.startswith("esc50") for file in files)
    choose(listening, "sort", "snr")
    snrs = listening.run(
        "[...document.querySelectorAll('.row')].map((r) => parseInt(r.innerText.match(/(\\d+) dB SNR/)[1]))"
    )
    assert snrs == sorted(snrs)


def test_the_experiment_is_chosen(listening):
    before = listening.run("document.querySelector('.panel:nth-child(5) img').src")
    choose(listening, "experiment", "CFG-01")
    assert listening.run("document.querySelector('.panel:nth-child(5) .name').textContent.endsWith('CFG-01')")
    assert listening.run("document.querySelector('.panel:nth-child(5) img').src") != before


def test_the_blind_comparison_hides_names_and_scores_and_counts_votes(listening):
    listening.click("#blind")
    text = listening.run("document.getElementById('rows').innerText")
    assert not re.search("BASE-00|CFG-0", text)
    hidden = "[...document.querySelectorAll('.panel:nth-child(n+4) .name span')].map((e) => e.textContent)"
    assert set(listening.run(hidden)) == {"A", "B"}
    assert listening.run("[...document.querySelectorAll('.panel:nth-child(n+4) .scores')].every((e) => !e.textContent)")
    assert len(set(listening.run("data.items.map((item) => ballot(keyOf(item)).first)"))) == 2
    for key in ("a", "b", "x"):
        listening.press(key)
        listening.press("ArrowDown")
    listening.click(".row:nth-child(4) .votes button:nth-child(1)")
    assert listening.run("document.getElementById('count').textContent") == "4 of 12 voted"


def test_votes_outlive_the_visit_and_are_revealed_with_their_order(listening, folder):
    listening.click("#blind")
    order = listening.run("rows.map((row) => [row.item.file, ballot(row.key).first])")
    for _ in range(3):
        listening.press("a")
        listening.press("ArrowDown")
    listening.open(folder / "listening.html")
    listening.click("#blind")
    assert listening.run("rows.map((row) => [row.item.file, ballot(row.key).first])") == order
    listening.run("window.offered = []; offer = (text) => offered.push(text)")
    listening.click("#reveal")
    preferred = [first for _, first in order[:3]]
    text = listening.run("document.getElementById('revealed').innerText")
    numbers = [preferred.count("experiment"), preferred.count("baseline")]
    assert f"Votes: CFG-00 {numbers[0]}, BASE-00 {numbers[1]}, no difference 0" in text
    listening.click("#download")
    lines = listening.run("offered[0]").splitlines()
    assert lines[0] == '"experiment","baseline","seed","set","file","A","B","vote","preferred"'
    assert len(lines) == 4
    named = {"baseline": "BASE-00", "experiment": "CFG-00"}
    for file, first in order[:3]:
        line = next(line.replace('"', "").split(",") for line in lines if f'"{file}"' in line)
        assert line[5] == line[8] == named[first]


@pytest.mark.parametrize(("a", "b", "p"), [(0, 5, 2 / 32), (3, 3, 1.0), (1, 7, 18 / 256)])
def test_the_sign_test_is_the_binomial_one(listening, a, b, p):
    assert listening.run(f"signTest({a}, {b})") == pytest.approx(p)
