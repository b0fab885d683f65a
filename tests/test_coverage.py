"""Distances from the training references, what they say about the gain, and the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call, refusal, saved_run
from scipy.stats import spearmanr
from short_set import short_set

from scripts import noise_coverage as command
from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.diagnostics import coverage, gain
from sgmse.diagnostics.coverage import correlate, measure_distances, nearest, spearman
from sgmse.diagnostics.items import open_references
from sgmse.diffusion import adaptive
from sgmse.model.enhancer import Enhancer

RNG = np.random.default_rng(0)


def own_sources(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def test_rho_is_that_of_scipy_with_ties():
    x, y = RNG.integers(5, size=40).astype(float), RNG.standard_normal(40)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    y[3] = np.nan
    found = correlate(x, y, own_sources(40))
    assert found.mean == pytest.approx(spearmanr(x, y, nan_policy="omit").statistic)
    assert found.n_files == 39
    assert -1 < found.low < found.mean < found.high < 1


@pytest.mark.parametrize(("slope", "word"), [(-1, "holds"), (1, "contradicted"), (0, "not decidable")])
def test_the_verdict_follows_the_interval(slope, word):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(60)
    found = correlate(x, slope * x + 0.5 * rng.standard_normal(60), own_sources(60))
    assert word in coverage.judge_coverage(found)
    assert f"{found.mean:+.2f}" in coverage.judge_coverage(found)


@pytest.mark.parametrize(
    ("x", "y", "sources"),
    [
        (np.arange(5.0), np.arange(5.0), own_sources(5)),
        (np.arange(20.0), np.ones(20), own_sources(20)),
        (np.arange(20.0), np.arange(20.0), ["one"] * 20),
    ],
)
def test_too_few_files_or_sources_or_equal_gains_decide_nothing(x, y, sources):
    assert "cannot be judged" in coverage.judge_coverage(correlate(x, y, sources))


def test_files_of_one_source_do_not_count_as_independent():
    x, y = RNG.standard_normal((2, 15))
    once = correlate(x, y, own_sources(15))
    often = correlate(np.tile(x, 6), np.tile(y, 6), own_sources(15) * 6)
    pretended = correlate(np.tile(x, 6), np.tile(y, 6), own_sources(90))
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)
    assert pretended.high - pretended.low < 0.6 * (often.high - often.low)


def test_distances_are_those_of_adaptive_guidance_and_of_the_nearest_neighbours():
    known, new = (torch.randn(n, 6, generator=torch.Generator().manual_seed(n)) for n in (200, 9))
    gaussian = adaptive.fit(known)
    found = measure_distances(known, gaussian, torch.cat([new, new + 20]))
    assert found["mahalanobis"][:9] == pytest.approx(gaussian.distance(new).numpy())
    exact = np.sort(np.linalg.norm(new.numpy()[:, None] - known.numpy()[None], axis=2))[:, : coverage.NEIGHBOURS]
    assert nearest(new, known, coverage.NEIGHBOURS).numpy() == pytest.approx(exact, rel=1e-5)
    for name in coverage.DISTANCES:
        assert found[name][9:].min() > 3 * found[name][:9].max()
    own = np.sort(np.linalg.norm(known.numpy()[:, None] - known.numpy()[None], axis=2))[:, 1:6].mean(axis=1)
    assert found["neighbours"][:9] == pytest.approx(exact.mean(axis=1) / np.quantile(own, 0.95), rel=1e-4)


def scores(path: Path, **columns: list) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_gains_are_differences_of_named_systems_with_seeds_averaged(tmp_path):
    files = ["a.wav", "b.wav"] * 4
    table = scores(
        tmp_path / "scores.csv",
        system=["matched"] * 4 + ["null"] * 2 + ["noisy"] * 2,
        seed=[0, 0, 1, 1, 0, 0, 0, 0],
        file=files,
        pesq=[2.0, 3.0, 2.2, 3.4, 1.5, 3.5, 1.0, 1.0],
    )
    found, what = gain.of_scores(table, None, ["ood"])
    assert what == "matched − null"
    assert found.to_dict() == pytest.approx({("ood", "a"): 0.6, ("ood", "b"): -0.3})
    rows = pd.DataFrame({"set": "ood", "file": ["x/b.flac", "c.flac"]})
    assert gain.of_files(found, rows) == pytest.approx([-0.3, float("nan")], nan_ok=True)
    found, what = gain.of_scores(table, ["matched", "noisy"], ["ood"])
    assert found["ood", "a"] == pytest.approx(1.1)
    with pytest.raises(UserError, match="name two of its systems with --gain; there are matched, noisy, null"):
        gain.of_scores(table, ["matched", "baseline"], ["ood"])
    with pytest.raises(UserError, match="no column set"):
        gain.of_scores(table, None, ["ood", "id"])


def test_a_table_of_several_sets_and_experiments_is_taken_apart(tmp_path):
    table = scores(
        tmp_path / "results.csv",
        experiment=["CFG-01", "CFG-01", "BASE-00", "BASE-00"],
        system=["enhanced"] * 4,
        set=["ood", "id"] * 2,
        file=["a"] * 4,
        pesq=[2.0, 3.0, 1.0, 2.5],
    )
    found, _ = gain.of_scores(table, ["CFG-01", "BASE-00"], ["ood", "id"])
    assert found.to_dict() == {("ood", "a"): 1.0, ("id", "a"): 0.5}


def test_files_and_sets_may_have_numbers_for_names(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_text("set,system,file,pesq\n01,matched,007,2\n01,null,007,1.5\n")
    assert gain.of_scores(table, None, ["01"])[0].to_dict() == {("01", "007"): 0.5}


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"file": ["a"]}, "no column pesq"), ({"file": ["a"], "pesq": [1.0]}, "no column system")],
)
def test_a_table_without_scores_is_refused(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        gain.of_scores(scores(tmp_path / "x.csv", **columns), None, ["ood"])
    with pytest.raises(UserError, match="no such file"):
        gain.of_scores(tmp_path / "nowhere.csv", None, ["ood"])


def test_the_command_maps_and_judges_by_a_baseline_and_does_nothing_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adaptive, "NUM_REFERENCES", 24)
    monkeypatch.setattr(coverage, "FEWEST", 3)
    ckpt = saved_run(tmp_path / "logs" / "run")
    bare = saved_run(tmp_path / "logs" / "bare", encoder="none", cond_drop_prob=0.0)
    folder, out = short_set(tmp_path / "set", 4, 1.0), tmp_path / "out"
    asked = ("--ckpt", ckpt, "--test_dir", folder, "--out", out, "--device", "cpu", "--jobs", 1)
    assert "no gain is known" in call(command.main, capsys, *asked)
    assert {p.name for p in out.iterdir()} == {"map.png", "coverage.csv"}
    text = call(command.main, capsys, *asked, "--baseline", bare)
    assert "Spearman's ρ" in text or "cannot be judged" in text
    table = pd.read_csv(out / "coverage.csv")
    assert table["gain"].notna().all()
    assert (table[[*coverage.DISTANCES]] > 0).all(axis=None)
    ours, theirs = (pd.read_csv(out / "scores" / "set" / role / "sweep.csv") for role in ("model", "baseline"))
    ours, theirs = (rows[rows["nfe"] > 0].set_index("file")["pesq"] for rows in (ours, theirs))
    assert table.set_index("file")["gain"].to_dict() == pytest.approx((ours - theirs).to_dict())
    assert (out / "distance.png").is_file()
    written = {path: path.stat().st_mtime_ns for path in out.rglob("sweep.csv")}
    assert len(written) == 2
    call(command.main, capsys, *asked, "--baseline", bare)
    assert written == {path: path.stat().st_mtime_ns for path in out.rglob("sweep.csv")}
    told = open_references(folder, Enhancer.from_checkpoint(ckpt, "cpu"), None).told()
    assert all(json.loads(path.with_suffix(".json").read_text())["references"] == told for path in written), "else anew"
    assert "has a noise encoder" in refusal(command.main, capsys, *asked, "--baseline", ckpt)


def test_the_training_references_are_those_of_the_training_itself(tmp_path, monkeypatch):
    """Also when other validations have drawn from them before: they follow from the settings alone."""
    monkeypatch.setattr(adaptive, "NUM_REFERENCES", 20)
    ckpt = saved_run(tmp_path / "logs" / "run")
    model = Enhancer.from_checkpoint(ckpt, "cpu")
    found = coverage.draw_training_references(model, ckpt.parent.parent / "config.yaml", [])
    assert len(found) == 20
    _, again = coverage.embed_training(model, found)
    assert torch.equal(again.mean, adaptive.fit_training_references(model.encode, found, model.device).mean)
    noise = str(corpora.embedded_dir() / "noise")
    named = coverage.draw_training_references(model, ckpt.parent.parent / "config.yaml", [noise])
    assert all(torch.equal(a, b) for a, b in zip(named, found, strict=True)), "the run took the embedded noise, too"
    pairs = tmp_path / "pairs.yaml"
    pairs.write_text("base_dir: somewhere\n")
    with pytest.raises(UserError, match="trains on pairs, whose noise cannot be replaced"):
        coverage.draw_training_references(model, pairs, [noise])
    with pytest.raises(UserError, match="too few"):
        coverage.embed_training(model, found[:5])


def test_what_cannot_be_mapped_is_refused_in_a_sentence(tmp_path, capsys):
    ckpt, folder = saved_run(tmp_path / "logs" / "run"), short_set(tmp_path / "set", 2, 1.0)
    bare = saved_run(tmp_path / "logs" / "bare", encoder="none", cond_drop_prob=0.0)
    main = command.main
    assert "without a noise encoder" in refusal(main, capsys, "--ckpt", bare, "--test_dir", folder)
    two = refusal(main, capsys, "--ckpt", ckpt, "--test_dir", folder, tmp_path / "other" / "set")
    assert "two sets have the same name" in two
    assert "is no folder of noise" in refusal(main, capsys, "--ckpt", ckpt, "--test_dir", folder, "--train", "gone")
    lonely = refusal(main, capsys, "--ckpt", ckpt, "--test_dir", folder, "--gain", "a", "b")
    assert "give --scores" in lonely
    other = scores(tmp_path / "scores.csv", system=["matched", "null"], file=["x.wav"] * 2, pesq=[2.0, 1.0])
    asked = ("--ckpt", ckpt, "--test_dir", folder, "--out", tmp_path / "out", "--scores")
    assert "both say what the gain is" in refusal(main, capsys, *asked, other, "--baseline", bare)
    assert "has no gain for any file" in refusal(main, capsys, *asked, other)
    assert "name two of its systems" in refusal(main, capsys, *asked, other, "--gain", "null", "null")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    into = ("--ckpt", ckpt, "--test_dir", folder, "--out", tmp_path / "file")
    assert "cannot be written" in refusal(main, capsys, *into)
    (ckpt.parent.parent / "config.yaml").unlink()
    assert "nothing says what" in refusal(main, capsys, "--ckpt", ckpt, "--test_dir", folder)
    (folder / "ref").rename(folder / "elsewhere")
    (ckpt.parent.parent / "config.yaml").write_text("seed: 0\n")
    assert "holds no ref/" in refusal(main, capsys, "--ckpt", ckpt, "--test_dir", folder)


def test_a_correlation_of_all_sets_stands_beside_that_of_each():
    rows = pd.DataFrame({"set": ["a"] * 10 + ["b"] * 10, "source": own_sources(20), "gain": -np.arange(20.0)})
    rows = rows.assign(mahalanobis=np.arange(20.0), neighbours=np.arange(20.0)[::-1])
    lines = coverage.correlate_sets(rows).set_index(["distance", "set"])
    assert [name for _, name in lines.index] == ["a", "b", "all"] * 2
    assert [found.mean for found in lines["found"]] == pytest.approx([-1.0] * 3 + [1.0] * 3)
    assert lines.loc[("mahalanobis", "all"), "found"].n_files == 20
