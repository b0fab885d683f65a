"""What a table of results says of the success criteria, and what a result costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sgmse.common.errors import UserError
from sgmse.experiments import catalogue, criteria
from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.comparisons import WHOLE, check_results, compare_experiments
from sgmse.experiments.criteria import MET, NO_DATA, NOT_MET, UNDECIDED, UNFAIR, Rule, read_rules
from sgmse.experiments.page.tables import find_convergence
from sgmse.experiments.plan import Data, Plan, Training

FILES = 40
SETS = ("id", "ood")
GAIN = Rule(claim="gains", experiments=["CFG-01"], against="baseline", sets=["esc50"], metric="pesq", threshold=0.3)


def make_plan(seeds: Sequence[int] = (0, 1)) -> Plan:
    """BASE-00; CFG-01 against it; CFG-02, of the same training and guided, against both."""
    needs: dict[str, tuple[str | None, list[str]]] = {
        "BASE-00": (None, []),
        "CFG-01": ("BASE-00", []),
        "CFG-02": ("BASE-00", ["CFG-01"]),
    }
    experiments = {
        name: Experiment(id=name, hypothesis="?", train={}, sets=["id", "esc50"], baseline=baseline, versus=versus)
        for name, (baseline, versus) in needs.items()
    }
    experiments["CFG-02"] = replace(experiments["CFG-02"], guidance_scale=[3.0])
    training_of = {"BASE-00": "none", "CFG-01": "cnn", "CFG-02": "cnn"}
    trainings = {name: Training(name, {"cond_dim": len(name)}, []) for name in ("none", "cnn")}
    names = {"id": "id", "esc50": "ood"}
    steps = {name: [1] for name in experiments}
    return Plan("mini", list(seeds), experiments, trainings, training_of, Data(), names, {}, steps)


def make_results(plan: Plan, gains: Mapping[str, float], deviation: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Rows of every experiment in `gains`: the mean over noisy of each, with independent files of four a source."""
    rng, tables = np.random.default_rng(seed), []
    for test_set in SETS:
        noisy = pd.DataFrame({"file": [f"{i:03d}" for i in range(FILES)], "set": test_set})
        noisy = noisy.assign(system="noisy", experiment="noisy", seed=math.nan, smoke=None, scale=plan.scale)
        noisy = noisy.assign(kind=[f"kind{i % 4}" for i in range(FILES)], snr_db=[5 * (i % 2) for i in range(FILES)])
        noisy = noisy.assign(source=[f"noise{i // 4}" for i in range(FILES)], set_sha256=test_set, seconds=2.0)
        noisy = noisy.assign(pesq=rng.normal(1.3, 0.2, FILES), estoi=0.7, si_sdr=5.0, rtf=math.nan, nfe=0, passes=0)
        tables.append(noisy)
        for name, gain in gains.items():
            for k in plan.seeds:
                own = noisy.assign(system="enhanced", experiment=name, seed=float(k), smoke=False, rtf=0.5, nfe=3)
                own["pesq"] += gain + rng.normal(0, deviation, FILES)
                own = own.assign(passes=6, guidance_scale=2.0, N=3, config_hash=plan.config_hash(name))
                tables.append(own)
    return pd.concat(tables, ignore_index=True)


def make_trainings(steps: Mapping[str, int], seeds: Sequence[int] = (0, 1)) -> pd.DataFrame:
    rows = [
        {"training": name, "seed": k, "steps": n, "device": "cpu", "smoke": False, "experiments": name}
        | {"run_folder": f"{name}/{k}", "parameters_trained": 10, "parameters_frozen": 5}
        for name, n in steps.items()
        for k in seeds
    ]
    return pd.DataFrame(rows)


EQUAL = make_trainings({"none": 100, "cnn": 100})


def judged(results: pd.DataFrame, plan: Plan, trainings: pd.DataFrame = EQUAL, rule: Rule = GAIN) -> pd.Series:
    return criteria.judge_criteria(results, trainings, plan, {"unseen": rule}).iloc[0]


