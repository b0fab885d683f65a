"""The success criteria, declared as data, and what the results say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation import statistics
from sgmse.experiments.catalogue import EXPERIMENTS
from sgmse.experiments.comparisons import Pair, by_cell, check, pair
from sgmse.experiments.plan import Plan
from sgmse.settings import cli

MET, NOT_MET, NO_DATA = "met", "not met", "no data"
UNDECIDED = "not decidable with this n"
UNFAIR = "not decidable"  # trainings of unequal length: no number of files would help
COLUMNS = ["criterion", "claim", "experiment", "against", "set", "metric", "threshold", "mean", "low", "high"]
COLUMNS += ["p", "p_holm", "n_files", "n_sources", "n_seeds", "verdict", "reason"]
BASELINE = "baseline"
LEVEL = 0.95


@dataclass(frozen=True)
class Rule:
    """What criteria.yaml says of one criterion.

    Attributes:
        claim: in a sentence. experiments: IDs it is asked of. against: `baseline`, the one that each experiment names,
            or an ID. sets: test sets it is asked on, each for itself.
        threshold: what the paired difference of `metric` must exceed; below 0: the loss that still counts as a match.
    """

    claim: str
    experiments: tuple[str, ...]
    against: str
    sets: tuple[str, ...]
    metric: str
    threshold: float


def declared(path: Path = EXPERIMENTS / "criteria.yaml") -> dict[str, Rule]:
    """The criteria by name. Raises `UserError` for a file that cannot be understood."""
    known, rules = {f.name for f in fields(Rule)}, {}
    for name, content in cli.read_yaml(path).items():
        if not isinstance(content, dict):
            raise UserError(f"{path}: {name} {content}: lines such as `threshold: 0.3` are needed")
        for key in sorted(content.keys() ^ known):
            wrong = "no such setting" if key in content else "is missing; add it"
            raise UserError(f"{path}: {name}: {key}: {wrong}")
        rules[str(name)] = _rule(path, str(name), content)
    return rules


def criteria(
    results: pd.DataFrame, trainings: pd.DataFrame, plan: Plan, rules: Mapping[str, Rule] | None = None
) -> pd.DataFrame:
    """A row with a verdict for each criterion, experiment and set of the plan; see `_verdict` for the rule.

    p: two-sided, of a difference equal to the threshold; p_holm: Holm's correction over all rows. Rows of networks with
    random weights (`smoke`) count as no data. Returns `COLUMNS`. Raises what `comparisons.check` raises.
    """
    check(results, plan)
    cells, rows = by_cell(results), []
    for name, rule in (declared() if rules is None else rules).items():
        asked = list(_asked(rule, plan))
        for experiment, against, test_set in asked:
            found = pair(cells, trainings, plan, (experiment, against), test_set, rule.metric)
            place = {"experiment": experiment, "against": against, "set": test_set}
            rows.append({"criterion": name, **asdict(rule), **place, **_judged(found, rule.threshold, against)})
        if not asked:
            reason = f"this plan does not ask it (it takes {_some(rule.experiments)} on {' or '.join(rule.sets)})"
            place = {"experiment": "", "against": "", "set": "", "verdict": NO_DATA, "reason": reason}
            rows.append({"criterion": name, **asdict(rule), **place})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = statistics.holm(table["p"].astype(float).tolist())
    for index, row in table.iterrows():
        if row["verdict"] in (MET, NOT_MET) and row["p_holm"] >= 1 - LEVEL:
            lost = f"does not survive Holm's correction over {table['p'].notna().sum()} tests (p {row['p_holm']:.2f})"
            table.loc[index, "reason"] = "; ".join(filter(None, (row["reason"], lost)))
    counts = ["n_files", "n_sources", "n_seeds"]
    return table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))


def criteria_text(table: pd.DataFrame) -> evaluation.TableText:
    """The result of `criteria` ready to print; the notes are the reasons."""
    header = ["criterion", "difference", "set", "metric", "mean [95 % interval]", "wanted", "p (Holm)"]
    header += ["files/sources/seeds", "verdict"]
    rows, notes = [], []
    for _, row in table.iterrows():
        names = f"{row['experiment']} - {row['against']}" if row["experiment"] else "–"
        known = not math.isnan(row["mean"])
        interval = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" if known else "–"
        p = "–" if math.isnan(row["p_holm"]) else "<0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        counts = f"{row['n_files']}/{row['n_sources']}/{row['n_seeds']}"
        title = evaluation.TITLES[row["metric"]]
        wanted = f"> {row['threshold']:g}"
        rows.append([row["criterion"], names, row["set"] or "–", title, interval, wanted, p, counts, row["verdict"]])
        if row["reason"]:
            place = f"{row['criterion']}, {names} on {row['set']}" if row["experiment"] else row["criterion"]
            notes.append(f"{place}: {row['reason']}")
    return evaluation.TableText(header, rows, list(dict.fromkeys(notes)))


def print_criteria(table: pd.DataFrame) -> None:
    """Print the result of `criteria`, and below it the reasons."""
    text = criteria_text(table)
    widths = [max(map(len, column)) for column in zip(text.header, *text.rows, strict=True)]
    for row in (text.header, *text.rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in text.notes:
        print(note)


def _rule(path: Path, name: str, content: Mapping[str, Any]) -> Rule:
    """The settings of one criterion, with their types checked."""
    for key in ("experiments", "sets"):
        value = content[key]
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise UserError(f"{path}: {name}: {key} {value}: a list of names is needed")
    if isinstance(content["threshold"], bool) or not isinstance(content["threshold"], int | float):
        raise UserError(f"{path}: {name}: threshold {content['threshold']}: a number is needed")
    if content["metric"] not in evaluation.MAIN:
        raise UserError(f"{path}: {name}: metric {content['metric']}: one of {', '.join(evaluation.MAIN)} is needed")
    claim, against, metric = (str(content[key]) for key in ("claim", "against", "metric"))
    experiments, sets = (tuple(content[key]) for key in ("experiments", "sets"))
    return Rule(claim, experiments, against, sets, metric, float(content["threshold"]))


def _asked(rule: Rule, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Experiment, opponent and set (of this scale) of each row, those that the plan has."""
    for name in (one for one in rule.experiments if one in plan.experiments):
        against = plan.experiments[name].baseline if rule.against == BASELINE else rule.against
        if against is None or against not in plan.experiments:
            continue
        wanted = dict.fromkeys(plan.set_names[one] for one in rule.sets if one in plan.set_names)
        for test_set in wanted:
            if test_set in plan.sets_of(name) and test_set in plan.sets_of(against):
                yield name, against, test_set


