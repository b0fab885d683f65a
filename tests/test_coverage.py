"""Distances from the training references, what they say about the gain, and the command."""

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
from sgmse.diagnostics import coverage
from sgmse.diagnostics.coverage import correlate, measure_distances, nearest
from sgmse.diffusion import adaptive
from sgmse.enhancement.engine import Engine
from sgmse.model.enhancer import Enhancer

RNG = np.random.default_rng(0)


def own_sources(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def test_rho_is_that_of_scipy_with_ties():
    x, y = RNG.integers(5, size=40).astype(float), RNG.standard_normal(40)
    y[3] = np.nan
    found = correlate(x, y, own_sources(40))
    assert found.mean == pytest.approx(spearmanr(x, y, nan_policy="omit").statistic)
    assert found.n_files == 39
    assert -1 < found.low < found.mean < found.high < 1


def test_95_percent_of_the_intervals_of_rho_hold_the_truth():
    """Of 12 sources with 3 files each, of which the files of a source are alike."""
    rng, true, held = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2), 0
    for _ in range(100):
        source, file = (rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], n) for n in (12, 36))
        x, y = (np.sqrt(0.7) * source.repeat(3, axis=0) + np.sqrt(0.3) * file).T
        found = correlate(x, y, [name for name in own_sources(12) for _ in range(3)])
        held += found.low <= true <= found.high
    assert 89 <= held <= 99


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
        (np.repeat([0.0, 1.0], 10), np.arange(20.0), ["one"] * 10 + ["another"] * 10),
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


def test_a_correlation_of_all_sets_stands_beside_that_of_each():
    rows = pd.DataFrame({"set": ["a"] * 10 + ["b"] * 10, "source": own_sources(20), "gain": -np.arange(20.0)})
    rows = rows.assign(mahalanobis=np.arange(20.0), neighbours=np.arange(20.0)[::-1])
    lines = coverage.correlate_sets(rows)
    assert lines["set"].tolist() == ["a", "b", "all"] * 2
    assert [found.mean for found in lines["found"]] == pytest.approx([-1.0] * 3 + [1.0] * 3)
    assert [found.n_files for found in lines["found"]] == [10, 10, 20] * 2


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


def table(path: Path, text: str) -> Path:
    path.write_text(text.replace(" ", "\n") + "\n")
    return path


def test_gains_are_differences_of_named_systems_with_seeds_averaged(tmp_path):
    rows = "matched,0,a.wav,2 matched,0,b.wav,3 matched,1,a.wav,2.2 matched,1,b.wav,3.4"
    rows += " null,0,a.wav,1.5 null,0,b.wav,3.5 noisy,,a.wav,1 noisy,,b.wav,"
    path = table(tmp_path / "scores.csv", f"system,seed,file,pesq {rows}")
    found, what = coverage.read_gains(path, [], ["ood"])
    assert what == "matched − null"
    assert found.to_dict() == pytest.approx({("ood", "a"): 0.6, ("ood", "b"): -0.3})
    files = pd.DataFrame({"set": "ood", "file": ["b.flac", "c.flac", "x/b.flac"]})
    gains = coverage.match_gains(found, files).tolist()
    assert gains == pytest.approx([-0.3, float("nan"), float("nan")], nan_ok=True)  # x/b is another file
    found, _ = coverage.read_gains(path, ["matched", "noisy"], ["ood"])
    assert found.to_dict() == pytest.approx({("ood", "a"): 1.1})


def test_what_follows_a_dot_in_a_name_is_no_suffix_unless_it_is_one(tmp_path):
    rows = "matched,0,a_2.5,2 matched,0,a_2.7.FLAC,3 null,0,a_2.5,1 null,0,a_2.7.FLAC,1"
    found, _ = coverage.read_gains(table(tmp_path / "scores.csv", f"system,seed,file,pesq {rows}"), [], ["ood"])
    files = pd.DataFrame({"set": "ood", "file": ["a_2.5.flac", "a_2.7.flac"]})
    assert coverage.match_gains(found, files).tolist() == [1, 2]