@pytest.mark.parametrize(
    ("gain", "threshold", "verdict"),
    [(0.6, 0.3, MET), (0.1, 0.3, NOT_MET), (0.3, 0.3, UNDECIDED), (0.0, -0.05, MET), (-0.2, -0.05, NOT_MET)],
)
def test_the_verdict_follows_where_the_whole_interval_lies(gain: float, threshold: float, verdict: str) -> None:
    plan = make_plan(seeds=range(3))
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.2 + gain}, deviation=0.05)
    trainings = make_trainings({"none": 100, "cnn": 100}, range(3))
    row = judged(results, plan, trainings, replace(GAIN, threshold=threshold))
    assert row["verdict"] == verdict
    assert (row["low"] > threshold, row["high"] < threshold) == (verdict == MET, verdict == NOT_MET)
    assert row["mean"] == pytest.approx(gain, abs=0.03)
    assert (row["n_files"], row["n_sources"], row["n_seeds"]) == (FILES, FILES // 4, 3)
    assert (row["p"] < 0.05) == (verdict != UNDECIDED)


def test_where_the_interval_holds_the_threshold_the_smallest_distance_is_told() -> None:
    plan = make_plan()
    row = judged(make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.5}), plan)
    assert row["verdict"] == UNDECIDED
    told = float(row["reason"].partition(" or more away from 0.3")[0].rpartition(" ")[2])
    # 1.28 half widths with one degree of freedom, 1.43 with many
    assert 1.28 - 0.1 < told / ((row["high"] - row["low"]) / 2) < 1.43 + 0.1


def test_one_seed_is_named_and_a_match_says_whether_the_baseline_is_exceeded() -> None:
    plan, match = make_plan(seeds=[0]), replace(GAIN, threshold=-0.05)
    row = judged(make_results(plan, {"BASE-00": 0, "CFG-01": 0.5}), plan, rule=match)
    assert (row["verdict"], row["n_seeds"]) == (MET, 1)
    assert "exceeds it (BASE-00); one seed" in row["reason"]
    equal = make_results(plan, {"BASE-00": 0, "CFG-01": 0}, deviation=0.02)
    assert "matches it within 0.05 (BASE-00)" in judged(equal, plan, rule=match).reason


def test_missing_scores_are_named_and_files_that_one_of_the_two_could_not_score_counted() -> None:
    plan = make_plan()
    row = judged(make_results(plan, {"BASE-00": 0.2}), plan)
    assert row["verdict"] == NO_DATA
    assert row["reason"] == "no scores on ood of CFG-01 (seed 0), CFG-01 (seed 1)"
    whole = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.9})
    part = judged(whole[~((whole["experiment"] == "CFG-01") & (whole["seed"] == 1))], plan)
    assert part["verdict"] == MET
    assert "no scores on ood of CFG-01 (seed 1)" in part["reason"]
    whole.loc[(whole["experiment"] == "CFG-01") & (whole["file"] == "003"), "pesq"] = math.nan
    row = judged(whole, plan)
    assert row["n_files"] == FILES - 1
    assert f"1 of {FILES} files have no score" in row["reason"]


def test_a_criterion_on_a_metric_that_must_be_asked_for_says_how_and_is_judged_where_it_was() -> None:
    plan, rule = make_plan(range(3)), replace(GAIN, metric="right_talker")
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.5})
    trainings = make_trainings({"none": 100, "cnn": 100}, range(3))
    row = judged(results, plan, trainings, rule)
    assert (row["verdict"], "--metrics right_talker" in row["reason"]) == (NO_DATA, True)
    right = results["experiment"].map({"BASE-00": 0.5, "CFG-01": 0.95}) + 0.001 * results["pesq"]
    row = judged(results.assign(right_talker=right), plan, trainings, rule)
    assert (row["verdict"], round(row["mean"], 2)) == (MET, 0.45)
    compared = compare_experiments(results.assign(right_talker=right), trainings, plan)
    assert set(compared["metric"]) == {"pesq", "estoi", "si_sdr", "right_talker"}


