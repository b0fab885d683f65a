"""The sweep: its cells, that batches change nothing, that references are encoded once, resuming, table and pictures."""

import json
import shutil
import sqlite3

import numpy as np
import pandas as pd
import pytest
from commands import call, refusal, saved_run
from short_set import short_set
from tiny import tiny

from scripts import guidance_sweep
from sgmse.common.errors import UserError
from sgmse.enhancement.engine import Engine, enhance_and_score
from sgmse.enhancement.lookup import open_test_set
from sgmse.enhancement.settings import parse_interval, sweep_settings
from sgmse.evaluation import sweep
from sgmse.evaluation.results import Results
from sgmse.evaluation.scores import scorer
from sgmse.evaluation.sweep import columns, front

BRIDGE, OUVE = tiny().eval(), tiny(sde="ouve").eval()


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    return short_set(tmp_path_factory.mktemp("sets") / "set", 4, 1.0)


def test_cells_are_all_combinations_each_once():
    found = sweep_settings(BRIDGE, ["auto", "bridge_ode2"], [1, 5], [0, 1, 3], ["none", "0.2:0.8"])
    assert len({cell.key for cell in found}) == len(found) == 2 * 2 * 4
    plain = [cell.to_dict()["interval"] for cell in found if cell.guidance.guidance_scale in (0, 1)]
    assert plain == ["none"] * 8, "w = 0 and w = 1 are guided nowhere"
    assert found[0].to_dict() == {"sampler": "bridge_ode", "N": 1, "guidance_scale": 0, "interval": "none"}
    rk45 = sweep_settings(OUVE, ["rk45", "dpm2:quadratic"], [3, 5], [1], ["none"])
    assert [cell.to_dict()["sampler"] for cell in rk45] == ["rk45", "dpm2:quadratic", "dpm2:quadratic"]


def test_by_default_a_model_that_cannot_be_guided_is_not():
    assert len(sweep_settings(BRIDGE, ["auto"], [1], None, ["none"])) == 7
    for model in (tiny(encoder="none", cond_drop_prob=0.0), tiny(cond_drop_prob=0.0)):
        assert [cell.guidance.scale for cell in sweep_settings(model, ["auto"], [1], None, ["none"])] == [1]
        with pytest.raises(UserError, match="nothing to guide"):
            sweep_settings(model, ["auto"], [1], [1, 3], ["none"])


@pytest.mark.parametrize("text", ["0.8:0.2", "0.5", "a:b", "0.5:0.5", "-0.1:0.5", "0.5:1.5", "nan:1", ""])
def test_an_interval_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="write none, or two diffusion times"):
        parse_interval(text)


def test_every_reference_is_encoded_once_whatever_the_number_of_cells(test_set, tmp_path):
    encoded = []
    hook = BRIDGE.encoder.register_forward_hook(lambda _, arguments, __: encoded.append(len(arguments[0])))
    chosen = open_test_set(test_set, is_scored=True, max_files=3)
    try:
        cells = sweep_settings(BRIDGE, ["auto"], [1, 2], [0, 1, 3], ["none"])
        with scorer(1) as score:
            enhance_and_score(Engine(BRIDGE, batch_size=2), chosen, cells, Results(tmp_path, {}), score)
    finally:
        hook.remove()
    assert sorted(encoded) == [1, 2], "two batches, three files"


def row(cell, file, pesq, **values):
    key = dict(zip(columns()[:4], cell, strict=True))
    return {
        **dict.fromkeys(columns(), 0.5),
        **key,
        "file": file,
        "pesq": pesq,
        "reason": "",
        "nfe": 1,
        "passes": 1,
    } | values


W1, W3, NOISY = ("bridge_ode", 1, 1.0, "none"), ("bridge_ode", 1, 3.0, "none"), ("noisy", 0, 1.0, "none")


def test_the_table_compares_each_cell_with_w_1_file_by_file():
    rows = [row(NOISY, f, 1.0, nfe=0) for f in "abc"]
    rows += [row(W1, f, pesq, seconds=0.1) for f, pesq in zip("abc", (1.0, 2.0, 3.0), strict=True)]
    rows += [row(W3, f, pesq, passes=2) for f, pesq in zip("abc", (1.4, 2.5, 3.6), strict=True)]
    lines = sweep.summarise_cells(pd.DataFrame(rows, columns=columns()))
    noisy, plain, guided = (line for _, line in lines.iterrows())
    assert plain["pesq"] == pytest.approx(2)
    assert plain["rtf"] == pytest.approx(0.1 / 0.5)
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t of two degrees of freedom
    ends = (guided["d_pesq_low"], guided["d_pesq"], guided["d_pesq_high"])
    assert ends == pytest.approx((0.5 - half, 0.5, 0.5 + half))
    assert np.isnan(plain["d_pesq"])
    assert np.isnan(noisy["d_pesq"])
    text = sweep.markdown(lines).splitlines()
    assert len({len(line) for line in text}) == 1, "columns are aligned"
    assert f"+0.500 [+{0.5 - half:.3f}, +{0.5 + half:.3f}]" in text[-1]