def _judged(found: Pair, threshold: float, against: str) -> dict[str, Any]:
    """The columns from mean on. The test is of the differences less the threshold."""
    if found.smoke:
        reason = "a network with random weights (smoke) says nothing of the method"
        return {"verdict": NO_DATA, "reason": reason}
    shifted = statistics.hierarchical(found.table.assign(value=found.table["value"] - threshold), level=LEVEL)
    ends = {name: getattr(shifted, name) + threshold for name in ("mean", "low", "high")}
    verdict, why = _verdict(found, shifted, threshold, against)
    reason = "; ".join(part for part in (why, found.reason) if part)
    return asdict(shifted) | ends | {"verdict": verdict, "reason": reason}


def _verdict(found: Pair, shifted: statistics.Difference, threshold: float, against: str) -> tuple[str, str]:
    """Met: the whole interval above the threshold; not met: below it; else not decidable. And why, in words.

    shifted: the difference less the threshold.
    """
    if found.table.empty:
        return NO_DATA, "" if found.missing else "the two share no scored file and seed"
    if found.budgets:
        return UNFAIR, ""
    if shifted.low > 0:
        better = "exceeds it" if shifted.low + threshold > 0 else f"matches it within {-threshold:g}"
        return MET, f"{better} ({against})" if threshold < 0 else ""
    if shifted.high < 0:
        return NOT_MET, ""
    smallest = statistics.detectable(shifted)
    if math.isnan(smallest):
        return UNDECIDED, "a single file shows nothing"
    return UNDECIDED, f"this n can tell a difference that is {smallest:.2f} or more away from {threshold:g}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" or {len(names) - 3} more" if len(names) > 3 else "")
