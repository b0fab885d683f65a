"""The planned comparisons: paired differences of each experiment to its baseline and to those it is set against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.evaluation import statistics
from sgmse.evaluation.metrics import FIRST, MAIN, METRICS, names_in
from sgmse.experiments.plan import Plan

COLUMNS = ["experiment", "against", "set", "metric", "by", "group", "mean", "low", "high", "p", "p_holm"]
COLUMNS += ["n_files", "n_sources", "n_seeds", "smoke", "reason"]
WHOLE = "all"  # in the column `by`: the whole set
SLICES = ("kind", "snr_db")

ScoresOf = Mapping[tuple[str, str], pd.DataFrame]  # rows of results.csv by experiment and set


class Comparison(NamedTuple):
    """Two experiments on one set.

    differences: see `statistics.paired`; empty where there are none. smoke: a network with random weights had a part
    in it. missing: scores that the plan asks for and nobody has. budgets: how their trainings differ in length.
    reason: these two, and what else to know of the differences.
    """

    differences: pd.DataFrame
    smoke: bool
    missing: str
    budgets: str
    reason: str


def check_results(results: pd.DataFrame, plan: Plan) -> None:
    """Raise `UserError` for scores that belong in no table with the others: other settings, scale, or test set; or
    that are there twice."""
    remedy = "remove these scores and run run_experiments.py again, or use another --out"
    repeated = results[results.duplicated(["experiment", "set", "seed", "file"])]
    if len(repeated):
        experiment, test_set, file = repeated.iloc[0][["experiment", "set", "file"]]
        raise UserError(f"results.csv: has two rows of {experiment} for {file} of {test_set}; {remedy}")
    known = results[results["experiment"].isin(list(plan.experiments))]
    for name, rows in known.groupby("experiment"):
        if set(rows["config_hash"]) != {plan.config_hash(str(name))}:
            raise UserError(
                f"results.csv: scores of {name} were made with other settings than plan.json holds (its config_hash is "
                f"{plan.config_hash(str(name))}); {remedy}"
            )
    for scale in set(results["scale"].dropna()) - {plan.scale}:
        raise UserError(f"results.csv: has scores of the scale {scale}, and plan.json is {plan.scale}; {remedy}")
    for name, rows in results.groupby("set"):
        if rows["set_sha256"].nunique() > 1:
            raise UserError(f"results.csv: scores on {name} come from different test sets of that name; {remedy}")


def compare_experiments(results: pd.DataFrame, trainings: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """All planned paired differences, experiment - against, with 95 % intervals (`statistics.hierarchical`).

    For each pair, set and metric a row of the whole set (by "all", group ""), and for the first metric one per class
    and SNR; a pair without scores has a row that says what is missing. p_holm: Holm's correction over all pairs and
    sets of a metric, `smoke` ones left out; the slices are descriptive and have none. Returns `COLUMNS`.
    """
    scores, rows = group_scores(results), []
    asked = [
        (name, against, test_set, metric)
        for name in plan.experiments
        for against in plan.opponents(name)
        for test_set in plan.sets_of(name)
        for metric in names_in(results.columns)
        if test_set in plan.sets_of(against)
    ]
    for name, against, test_set, metric in asked:
        found = compare(scores, trainings, plan, (name, against), test_set, metric)
        slices = [(WHOLE, "", found.differences, found.reason)]
        for column in SLICES if metric == FIRST and len(found.differences) else ():
            for group, own in found.differences.groupby(column) if column in found.differences else ():
                slices.append((column, f"{group:g}" if isinstance(group, int | float) else str(group), own, ""))
        for by, group, own, reason in slices:
            difference = asdict(statistics.hierarchical(own))
            place = {"experiment": name, "against": against, "set": test_set, "metric": metric, "by": by}
            rows.append(place | {"group": group, **difference, "smoke": found.smoke, "reason": reason})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    counted = (frame["by"] == WHOLE) & ~frame["smoke"].astype(bool)
    for _, family in frame[counted].groupby("metric"):
        frame.loc[family.index, "p_holm"] = statistics.holm(family["p"].tolist())
    return frame.astype({"p_holm": float})


def group_scores(results: pd.DataFrame) -> ScoresOf:
    """The rows of each experiment and set."""
    return {(str(name), str(test_set)): rows for (name, test_set), rows in results.groupby(["experiment", "set"])}


def _with_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`rows` without the trainings that nobody scored by `metric`; without its column where no training is left."""
    if metric in MAIN or metric not in rows or rows.empty:
        return rows
    kept = rows[rows.groupby("seed")[metric].transform("count") > 0]
    return kept if len(kept) else rows.drop(columns=metric)


def compare(
    scores: ScoresOf, trainings: pd.DataFrame, plan: Plan, names: tuple[str, str], test_set: str, metric: str
) -> Comparison:
    """The paired differences first - second of two experiments, and what must be known to judge them.

    Seeds go together by number: which seed of one training meets which of the other is arbitrary, and every pair of
    trainings counts once.
    """
    nothing = pd.DataFrame({"seed": [], "file": [], metric: [], "smoke": []})
    sides = [_with_metric(scores.get((name, test_set), nothing), metric) for name in names]
    if any(metric not in rows for rows in sides):
        missing = f"no {METRICS[metric].title} on {test_set}: repeat it with --metrics {METRICS[metric].asked_as}"
        return Comparison(statistics.paired(nothing, nothing, metric), False, missing, "", missing)
    what = "scores" if metric in MAIN else METRICS[metric].title
    absent = [
        f"{name} (seed {seed})"
        for name, rows in zip(names, sides, strict=True)
        for seed in plan.seeds
        if not (rows["seed"] == seed).any()
    ]
    missing = f"no {what} on {test_set} of {', '.join(absent)}" if absent else ""
    smoke = any(rows["smoke"].isin([True, "True"]).any() for rows in sides)
    table = statistics.paired(sides[0], sides[1], metric)
    shared = sorted(set(sides[0]["seed"]) & set(sides[1]["seed"]))
    budgets = _compare_budgets(trainings, plan, names, shared)
    reasons = [missing, budgets]
    wanted = max((rows[rows["seed"].isin(shared)]["file"].nunique() for rows in sides), default=0)
    if table["file"].nunique() < wanted:
        reasons.append(f"{wanted - table['file'].nunique()} of {wanted} files have no score in one of the two")
    if len(shared) == 1:
        reasons.append("one seed: true of these two trainings, others may differ")
    return Comparison(table, smoke, missing, budgets, "; ".join(filter(None, reasons)))


def _compare_budgets(trainings: pd.DataFrame, plan: Plan, names: tuple[str, str], seeds: Sequence[float]) -> str:
    """Empty where both were trained for the same number of steps with each seed."""
    for seed in seeds:
        steps = []
        for name in names:
            rows = trainings[(trainings["training"] == plan.training_of[name]) & (trainings["seed"] == seed)]
            if rows.empty:
                return f"the length of the training of {name}, seed {seed:g}, is unknown: trainings.csv lacks it"
            steps.append(int(rows["steps"].iloc[0]))
        if steps[0] != steps[1]:
            return f"unequal budgets: {names[0]} was trained for {steps[0]} steps, {names[1]} for {steps[1]}"
    return ""