def test_the_front_holds_what_no_cheaper_cell_surpasses():
    made = pd.DataFrame({"passes": [1, 1, 2, 3, 4], "pesq": [2.0, 2.1, 2.05, 2.3, np.nan]})
    assert front(made, "pesq").index.tolist() == [1, 3]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("logs") / "run")


@pytest.fixture
def run_sweep(ckpt, test_set, capsys):
    """Run the sweep into a folder; returns what was said."""

    def swept(out, *more):
        flags = ("--ckpt", ckpt, "--test_dir", test_set, "--out", out, "--max_files", 2, "--jobs", 1, "--device", "cpu")
        return call(guidance_sweep.main, capsys, *flags, "--scales", 1, 3, "--steps", 1, 2, *more)

    return swept


def test_the_command_leaves_scores_table_and_pictures_and_a_rerun_goes_on(run_sweep, tmp_path):
    said = run_sweep(tmp_path)
    assert "4 cells of 2 files, 0 done already; references: disjoint" in said
    frame = pd.read_csv(tmp_path / "sweep.csv")
    assert list(frame.columns) == columns()
    assert len(frame) == (4 + 1) * 2
    assert frame["sampler"][0] == "noisy"
    assert frame["pesq"].between(1, 4.7).all()
    assert (frame["passes"] == frame["nfe"] * np.where(frame["guidance_scale"] == 3, 2, 1)).all()
    assert (tmp_path / "table.md").read_text() in said
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.index("Differences to w = 1") < page.index("Quality over cost") < page.index("All cells")
    for name in ("curves.png", "pareto.png", "page/forest_pesq.png", "page/curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "sweep.json").read_text())["files"]) == 2
    (tmp_path / "sweep.csv").unlink()  # it is an export
    said = run_sweep(tmp_path, "--intervals", "none", "0.4:0.6")
    assert "6 cells of 2 files, 4 done already" in said
    again = pd.read_csv(tmp_path / "sweep.csv")
    pd.testing.assert_frame_equal(again[: len(frame)], frame)
    assert list(again["interval"][len(frame) :]) == ["0.4:0.6"] * 4
    said = run_sweep(tmp_path, "--seed", 1, "--precision", "bf16-mixed")
    assert "all cells are done again: precision, seed changed" in said
    half = pd.read_csv(tmp_path / "sweep.csv")["si_sdr"]
    assert 0 < np.abs(half - frame["si_sdr"]).max() < 20, "the tiny network is far from any sensible weights"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "--steps"),
        (["--steps", "-2"], "--steps"),
        (["--steps", "few"], "--steps"),
        (["--batch_size", "0"], "--batch_size"),
        (["--intervals", "0.8:0.2"], "the lower one first"),
        (["--scales", "inf"], "--scales inf"),
        (["--scales", "nan"], "--scales nan"),
        (["--samplers", "heum"], "no such sampler"),
        (["--samplers", "heun"], "does not fit the model's diffusion process"),
        (["--samplers", "bridge_ode:cubic"], "a schedule is uniform or quadratic"),
        (["--samplers", "pc"], "use bridge_ode, bridge_ode2 or bridge_sde"),
        (["--ckpt", "absent.ckpt"], "absent.ckpt: no such checkpoint"),
        (["--reference", "mismatched", "--test_dir", "SET"], "SET"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(ckpt, test_set, tmp_path, capsys, more, message):
    lame = tmp_path / "set"
    shutil.copytree(test_set / "noisy", lame / "noisy")
    more = [str(lame) if word == "SET" else word for word in more]
    flags = ("--ckpt", ckpt, "--test_dir", test_set, "--out", tmp_path / "out", "--device", "cpu")
    said = refusal(guidance_sweep.main, capsys, *flags, *more)
    assert message.replace("SET", str(lame)) in said
    assert not (tmp_path / "out").exists()


def test_cells_of_an_earlier_version_which_did_not_name_its_command_are_kept(run_sweep, tmp_path):
    run_sweep(tmp_path)
    with sqlite3.connect(tmp_path / "results.sqlite") as table:
        table.execute("DELETE FROM facts WHERE name = 'command'")
    assert "4 done already" in run_sweep(tmp_path)


@pytest.mark.parametrize("name", ["results.sqlite", "notes.txt"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(run_sweep, tmp_path, name):
    if name == "results.sqlite":
        Results(tmp_path, {"sampler": "pc"}).add([{"checkpoint": "a", "setting": "s", "file": "x.wav"}])
    else:
        (tmp_path / name).write_text("mine")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match="choose another"):
        run_sweep(tmp_path)
    assert (tmp_path / name).read_bytes() == before


def test_a_cell_whose_interval_holds_no_evaluation_has_no_line():
    def rows(scale, interval, passes):
        cell = {"sampler": "bridge_ode", "N": 1, "guidance_scale": scale, "interval": interval}
        cost = {"nfe": 1, "passes": passes, "seconds": 1.0, "audio_s": 2.0}
        return [{**cell, "file": name, **cost, "pesq": 1.0, "estoi": 0.5, "si_sdr": 3.0} for name in ("a", "b")]

    frame = pd.DataFrame([*rows(1.0, "none", 1), *rows(3.0, "none", 2), *rows(3.0, "0.2:0.4", 1)])
    assert list(sweep.summarise_cells(frame)["interval"]) == ["none", "none"]