def test_a_metric_that_some_trainings_were_not_asked_for_is_missing_there() -> None:
    plan, rule = make_plan(), replace(GAIN, metric="right_talker", threshold=0.0)
    results = make_results(plan, {"BASE-00": 0, "CFG-01": 0.5}).assign(right_talker=1.0)
    results.loc[results["experiment"] == "CFG-01", "right_talker"] = math.nan
    assert "--metrics right_talker" in judged(results, plan, rule=rule).reason
    results.loc[(results["experiment"] == "CFG-01") & (results["seed"] == 0), "right_talker"] = 1.0
    row = judged(results, plan, rule=rule)
    assert "CFG-01 (seed 1)" in row["reason"]
    assert "one seed" in row["reason"]


def test_random_weights_enter_no_criterion() -> None:
    plan = make_plan()
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.9})
    results.loc[results["experiment"] == "CFG-01", "smoke"] = True
    row = judged(results, plan)
    assert row["verdict"] == NO_DATA
    assert "random weights (smoke)" in row["reason"]
    assert math.isnan(row["mean"])
    table = compare_experiments(results, EQUAL, plan)
    assert table[table["experiment"] == "CFG-01"]["smoke"].all()
    assert table[table["experiment"] == "CFG-01"]["p_holm"].isna().all()


def test_trainings_of_unequal_length_decide_nothing() -> None:
    plan = make_plan()
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.9})
    row = judged(results, plan, make_trainings({"none": 100, "cnn": 90}))
    assert row["verdict"] == UNFAIR
    assert row["reason"] == "unequal budgets: CFG-01 was trained for 90 steps, BASE-00 for 100"
    assert "trainings.csv lacks it" in judged(results, plan, make_trainings({"cnn": 90}))["reason"]


def test_a_criterion_that_the_plan_does_not_ask_has_a_row_that_says_so() -> None:
    plan = make_plan()
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.9})
    row = judged(results, plan, rule=replace(GAIN, experiments=["COMB-03"]))
    assert (row["verdict"], row["experiment"]) == (NO_DATA, "")
    assert "COMB-03 on esc50" in row["reason"]


def test_a_verdict_that_many_tests_could_bring_by_chance_says_so() -> None:
    plan = make_plan(seeds=range(3))
    trainings = make_trainings({"none": 100, "cnn": 100}, range(3))
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.6})
    row = judged(results, plan, trainings)
    assert row["p_holm"] == row["p"]
    strict = replace(GAIN, threshold=row["low"] - 0.002)  # barely met: p just below 0.05
    table = criteria.judge_criteria(
        results, trainings, plan, {"one": strict, "two": replace(GAIN, threshold=row["mean"])}
    )
    assert table["verdict"].tolist() == [UNDECIDED, UNDECIDED]
    assert table["p_holm"][0] == pytest.approx(2 * table["p"][0])
    assert "alone it would be met, which does not survive Holm's correction over 2 tests" in table["reason"][0]


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("config_hash", "0123", "made with other settings than plan.json"),
        ("set_sha256", "0123", "different test sets"),
        ("scale", "paper", "scale paper, and plan.json is mini"),
    ],
)
def test_scores_of_other_settings_or_sets_are_refused(column: str, value: str, complaint: str) -> None:
    plan = make_plan()
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.9})
    results.loc[results["experiment"] == "CFG-01", column] = value
    with pytest.raises(UserError, match=complaint):
        check_results(results, plan)


