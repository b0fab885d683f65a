"""The pages in a real browser: no network, nothing too wide, sounds that play, rows in order, a blind comparison."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import NAMES, Page, browser, executable
from experiment_run import make_run
from test_pages import made_scores, write_set

from sgmse.evaluation import scores, set_page
from sgmse.experiments.page.write import write

pytestmark = pytest.mark.browser
GAINS = (
    "[...document.querySelectorAll('.row .gain')]"
    ".map((e) => Number(e.textContent.split(': ')[1].replace('−', '-').split(' ')[0]))"
)
FILES = "[...document.querySelectorAll('.row header b')].map((e) => e.textContent)"
TITLES = "[...document.querySelectorAll('.row:first-child .panel .title')].map((e) => e.textContent)"
PLAYERS = ".row:nth-child({}) .panel:nth-child({}) .player"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with sounds long enough to be heard."""
    run = tmp_path_factory.mktemp("run")
    make_run(run, ("BASE-00", "CFG-00", "CFG-01"), seconds=2.0)
    return write(run, run / "page", 4).parent


@pytest.fixture(scope="module")
def set_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a set with two systems, in page/; without clean files, in before_after/."""
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, seconds=2.0)
    systems = {name: folder / name for name in ("half", "all")}
    frame = made_scores(["noisy", "half", "all"], {"half": 0.3, "all": 0.5})
    where = (folder / "noisy", folder / "clean", folder / "ref")
    set_page.write_page(folder / "page", frame, systems, *where)
    removed = scores.measure_removed(folder / "noisy", systems)
    set_page.write_page(folder / "before_after", removed, systems, folder / "noisy")
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if executable() is None:
        pytest.fail(f"none of {', '.join(NAMES)} is on PATH; on Debian: apt-get install -y chromium")
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def listening(tab: Page, folder: Path) -> Page:
    """The listening page of a run, fresh, without votes."""
    return open_fresh(tab, folder / "listening.html")


def open_fresh(tab: Page, path: Path) -> Page:
    tab.open(path)
    tab.run("localStorage.clear()")
    tab.open(path)
    return tab


def choose(page: Page, select: str, value: str) -> None:
    page.run(f"byId('{select}').value = '{value}'; byId('{select}').onchange({{target: byId('{select}')}})")


@pytest.mark.parametrize("width", [390, 1500])
@pytest.mark.parametrize("name", ["index.html", "listening.html", "page/index.html", "before_after/index.html"])
def test_a_page_loads_without_network_and_without_running_over_its_side(tab, folder, set_folder, name, width):
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    tab.open((set_folder if "/" in name else folder) / name)
    tab.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    tab.wait("[...document.images].every((image) => image.complete)")
    assert tab.run("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.complaints() == []
    tab.send("Emulation.clearDeviceMetricsOverride")


def test_a_click_plays_from_there_and_the_cursor_moves(listening):
    listening.click(PLAYERS.format(2, 2), 0.5)
    listening.wait("playing && playing.audio.currentTime > 1.1 && !playing.audio.error")
    assert listening.run("rows.indexOf(rowOf(playing))") == 1
    assert listening.run("parseFloat(playing.element.querySelector('.cursor').style.left)") > 50
    assert listening.complaints() == []


def test_one_sound_plays_at_a_time_and_keys_keep_the_moment(listening):
    listening.run(
        "window.audios = []; window.Audio = class extends Audio { constructor(u) { super(u); audios.push(this); } }"
    )
    listening.click(PLAYERS.format(1, 2), 0.4)
    listening.wait("playing && playing.audio.currentTime > 0.85")
    for key, title in (("5", "CFG-00"), ("a", "BASE-00"), ("b", "CFG-00")):
        listening.press(key)
        assert listening.run("playing.title") == title
        assert listening.run("playing.audio.currentTime") >= 0.8
        assert listening.run("audios.filter((a) => !a.paused).length") == 1
    listening.press("3")
    assert listening.run("playing.audio.currentTime") < 0.5, "a reference has no moment of the mixture"
    listening.press(" ")
    assert listening.run("audios.filter((a) => !a.paused).length") == 0
    assert listening.run("document.querySelectorAll('.panel.active').length") == 1


def test_rows_are_sorted_and_filtered(listening):
    falling = listening.run(GAINS)
    assert len(falling) == 12
    assert falling == sorted(falling, reverse=True)
    choose(listening, "sort", "loss")
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
    choose(listening, "kind", "chainsaw")
    assert listening.run("rows.every((row) => row.item.kind === 'chainsaw')")
    assert 0 < len(listening.run(FILES)) < 4
    choose(listening, "snr", "5 dB")
    assert listening.run("rows.every((row) => row.item.snr === 5)")


def test_the_experiment_is_chosen(listening):
    before = listening.run("document.querySelector('.panel:nth-child(5) img').src")
    choose(listening, "view", "CFG-01")
    assert listening.run(TITLES)[-1] == "CFG-01"
    assert listening.run("document.querySelector('.panel:nth-child(5) img').src") != before


def test_the_blind_comparison_hides_names_pictures_and_scores_and_counts_votes(listening):
    listening.click("#blind")
    text = listening.run("document.getElementById('rows').innerHTML")
    assert not re.search("BASE-00|CFG-0", text)
    assert listening.run(TITLES)[-2:] == ["A", "B"]
    systems = "[...document.querySelectorAll('.panel:nth-child(n+4)')]"
    assert listening.run(
        f"{systems}.every((e) => !e.querySelector('img, a') && !e.querySelector('.scores').textContent)"
    )
    assert len(set(listening.run("data.items.map((item) => ballot(keyOf(item)).order[0])"))) == 2
    listening.press("a")
    listening.press("Enter")
    listening.press("ArrowDown")
    listening.press("x")
    listening.press("ArrowDown")
    listening.press("Enter")  # nothing of this row is heard
    listening.click(".row:nth-child(4) .votes button:nth-child(2)")
    assert listening.run("document.getElementById('count').textContent") == "3 of 12 voted"
    assert listening.run("rows.slice(0, 4).map((row) => ballot(row.key).vote)") == ["A", "x", None, "B"]


def test_votes_outlive_the_visit_and_are_revealed_with_their_order(listening, folder):
    listening.click("#blind")
    order = listening.run("rows.map((row) => [row.item.file, ballot(row.key).order[0]])")
    for _ in range(3):
        listening.press("a")
        listening.press("Enter")
        listening.press("ArrowDown")
    listening.open(folder / "listening.html")
    listening.click("#blind")
    assert listening.run("rows.map((row) => [row.item.file, ballot(row.key).order[0]])") == order
    listening.run("window.offered = []; offer = (text) => offered.push(text)")
    listening.click("#reveal")
    preferred = [first for _, first in order[:3]]
    text = listening.run("document.getElementById('revealed').innerText")
    counts = [f"{name} {preferred.count(name)}" for name in ("BASE-00", "CFG-00")]
    assert f"Votes: {', '.join(counts)}, no difference 0" in text
    listening.click("#download")
    lines = listening.run("offered[0]").splitlines()
    assert lines[0] == '"comparison","set","file","snr_db","noise","A","B","vote","preferred"'
    assert len(lines) == 4
    for file, first in order[:3]:
        line = next(line.replace('"', "").split(",") for line in lines if f'"{file}"' in line)
        assert line[5] == line[8] == first


@pytest.mark.parametrize(("a", "b", "p"), [(0, 5, 2 / 32), (3, 3, 1.0), (1, 7, 18 / 256)])
def test_the_sign_test_is_the_binomial_one(listening, a, b, p):
    assert listening.run(f"signTest({a}, {b})") == pytest.approx(p)


def test_what_was_removed_stands_beside_each_system_at_the_same_moment(tab, set_folder):
    open_fresh(tab, set_folder / "page" / "index.html")
    assert tab.run(TITLES) == ["clean", "noisy", "reference", "half", "all"]
    tab.press("r")
    assert tab.run(TITLES)[3:] == ["half", "noisy − half", "all", "noisy − all"]
    tab.click(PLAYERS.format(1, 4), 0.5)
    tab.wait("playing && playing.audio.currentTime > 1.05")
    tab.press("5")
    assert tab.run("playing.title") == "noisy − half"
    assert tab.run("playing.audio.currentTime") >= 1
    open_fresh(tab, set_folder / "before_after" / "index.html")
    assert tab.run(TITLES)[-1] == "noisy − all"
    assert "% of the energy removed" in tab.run("document.querySelector('.row .gain').textContent")


def test_the_table_of_every_file_is_sorted_by_a_click_filtered_and_downloaded(tab, set_folder):
    open_fresh(tab, set_folder / "page" / "index.html")
    column = "[...document.querySelectorAll('#table tr td:nth-child(6)')].map((e) => Number(e.textContent))"
    tab.click("#table th:nth-child(6) button")
    scores = tab.run(column)
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    tab.click("#table th:nth-child(6) button")
    assert tab.run(column) == sorted(scores)
    tab.run("window.offered = []; offer = (text) => offered.push(text)")
    choose(tab, "kind", "rain")
    assert tab.run("document.getElementById('shown').textContent") == "2 of 4 files"
    tab.click("#table-csv")
    lines = tab.run("offered[0]").splitlines()
    assert lines[0] == '"file","noise","SNR dB","noisy","half","all"'
    assert len(lines) == 3
    tab.click("#blind")
    assert tab.run("document.getElementById('all').hidden"), "scores beside names would tell"
