"""The success criteria, declared as data, and what the results say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from sgmse.common.bounds import OneOf
from sgmse.evaluation import statistics
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.tables import NOTHING, Table, print_table, probability, score_interval
from sgmse.experiments.catalogue import EXPERIMENTS, make_declared
from sgmse.experiments.comparisons import Comparison, compare, group_scores
from sgmse.experiments.plan import Plan
from sgmse.settings import cli

MET, NOT_MET, NO_DATA = "met", "not met", "no data"
UNDECIDED = "not decidable with this n"
UNFAIR = "not decidable"  # trainings of unequal length: no number of files would help
_METRICS = (*MAIN, *(name for name, metric in METRICS.items() if metric.asked_as))
COLUMNS = ["criterion", "claim", "experiment", "against", "set", "metric", "threshold", "mean", "low", "high"]
COLUMNS += ["p", "p_holm", "n_files", "n_sources", "n_seeds", "verdict", "reason"]
BASELINE = "baseline"
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What criteria.yaml says of one criterion.

    Attributes:
        claim: in a sentence. experiments: IDs it is asked of. against: `baseline`, the one that each experiment names,
            or an ID. sets: test sets it is asked on, each for itself.
        threshold: what the paired difference of `metric` must exceed; below 0: the loss that still counts as a match.
    """

    claim: str
    experiments: list[str]
    against: str
    sets: list[str]
    metric: Annotated[str, OneOf(_METRICS)]
    threshold: float


def read_rules(path: Path = EXPERIMENTS / "criteria.yaml") -> dict[str, Rule]:
    """The criteria by name. Raises `UserError` for a file that cannot be understood."""
    return {str(name): make_declared(Rule, given, path, f"{name}: ") for name, given in cli.read_yaml(path).items()}


def judge_criteria(
    results: pd.DataFrame, trainings: pd.DataFrame, plan: Plan, rules: Mapping[str, Rule] | None = None
) -> pd.DataFrame:
    """A row with a verdict for each criterion, experiment and set of the plan; see `_judge` for the rule.

    p: two-sided, of a difference equal to the threshold; p_holm: Holm's correction over all rows. What this correction
    takes away is not decided. Rows of networks with random weights (`smoke`) count as no data. Returns `COLUMNS`.
    """
    scores = group_scores(results)
    rows: list[dict[str, Any]] = []
    for name, rule in (read_rules() if rules is None else rules).items():
        common, start = {"criterion": name, **asdict(rule)}, len(rows)
        for experiment, against, test_set in _find_questions(rule, plan):
            found = compare(scores, trainings, plan, (experiment, against), test_set, rule.metric)
            place = {"experiment": experiment, "against": against, "set": test_set}
            rows.append(common | place | _judge(found, rule.threshold, against))
        if len(rows) == start:
            some = ", ".join(rule.experiments[:3]) + (f" or {n - 3} more" if (n := len(rule.experiments)) > 3 else "")
            reason = f"this plan does not ask it (it takes {some} on {' or '.join(rule.sets)})"
            nowhere = {"experiment": "", "against": "", "set": ""}
            rows.append(common | nowhere | {"verdict": NO_DATA, "reason": reason})
    table = _correct_for_many(pd.DataFrame(rows, columns=COLUMNS))
    counts = ["n_files", "n_sources", "n_seeds"]
    return table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))


def make_table(judged: pd.DataFrame) -> Table:
    """The result of `judge_criteria` to read, a row for each experiment and set."""
    rows = [
        (
            row["criterion"].replace("_", " "),
            f"{row['experiment']} − {row['against']}" if row["experiment"] else NOTHING,
            row["set"] or NOTHING,
            METRICS[row["metric"]].title,
            score_interval(row, row["metric"], signed=True),
            f"> {row['threshold']:+g}".replace("-", "−"),
            probability(row["p_holm"]),
            f"{row['n_files']}/{row['n_sources']}/{row['n_seeds']}",
            ": ".join(filter(None, (row["verdict"], row["reason"]))),
        )
        for _, row in judged.iterrows()
    ]
    header = ("criterion", "difference", "set", "metric", "mean [95 % interval]", "wanted", "p (Holm)")
    tones = [find_tone(verdict) for verdict in judged["verdict"]]
    return Table("criteria", "Criteria", (*header, "files/sources/seeds", "verdict"), rows, tones=tones)


def print_criteria(judged: pd.DataFrame) -> None:
    """Print the result of `judge_criteria`, and below it the reasons, which are too long for a column."""
    rows = [row for _, row in judged.iterrows() if row["reason"]]
    places = [f", {row['experiment']} − {row['against']} on {row['set']}" if row["experiment"] else "" for row in rows]
    notes = [f"{row['criterion']}{place}: {row['reason']}" for row, place in zip(rows, places, strict=True)]
    print_table(replace(make_table(judged.assign(reason="")), notes=notes))


def find_tone(verdict: str) -> str:
    """The CSS class of a verdict."""
    return "not-decidable" if verdict.startswith("not decidable") else verdict.replace(" ", "-")


def _find_questions(rule: Rule, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Experiment, opponent and set (of this scale) of each row, those that the plan has."""
    for name in (one for one in rule.experiments if one in plan.experiments):
        against = plan.experiments[name].baseline if rule.against == BASELINE else rule.against
        if against is None or against not in plan.experiments:
            continue
        for test_set in dict.fromkeys(plan.set_names[one] for one in rule.sets if one in plan.set_names):
            if test_set in plan.sets_of(name) and test_set in plan.sets_of(against):
                yield name, against, test_set


def _judge(found: Comparison, threshold: float, against: str) -> dict[str, Any]:
    """The columns from mean on. Met: the whole interval lies above the threshold; not met: below it; else undecided.

    The test is of the differences less the threshold.
    """
    if found.smoke:
        return {"verdict": NO_DATA, "reason": "a network with random weights (smoke) says nothing of the method"}
    shifted = statistics.hierarchical(found.differences.assign(value=found.differences["value"] - threshold))
    low, why = shifted.low + threshold, ""
    if found.differences.empty:
        verdict, why = NO_DATA, "" if found.missing else "the two share no scored file and seed"
    elif found.budgets:
        verdict = UNFAIR
    elif shifted.low > 0:
        verdict = MET
        if threshold < 0:
            why = f"{'exceeds it' if low > 0 else f'matches it within {-threshold:g}'} ({against})"
    elif shifted.high < 0:
        verdict = NOT_MET
    else:
        verdict, smallest = UNDECIDED, statistics.detectable(found.differences)
        why = f"this n can tell a difference that is {smallest:.2f} or more away from {threshold:g}"
        why = "a single file shows nothing" if math.isnan(smallest) else why
    place = {"mean": shifted.mean + threshold, "low": low, "high": shifted.high + threshold}
    return asdict(shifted) | place | {"verdict": verdict, "reason": "; ".join(filter(None, (why, found.reason)))}


def _correct_for_many(table: pd.DataFrame) -> pd.DataFrame:
    """Add p_holm; a verdict that many tests could bring by chance becomes undecided."""
    table["p_holm"] = statistics.holm(table["p"].astype(float).tolist())
    for index, row in table.iterrows():
        if row["verdict"] in (MET, NOT_MET) and row["p_holm"] >= 1 - LEVEL:
            lost = (
                f"alone it would be {row['verdict']}, which does not survive Holm's correction over "
                f"{table['p'].notna().sum()} tests (p {row['p_holm']:.2f})"
            )
            table.loc[index, ["verdict", "reason"]] = UNDECIDED, "; ".join(filter(None, (lost, row["reason"])))
    return table