def test_every_planned_pair_is_compared_on_every_set_class_and_snr() -> None:
    plan = make_plan()
    table = compare_experiments(make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.5, "CFG-02": 0.4}), EQUAL, plan)
    table = table[table["metric"] == "pesq"]
    whole = table[table["by"] == WHOLE]
    pairs = [("CFG-01", "BASE-00"), ("CFG-02", "BASE-00"), ("CFG-02", "CFG-01")]
    assert list(zip(whole["experiment"], whole["against"], whole["set"], strict=True)) == [
        (*names, test_set) for names in pairs for test_set in SETS
    ]
    assert whole["mean"].tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2, -0.1, -0.1], abs=0.06)
    assert (whole["p_holm"] >= whole["p"]).all()
    first = table[(table["experiment"] == "CFG-01") & (table["set"] == "id")]
    assert first["group"].tolist() == ["", "kind0", "kind1", "kind2", "kind3", "0", "5"]
    assert first["p_holm"].notna().tolist() == [True, *[False] * 6]
    of_kinds = first[first["by"] == "kind"]
    assert np.average(of_kinds["mean"], weights=of_kinds["n_files"]) == pytest.approx(first["mean"].iloc[0])


def test_the_printed_table_names_the_verdict_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan()
    rules = {"unseen": GAIN, "other": replace(GAIN, experiments=["COMB-03"])}
    results = make_results(plan, {"BASE-00": 0.2, "CFG-01": 0.3})
    criteria.print_criteria(criteria.judge_criteria(results, EQUAL, plan, rules))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["unseen", "CFG-01", "−", "BASE-00", "ood", "PESQ"]
    assert lines[1].split()[-6:] == [">", "+0.3", "0.009", "40/10/2", "not", "met"]
    assert lines[3] == "other: this plan does not ask it (it takes COMB-03 on esc50)"


def test_the_declared_criteria_name_experiments_and_sets_of_the_catalogue() -> None:
    known, rules = catalogue.load_experiments(), read_rules()
    assert [(rule.sets, rule.threshold) for rule in rules.values()] == [
        (["id"], -0.05),
        (["esc50", "urbansound8k"], 0.3),
        (["nonstationary"], 0.2),
    ]
    for rule in rules.values():
        for name in rule.experiments:
            against = known[name].baseline if rule.against == "baseline" else rule.against
            assert against is not None
            assert set(rule.sets) <= set(known[name].sets) & set(known[against].sets)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 3", "a: 3"),
        ("a: {claim: x}", "experiments"),
        (
            "a: {claim: x, experiments: {CFG-01: 1}, against: baseline, sets: [id], metric: pesq, threshold: 0}",
            "experiments",
        ),
        ("a: {claim: x, experiments: [A], against: baseline, sets: [id], metric: wer, threshold: 0}", "wer"),
        ("a: {claim: x, experiments: [A], against: baseline, sets: [id], metric: pesq, threshold: hi}", "threshold hi"),
        (
            "a: {claim: x, experiments: [A], against: b, sets: [id], metric: pesq, threshold: 0, n: 1}",
            "a: no such setting: n",
        ),
    ],
)
def test_criteria_that_cannot_be_understood_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "criteria.yaml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_rules(tmp_path / "criteria.yaml")


def validation(pesq: Sequence[float], seconds: Sequence[float]) -> pd.DataFrame:
    steps = [100 * (i + 1) for i in range(len(pesq))]
    return pd.DataFrame({"step": steps, "seconds": seconds, "pesq": pesq, "noisy/pesq": 1.0})


def test_convergence_is_the_first_validation_with_95_percent_of_the_best_gain() -> None:
    found = find_convergence(validation([1.2, 1.94, 1.95, 2.0, 1.9], [60, 120, 180, 240, 300]))
    assert found == {"step": 300, "minutes": 3, "best_step": 400, "best_gain": 1.0, "reason": ""}  # 0.95 of 1.0


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (validation([1.1, 1.2, 1.3, 2.0], [60, 120, 150, 210]), "may still have been learning"),
        (validation([0.9, 0.95], [1, 2]), "no validation was better than the noisy files"),
        (validation([math.nan], [1]), "no validation has a PESQ"),
        (pd.DataFrame({"step": [1], "seconds": [1], "valid_loss": [1]}), "no PESQ was measured"),
        (None, "no validation yet"),
    ],
)
def test_what_is_to_know_of_a_convergence_is_said(table: pd.DataFrame | None, reason: str) -> None:
    found = find_convergence(table)
    assert reason in found["reason"]
    assert math.isnan(found["step"]) == reason.startswith("no ")
