"""The page of a run: what it says of a complete run, of an unfinished one, and of what does not count."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import report as command
from commands import call, refusal
from experiment_run import GAINS, RATE, SETS, make_run
from PIL import Image

from sgmse.data import audio
from sgmse.evaluation.listening import estimate_bytes
from sgmse.evaluation.tables import Table, escape_latex, latex, markdown, number, score_interval
from sgmse.experiments import comparisons
from sgmse.experiments.page import listening
from sgmse.experiments.page import write as writer
from sgmse.experiments.page.write import write
from sgmse.experiments.results import read_run
from sgmse.experiments.work import write_record

CLAIM = re.compile(r"https?://|//[a-z]+\.", re.IGNORECASE)


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("href", "src")]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of two seeds, one of its experiments with a random encoder."""
    folder = tmp_path_factory.mktemp("complete")
    make_run(folder, seeds=(0, 1), items=4)
    return folder


@pytest.fixture(scope="module")
def page(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(run_dir, tmp_path_factory.mktemp("out") / "page", 3).parent


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time of a small page; those of the complete run are drawn."""
    monkeypatch.setattr(writer, "draw_figures", lambda *arguments: {})
    monkeypatch.setattr(writer, "draw_forests", lambda *arguments: [])


def items(page: Path) -> dict:
    """What the script of the listening page reads."""
    text = (page / "listening.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_links_to_nothing_outside_its_folder_and_everything_linked_is_there(page):
    for name in ("index.html", "listening.html"):
        text = (page / name).read_text()
        assert not CLAIM.search(text)
        for link in Links(text).found:
            if not link.startswith(("#", "data:")):
                assert (page / link).is_file(), link
    for panel in (panel for item in items(page)["items"] for panel in item["panels"].values()):
        assert (page / panel["sound"]).is_file()
        assert (page / panel["picture"]).is_file()


def test_every_figure_is_drawn(page):
    for name in (*(f"forest-{name}" for name in SETS), "curves", "sweep"):
        with Image.open(page / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 50


def test_the_criteria_come_first_and_carry_their_verdicts(page):
    text = (page / "index.html").read_text()
    assert text.index("Unseen noise") < text.index("All planned differences") < text.index("Scores on esc50")
    assert "not decidable with this n" in text or "not met" in text
    assert "the encoders of CLAP-01 have random weights; they enter no criterion" in text
    assert "CLAP-01 (smoke)" in text


def test_unprocessed_scores_and_differences_are_those_of_the_table(run_dir, page):
    results = pd.read_csv(run_dir / "results.csv")
    run = read_run(run_dir)
    found = comparisons.compare_experiments(run.results, run.trainings, run.plan)
    row = found.query("experiment == 'CFG-01' and `set` == 'esc50' and metric == 'pesq' and by == 'all'").iloc[0]
    by_file = results.query("`set` == 'esc50'").set_index(["experiment", "file", "seed"])["pesq"]
    assert row["mean"] == pytest.approx((by_file["CFG-01"] - by_file["BASE-00"]).mean())
    text = (page / "tables.md").read_text()
    assert score_interval(row, "pesq", signed=True) in text
    noisy = results.query("system == 'noisy' and `set` == 'esc50'")["pesq"].mean()
    assert re.search(rf"\| esc50 +\| {noisy:.3f} ", text)


def test_every_table_is_in_markdown_and_latex(page):
    tex, text = (page / "tables.tex").read_text(), (page / "tables.md").read_text()
    captions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert len(captions) == tex.count(r"\toprule") == tex.count(r"\end{table}")
    assert {"Criteria", "Unprocessed test sets", "Convergence", "Latency", "Model size"} <= set(captions)
    assert {f"Scores on {name}" for name in SETS} <= set(captions)
    assert r"rain\_\&\_wind" in tex
    assert not re.search(r"(?<!\\)[_#]", re.sub(r"\\label\{[^}]*\}", "", tex).split("\n\n", 1)[1])


def test_cells_of_a_table_are_escaped():
    assert escape_latex(r"50 % of a_b & {c} \ ~^ −1 Δ") == (
        r"50 \% of a\_b \& \{c\} \textbackslash{} \textasciitilde{}\textasciicircum{} $-$1 $\Delta$"
    )
    table = Table("t", "Caption", ("a", "b"), (("x|y", "two\nlines"),), ["A note"])
    lines = ["| a    | b         |", "|------|-----------|", "| x\\|y | two lines |", "", "A note"]
    assert markdown(table).splitlines()[2:] == lines
    assert r"x|y & two lines \\" in latex(table)


@pytest.mark.parametrize(("value", "text"), [(-0.004, "0.00"), (-0.12, "−0.12"), (float("nan"), "–"), (None, "–")])
def test_numbers_have_a_true_minus_and_no_negative_zero(value, text):
    assert number(value, 2) == text


def test_the_listening_page_has_every_version_of_an_item_with_its_scores(run_dir, page):
    data = items(page)
    assert data["default"] == "CFG-00"
    assert [view["id"] for view in data["views"]] == list(GAINS)
    assert len(data["items"]) == 3 * len(SETS)
    results = pd.read_csv(run_dir / "results.csv").set_index(["experiment", "file"])
    for item in data["items"]:
        assert {"clean", "noisy", "reference disjoint", "BASE-00", "CFG-00"} <= set(item["panels"])
        rows = results.loc[[("CFG-00", item["file"])]]
        assert item["panels"]["CFG-00"]["value"] == pytest.approx(rows.loc[rows["seed"] == 0, "pesq"].iloc[0])
        assert item["panels"]["reference disjoint"]["seconds"] == pytest.approx(0.2)
    labels = {view["id"]: view["label"] for view in data["views"]}
    assert labels["CFG-01"] == "CFG-01 against BASE-00 (best on validation)"
    assert labels["CLAP-01"].endswith("(smoke: random encoder)")


def test_a_page_of_the_whole_matrix_stays_below_its_weight(run_dir):
    few = read_run(run_dir).enhanced.query("seed == 0")
    many = pd.concat([few.assign(experiment=few["experiment"] + str(place)) for place in range(12)])
    assert listening.count_items(few) == listening.MOST_ITEMS
    panels = many.drop_duplicates(["set", "experiment"]).shape[0]
    items = listening.count_items(many)
    assert 1 < items < listening.MOST_ITEMS
    assert items * panels * estimate_bytes(listening.EXCERPT_S) < listening.MOST_BYTES


@pytest.mark.parametrize("kind", ["</script><b>&", "<!--<script><b>&"])
def test_text_of_a_corpus_cannot_end_the_script_or_become_markup(tmp_path, no_figures, kind):
    make_run(tmp_path / "run", ("BASE-00", "CFG-00"))
    table = pd.read_csv(tmp_path / "run" / "results.csv")
    table["kind"] = kind
    table.to_csv(tmp_path / "run" / "results.csv", index=False)
    out = write(tmp_path / "run", tmp_path / "page", 2).parent
    assert {item["kind"] for item in items(out)["items"]} == {kind}
    assert "<b>&" not in (out / "index.html").read_text() + (out / "listening.html").read_text()


def test_an_unfinished_run_has_a_page_that_says_what_is_missing(tmp_path, no_figures):
    run = tmp_path / "run"
    plan = make_run(run, ("BASE-00", "CFG-00", "CFG-01"))
    failed = {"status": "failed", "error": "the loss became NaN", "product": {}}
    write_record(run, "train_bridge_cfg-01_seed0", failed)
    for name in plan.sets:
        (run / "state" / f"score_CFG-01_seed0_{name}.json").unlink()
    table = pd.read_csv(run / "results.csv")
    table[(table["experiment"] != "CFG-01") & (table["set"] != "esc50")].to_csv(run / "results.csv", index=False)
    shutil.rmtree(run / "enhanced" / "CFG-01")
    shutil.rmtree(run / "trainings" / "bridge_cfg-01")
    out = write(run, run / "page", 2).parent
    text = (out / "index.html").read_text()
    assert "Failed: training bridge_cfg-01, seed 0: the loss became NaN" in text
    assert "3 of 22 parts of the plan are not done yet" in text
    assert "no scores on id of CFG-01 (seed 0)" in text
    assert {item["set"] for item in items(out)["items"]} == {"id", "nonstationary"}


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    make_run(tmp_path)
    for name in ("enhanced", "sets", "choices", "trainings", "state"):
        shutil.rmtree(tmp_path / name)
    for name in ("results.csv", "trainings.csv"):
        (tmp_path / name).unlink()
    out = write(tmp_path, tmp_path / "page", 2).parent
    text = (out / "index.html").read_text()
    assert "Not complete: " in text
    assert "listening.html" not in text
    assert not (out / "listening.html").exists()
    assert not list(out.glob("forest*.png"))


def test_baselines_alone_can_be_listened_to(tmp_path, no_figures):
    make_run(tmp_path, ("BASE-00",))
    data = items(write(tmp_path, tmp_path / "page", 2).parent)
    assert data["default"] == "BASE-00"
    assert data["views"][0]["systems"] == ["BASE-00"]
    assert "reference none" not in data["items"][0]["panels"]


def test_sounds_of_other_kinds_are_found_by_their_name(tmp_path, no_figures):
    make_run(tmp_path, ("BASE-00", "CFG-00"), items=1)
    for path in (tmp_path / "enhanced" / "CFG-00").rglob("*.flac"):
        audio.write(path.with_suffix(".wav"), audio.read(path, RATE), RATE)
        path.with_suffix(".wav").rename(path.with_suffix(".WAV"))
        path.unlink()
    panels = items(write(tmp_path, tmp_path / "page", 2).parent)["items"][0]["panels"]
    assert panels["CFG-00"]["seconds"] == panels["noisy"]["seconds"]


def test_the_command_replaces_an_older_page_and_leaves_nothing_behind(tmp_path, no_figures, capsys):
    make_run(tmp_path, ("BASE-00", "CFG-00"), items=2)
    out = tmp_path / "page"
    for _ in range(2):
        printed = call(command.main, capsys, tmp_path, "--max_items", 1)
        assert printed.startswith(f"{out / 'index.html'}: ")
        (out / "old").touch()
    assert sorted(path.name for path in tmp_path.iterdir() if "page" in path.name) == ["page"]
    assert len(items(out)["items"]) == len(SETS)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    make_run(folder, ("BASE-00", "CFG-01"), items=2)
    return folder


@pytest.mark.parametrize(
    ("file", "damage", "culprit"),
    [
        ("plan.json", lambda text: text[:200], "plan.json: is damaged"),
        ("results.csv", lambda text: text[:70], "results.csv: has no column"),
        ("results.csv", lambda text: text.replace(",smoke,", ",fire,"), "results.csv: has no column smoke"),
        ("results.csv", lambda text: text.replace(",0.7,", ",high,"), "results.csv: cannot be read as a table"),
        ("results.csv", lambda text: text + text.splitlines()[-1] + "\n", "results.csv: has two rows of CFG-01 for"),
        ("results.csv", lambda text: text.replace(64 * "a", 64 * "b", 1), "different test sets of that name"),
        ("trainings.csv", lambda text: text.replace(",500,", ",many,"), "trainings.csv: cannot be read as a table"),
        ("choices/CFG-01/seed0/sweep.csv", lambda text: text[:9], "sweep.csv: has no column"),
        ("trainings/bridge_cfg-01/seed0/validation.csv", lambda text: "nonsense", "validation.csv: has no column"),
    ],
)
def test_a_file_that_is_damaged_or_belongs_elsewhere_is_named(tmp_path, small, capsys, file, damage, culprit):
    folder = Path(shutil.copytree(small, tmp_path / "run"))
    text = (folder / file).read_text()
    assert damage(text) != text
    (folder / file).write_text(damage(text))
    assert culprit in refusal(command.main, capsys, folder)
    assert not (folder / "page").exists()


def test_a_folder_that_is_no_run_and_a_place_that_is_taken_are_refused(tmp_path, capsys, small):
    assert "holds no plan.json" in refusal(command.main, capsys, tmp_path)
    assert "1 or more" in refusal(command.main, capsys, small, "--max_items", 0)
    (tmp_path / "thesis.txt").touch()
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        assert "is no page of this command" in refusal(command.main, capsys, small, "--out", taken)
    assert (tmp_path / "thesis.txt").exists()
