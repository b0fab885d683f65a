"""What a plan needs and costs, told before anything of it is done."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from plans import EVERYTHING, SCALES, plan

from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.experiments import forecast
from sgmse.experiments.forecast import describe_plan
from sgmse.experiments.results import read_results
from sgmse.experiments.scoring import COLUMNS
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import ModelConfig, TrainConfig
from sgmse.training.saving import BEST_BY


def test_absent_corpora_are_told_with_the_commands_that_prepare_them(tmp_path):
    wanted = plan("paper", ("COMB-03",), data_dir=str(tmp_path))
    with pytest.raises(UserError) as error:
        forecast.check_corpora(wanted)
    for name in ("voicebank", "demand", "wham", "urbansound8k", "esc50"):
        assert f"`python scripts/prepare.py {name} --out {tmp_path / name}`" in str(error.value)
    assert "prepare.py audioset --source FOLDER_WITH_ITS_CLIPS" in str(error.value)
    for name in forecast.list_corpora(wanted):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.csv").touch()
    forecast.check_corpora(wanted)
    for name in ("id", "esc50", "urbansound8k", "nonstationary", "valid"):
        (tmp_path / "ready" / name).mkdir(parents=True)
    ready = plan("paper", ("CFG-01",), test_sets=str(tmp_path / "ready"))
    assert forecast.list_corpora(ready) == ["voicebank"], "sets that are ready need no corpora of their own"


def test_the_estimated_checkpoints_are_as_large_as_those_of_a_run(tmp_path):
    training = EVERYTHING["mini"].training("CFG-01")
    values = training.values
    parts = [cli.take(part, values) for part in (ModelConfig, SamplerSettings, TrainConfig)]
    model = NoiseCondScoreModel(*parts)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert forecast.count_parameters(training) == sum(p.numel() for p in trained)
    optimizer = torch.optim.Adam(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": [p.clone() for p in trained],
    }
    torch.save(content, tmp_path / "as.ckpt")
    kept = 1 + len(BEST_BY)  # last.ckpt and the best ones
    assert forecast.checkpoint_bytes(training) / kept == pytest.approx((tmp_path / "as.ckpt").stat().st_size, rel=0.03)


def test_a_frozen_encoder_is_in_no_checkpoint_and_a_trained_one_is():
    frozen, trained = (forecast.count_parameters(EVERYTHING["paper"].training(name)) for name in ("CLAP-01", "CLAP-02"))
    assert trained - frozen == 28_700_000


def test_sets_that_exist_are_counted_as_they_are(tmp_path):
    embedded = plan(ids=("CFG-01",))
    embedded_files = corpora.clips(corpora.embedded_dir() / "test" / "noisy")
    assert forecast.count_items(embedded, SCALES["mini"], "id")[0] == len(embedded_files)
    assert forecast.count_items(embedded, SCALES["mini"], "ood")[0] == SCALES["mini"].items["ood"]
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / "manifest.csv").write_text("id,noise\na,rain_1\nb,rain_1\nc,dog\n")
    ready = plan(ids=("CFG-01",), test_sets=str(tmp_path))
    assert forecast.count_items(ready, SCALES["mini"], "ood") == (3, 2)


def test_hours_grow_with_guidance_and_are_unknown_where_nobody_measured():
    mini, paper = SCALES["mini"], SCALES["paper"]
    hours = [forecast.evaluation_hours(EVERYTHING["mini"], name, mini) for name in ("CFG-01", "CFG-02")]
    assert hours[1] == pytest.approx(2 * hours[0])  # guided: two passes
    unknown = plan("paper", ("CFG-01",))
    assert math.isnan(forecast.evaluation_hours(unknown, "CFG-01", paper))
    assert math.isnan(forecast.training_hours(unknown, next(iter(unknown.trainings.values())), paper))
    assert forecast.disk_bytes(unknown, paper) > 1e9


def test_mini_trains_every_id_in_ten_minutes_or_little_more():
    for training in EVERYTHING["mini"].trainings.values():
        hours = forecast.training_hours(EVERYTHING["mini"], training, SCALES["mini"])
        assert hours < 10.5 / 60, training.name


def test_a_disk_too_small_is_refused_with_both_numbers(tmp_path, monkeypatch):
    wanted = plan(ids=("CFG-01",))
    monkeypatch.setattr(forecast, "free_bytes", lambda out: 5_000_000)
    needed = forecast.format_bytes(forecast.disk_bytes(wanted, SCALES["mini"]))
    with pytest.raises(UserError, match=rf"takes {needed} more and its disk has 5\.00MB free"):
        forecast.check_plan(wanted, SCALES["mini"], tmp_path / "run")
    monkeypatch.setattr(forecast, "free_bytes", lambda out: 10**12)
    assert forecast.check_plan(wanted, SCALES["mini"], tmp_path / "run") == {}


def test_the_overview_names_trainings_costs_and_unequal_budgets(tmp_path):
    text = describe_plan(replace(plan(ids=("CFG-02", "XAttn-02", "CLAP-01")), seeds=[0, 1]), SCALES["mini"], tmp_path)
    assert "scale mini, seeds 0 1: 7 experiments with 6 trainings, each with every seed" in text
    assert "CFG-02 CFG-01" in text or "CFG-01 CFG-02" in text
    assert "(random weights: smoke)" in text
    assert "note: CLAP-01 gets 200 steps and its baseline BASE-00 800: unequal budgets decide no criterion" in text
    assert "note: XAttn-02 attends at [64, 32], not [64, 32, 16]" in text
    assert "note: DENSE-07 changes nothing" in describe_plan(plan(ids=("DENSE-07",)), SCALES["mini"], tmp_path)
    assert "smallest PESQ difference" in text
    assert "unknown where nobody measured" in describe_plan(plan("paper", ("CFG-01",)), SCALES["paper"], tmp_path)
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


def test_scores_that_exist_tell_how_small_a_difference_can_be_shown(tmp_path):
    wanted = replace(plan(ids=("CFG-01",)), seeds=[0, 1])
    before = describe_plan(wanted, SCALES["mini"], tmp_path).splitlines()[-1]
    rng = np.random.default_rng(0)
    files = [f"f{i}" for i in range(40)]
    rows = [
        pd.DataFrame({"experiment": name, "set": "id", "seed": seed, "file": files, "source": files})
        for name in ("BASE-00", "CFG-01")
        for seed in (0, 1)
    ]
    table = pd.concat(rows)
    table["pesq"] = rng.normal(2, 1, len(table))
    table.to_csv(tmp_path / "results.csv", index=False)
    after = describe_plan(wanted, SCALES["mini"], tmp_path).splitlines()[-1]
    assert "spread of 1 comparisons" in after

    def least(line: str) -> float:
        return float(line.split("id ")[1].split(",")[0])

    assert least(after) > 3 * least(before)
    assert not math.isnan(least(after))


def test_names_that_look_like_missing_values_stay_names(tmp_path):
    rows = pd.DataFrame(columns=COLUMNS).assign(file=["null", "nan"], kind="None", source="NA", pesq=[1.5, None])
    rows.assign(right_talker=["", "nan"]).to_csv(tmp_path / "results.csv", index=False)
    found = read_results(tmp_path / "results.csv")
    assert found[["file", "kind", "source"]].to_numpy().tolist() == [["null", "None", "NA"], ["nan", "None", "NA"]]
    assert found["pesq"].isna().tolist() == [False, True]
    assert found["right_talker"].isna().all()
    (tmp_path / "validation.csv").write_text("step,seconds,pesq,cond_gap\n2,1.5,nan,\n4,3.0,1.5,0.1\n")
    assert read_results(tmp_path / "validation.csv", ["step", "seconds"])[["pesq", "cond_gap"]].mean().tolist() == [
        1.5,
        0.1,
    ]
    assert found["experiment"].isna().all()
