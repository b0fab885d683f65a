"""A RUN_DIR whose files are damaged: each is named in one sentence, or done again."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from experiment_run import make_run
from tiny_experiments import StandIn, plan, work

from sgmse.common.errors import UserError
from sgmse.experiments import results
from sgmse.experiments.page.write import write
from sgmse.experiments.plan import join_plan
from sgmse.experiments.scoring import COLUMNS
from sgmse.experiments.work import Cell, Work, read_record

NO_PRODUCT = '{"cell": "c", "status": "done", "hash": "h", "started": "s", "product": [1]}'


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make_run(folder, ("BASE-00", "CFG-01"), items=2)
    return folder


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("plan.json", lambda text: text[:200], "plan.json: is damaged"),
        ("results.csv", lambda text: text[:70], "results.csv: has no column"),
        ("results.csv", lambda text: text.replace(",0.7,", ",high,"), "results.csv: cannot be read as a table"),
        ("results.csv", lambda text: text + text.splitlines()[-1] + "\n", "results.csv: has two rows of CFG-01 for"),
        ("trainings.csv", lambda text: text.replace(",500,", ",many,"), "trainings.csv: cannot be read as a table"),
        ("choices/CFG-01/seed0/sweep.csv", lambda text: text[:9], "sweep.csv: has no column"),
        ("trainings/bridge_cfg-01/seed0/validation.csv", lambda text: "nonsense", "validation.csv: has no column"),
    ],
)
def test_the_page_names_the_file_that_is_damaged(tmp_path, whole, file: str, damage: Callable[[str], str], told: str):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    text = (folder / file).read_text()
    assert damage(text) != text
    (folder / file).write_text(damage(text))
    with pytest.raises(UserError, match=re.escape(told)):
        write(folder, folder / "page", 1)
    assert not (folder / "page").exists()


def test_the_page_takes_the_place_of_no_file(tmp_path, whole):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis.txt: exists and is no page of this command"):
        write(whole, tmp_path / "thesis.txt", 1)


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*; choose another --out"):
        join_plan(tmp_path / out, plan(tmp_path))


@pytest.mark.parametrize("text", ["", "[1]", '{"cell": "c"}', b"\xff\xfe", NO_PRODUCT])
def test_a_cell_whose_record_is_damaged_was_never_begun(tmp_path, text):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "c.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_record(tmp_path, "c") is None


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [("pesq", "high", "cannot be read as a table"), ("leak", None, "column leak")],
)
def test_scores_that_are_no_table_of_the_runner_are_refused(tmp_path, monkeypatch, column, value, told):
    done = work(tmp_path / "run", join_plan(tmp_path / "run", plan(tmp_path)), StandIn())
    noisy = Cell("noisy", "id")
    frame = pd.DataFrame([dict.fromkeys(COLUMNS, "0")]).assign(**{column: value})
    done.place(noisy).parent.mkdir(parents=True)
    frame.dropna(axis="columns").to_csv(done.place(noisy), index=False)
    monkeypatch.setattr(Work, "is_done", lambda self, cell: cell.key == noisy.key)
    with pytest.raises(UserError, match=told):
        results.collect(done)