def test_a_table_of_several_sets_and_experiments_is_taken_apart_and_names_may_be_numbers(tmp_path):
    rows = "CFG-01,enhanced,02,007,2 CFG-01,enhanced,01,007,3 BASE-00,enhanced,02,007,1 BASE-00,enhanced,01,007,2.5"
    path = table(tmp_path / "results.csv", f"experiment,system,set,file,pesq {rows}")
    found, _ = coverage.read_gains(path, ["CFG-01", "BASE-00"], ["02", "01"])
    assert found.to_dict() == {("02", "007"): 1.0, ("01", "007"): 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("coverage")
    bare = saved_run(root / "logs" / "bare", encoder="none", cond_drop_prob=0.0)
    return {"RUN": saved_run(root / "logs" / "run"), "BARE": bare, "SET": short_set(root / "set", 4, 1.0)}


def test_the_command_maps_and_judges_by_a_baseline_and_does_nothing_twice(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(adaptive, "NUM_REFERENCES", 24)
    monkeypatch.setattr(coverage, "FEWEST", 3)
    out = tmp_path / "out"
    words = ("--ckpt", runs["RUN"], "--test_dir", runs["SET"], "--out", out, "--device", "cpu", "--jobs", 1)
    assert "no gain is known" in call(command.main, capsys, *words)
    assert {p.name for p in out.iterdir()} == {"map.png", "coverage.csv"}
    text = call(command.main, capsys, *words, "--baseline", runs["BARE"])
    assert "Spearman's ρ" in text or "cannot be judged" in text
    found = pd.read_csv(out / "coverage.csv")
    assert found["gain"].notna().all()
    assert (found[[*coverage.DISTANCES]] > 0).all(axis=None)
    rows = pd.read_csv(out / "scores" / "set" / "scores.csv").set_index(["protocol", "file"])["pesq"]
    gains = (rows["disjoint"] - rows["none"]).to_dict()
    assert found.set_index("file")["gain"].to_dict() == pytest.approx(gains)
    assert (out / "distance.png").is_file()
    done: list[object] = []
    monkeypatch.setattr(Engine, "encode_groups", lambda *given: done.append(given) or [])
    assert call(command.main, capsys, *words, "--baseline", runs["BARE"]) == text
    assert not done


def test_the_training_references_are_those_of_the_training_itself(runs, tmp_path, monkeypatch):
    """Also when other validations have drawn from them before: they follow from the settings alone."""
    monkeypatch.setattr(adaptive, "NUM_REFERENCES", 20)
    model, config = Enhancer.from_checkpoint(runs["RUN"], "cpu"), runs["RUN"].parent.parent / "config.yaml"
    found = coverage.draw_training_references(model, config, [])
    assert len(found) == 20
    _, again = coverage.embed_training(model, found)
    assert torch.equal(again.mean, adaptive.fit_training_references(model.encode, found, model.device).mean)
    noise = str(corpora.embedded_dir() / "noise")
    named = coverage.draw_training_references(model, config, [noise])
    assert all(torch.equal(a, b) for a, b in zip(named, found, strict=True)), "the run took the embedded noise, too"
    with pytest.raises(UserError, match="too few"):
        coverage.embed_training(model, found[:5])
    pairs = tmp_path / "pairs.yaml"
    pairs.write_text("base_dir: somewhere\n")
    with pytest.raises(UserError, match="trains on pairs, whose noise cannot be replaced"):
        coverage.draw_training_references(model, pairs, [noise])


REFUSED = [
    ("--ckpt BARE --test_dir SET", "bare/checkpoints/last.ckpt: was trained without a noise encoder"),
    ("--ckpt RUN --test_dir SET TWIN", "--test_dir: two sets"),
    ("--ckpt RUN --test_dir SET --train gone", "--train gone"),
    ("--ckpt RUN --test_dir SET --train a.yaml b.yaml", "--train b.yaml"),
    ("--ckpt RUN --test_dir SET --max_files 0", "--max_files"),
    ("--ckpt RUN --test_dir SET --gain a b", "--gain"),
    ("--ckpt RUN --test_dir SET --scores nowhere.csv", "nowhere.csv"),
    ("--ckpt RUN --test_dir SET --scores SCORES --baseline BARE", "--scores and --baseline"),
    ("--ckpt RUN --test_dir SET --baseline RUN", "--baseline"),
    ("--ckpt RUN --test_dir SET --scores SCORES", "scores.csv: has no gain for any file"),
    ("--ckpt RUN --test_dir SET --scores SCORES --gain null null", "name two of its systems"),
    ("--ckpt RUN --test_dir SET --scores SCORES --gain matched baseline", "there are matched, null"),
    ("--ckpt RUN --test_dir SET OTHER --scores SCORES", "has no column set"),
    ("--ckpt RUN --test_dir SET --scores NO_PESQ", "no column pesq"),
    ("--ckpt RUN --test_dir SET --scores NO_SYSTEM", "no column system"),
    ("--ckpt ALONE --test_dir SET", "config.yaml: no such file"),
    ("--ckpt RUN --test_dir NO_REF", "holds no ref/"),
    ("--ckpt RUN --test_dir SET --out FILE", "FILE/results: cannot be written"),
]


@pytest.mark.parametrize(("words", "culprit"), REFUSED)
def test_what_cannot_be_mapped_is_refused_before_any_work(words, culprit, runs, tmp_path, capsys):
    known = runs | {
        "SCORES": table(tmp_path / "scores.csv", "system,file,pesq matched,x.wav,2 null,x.wav,1"),
        "NO_PESQ": table(tmp_path / "a.csv", "system,file matched,x.wav"),
        "NO_SYSTEM": table(tmp_path / "b.csv", "file,pesq x.wav,1"),
        "FILE": table(tmp_path / "FILE", ""),
        "OTHER": tmp_path / "other",
        "ALONE": table(tmp_path / "alone.ckpt", ""),
        "TWIN": tmp_path / "twin" / runs["SET"].name,
        "NO_REF": runs["SET"] / "clean",
    }
    for name in ("OTHER", "TWIN"):
        known[name].mkdir(parents=True)
    said = refusal(command.main, capsys, "--out", tmp_path / "out", *(known.get(word, word) for word in words.split()))
    assert culprit in said
    assert not (tmp_path / "out").exists()
