"""A plan in words, for --dry-run: what trains, what is evaluated, what it costs, and what it could show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd

from sgmse.evaluation import statistics
from sgmse.evaluation.statistics import Spread
from sgmse.experiments import forecast
from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.comparisons import group_scores
from sgmse.experiments.plan import Plan
from sgmse.experiments.records import align_columns
from sgmse.experiments.scales import VALID, Scale

_UNKNOWN = "unknown"


def list_hypotheses(catalogue: Mapping[str, Experiment]) -> str:
    """IDs and hypotheses, for --list."""
    return "\n".join(align_columns([(name, experiment.hypothesis) for name, experiment in catalogue.items()]))


def describe_plan(plan: Plan, scale: Scale, out: Path) -> str:
    """The plan as it is printed. Scores in `out`/results.csv tell of the spread; else what the scale has measured."""
    seeds, ids, trained = " ".join(map(str, plan.seeds)), len(plan.experiments), len(plan.trainings)
    head = f"scale {plan.scale}, seeds {seeds}: {ids} experiments with {trained} trainings, each with every seed"
    trainings, evaluations = align_columns(_training_rows(plan, scale)), align_columns(_evaluation_rows(plan))
    tested = ", ".join(f"{name} {forecast.count_items(plan, scale, name)[0]}" for name in plan.sets)
    valid = forecast.count_items(plan, scale, VALID)[0]
    files = f"w, N and checkpoint are chosen on a validation set of {valid} files; test files: {tested}"
    lines = [head, *trainings, "", *evaluations, files, "", *_remarks(plan)]
    return "\n".join([*lines, *_costs(plan, scale, out), *_power(plan, scale, out)])


def _training_rows(plan: Plan, scale: Scale) -> Iterator[tuple[str, ...]]:
    yield "training", "steps", "hours", "for"
    for name, training in plan.trainings.items():
        smoke = " (random weights: smoke)" if training.smoke else ""
        hours = _format_hours(forecast.training_hours(plan, training, scale))
        yield name, str(training.values["max_steps"]), hours, " ".join(training.experiments) + smoke


def _evaluation_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    yield "experiment", "w", "N", "baseline", "test sets"
    for name, experiment in plan.experiments.items():
        w = " ".join(f"{value:g}" for value in experiment.guidance_scale)
        steps = " ".join(map(str, plan.steps[name]))
        yield name, w, steps, experiment.baseline or "–", " ".join(plan.sets_of(name))


def _remarks(plan: Plan) -> Iterator[str]:
    """Where the scale makes an experiment another one than it is at full size."""
    for name, experiment in plan.experiments.items():
        values = plan.trainings[plan.training_of[name]].values
        if experiment.baseline is not None:
            theirs = plan.trainings[plan.training_of[experiment.baseline]].values["max_steps"]
            if theirs != values["max_steps"]:
                yield (
                    f"note: {name} gets {values['max_steps']} steps and its baseline {experiment.baseline} {theirs}: "
                    "unequal budgets decide no criterion"
                )
        wanted = experiment.train.get("cross_attention_resolutions", [])
        if wanted and wanted != values["cross_attention_resolutions"]:
            there = " ".join(map(str, values["cross_attention_resolutions"]))
            yield f"note: {name} attends at {there}, not {' '.join(map(str, wanted))}: the network has no more levels"


def _costs(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    training = _total([forecast.training_hours(plan, one, scale) for one in plan.trainings.values()], plan)
    enhancing = _total([forecast.evaluation_hours(plan, name, scale) for name in plan.experiments], plan)
    yield f"hours: training {_format_hours(training)}, enhancing {_format_hours(enhancing)}"
    if training is None or enhancing is None:
        yield (
            "  unknown where nobody measured: the validation.csv of a run on your machine has steps and seconds; write "
            "seconds per step into the scale file"
        )
    if scale.figures.measured:
        yield f"  measured {scale.figures.measured}; scoring and loading come on top"
    needed, free = forecast.disk_bytes(plan, scale), forecast.free_bytes(out)
    yield f"disk: {forecast.format_bytes(needed)} at most, {forecast.format_bytes(free)} free"


def _power(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    spread, origin = _known_spread(plan, scale, out)
    if spread is None:
        yield f"smallest PESQ difference that the files can show: {_UNKNOWN}, {origin}"
        return
    shown = []
    for name in plan.sets:
        files, sources = forecast.count_items(plan, scale, name)
        least = statistics.smallest_difference(spread, files, sources, len(plan.seeds))
        shown.append(f"{name} {_UNKNOWN if math.isnan(least) else f'{least:.3f}'}")
    yield f"smallest PESQ difference that these files show with 80 % power: {', '.join(shown)} ({origin})"
    if len(plan.seeds) == 1:
        yield "  true of these trainings alone: one seed tells nothing of how much others would differ"


def _known_spread(plan: Plan, scale: Scale, out: Path) -> tuple[Spread | None, str]:
    """The typical spread of paired PESQ differences to a baseline, and where it is known from."""
    found = []
    if (out / "results.csv").is_file():
        scores = group_scores(pd.read_csv(out / "results.csv"))
        for (name, test_set), rows in scores.items():
            baseline = plan.experiments[name].baseline if name in plan.experiments else None
            if baseline is not None and (baseline, test_set) in scores:
                found.append(statistics.spread(statistics.paired(rows, scores[baseline, test_set], "pesq")))
    if found:  # variances are averaged, not deviations
        deviations = np.sqrt(np.mean(np.square([astuple(one) for one in found]), axis=0))
        return Spread(*map(float, deviations)), f"spread of {len(found)} comparisons in {out / 'results.csv'}"
    if scale.figures.spread:
        return Spread(**scale.figures.spread), f"spread {scale.figures.spread_measured}"
    return None, "no spread of differences is known at this scale before the first results"


def _total(hours: list[float | None], plan: Plan) -> float | None:
    """Of all seeds; None where one is unknown."""
    known = [value for value in hours if value is not None]
    return None if len(known) < len(hours) else len(plan.seeds) * sum(known)


def _format_hours(hours: float | None) -> str:
    if hours is None:
        return _UNKNOWN
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
