"""A plan in words, for --dry-run: what trains, what is evaluated, what it costs, and what it could show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sgmse.evaluation import statistics
from sgmse.evaluation.statistics import Spread
from sgmse.experiments import estimates
from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.comparisons import group_scores
from sgmse.experiments.plan import Plan
from sgmse.experiments.scales import VALID, Scale

_UNKNOWN = "unknown"


def listed(catalogue: dict[str, Experiment]) -> str:
    """IDs and hypotheses, for --list."""
    width = max(map(len, catalogue))
    return "\n".join(f"{name:{width}}  {experiment.hypothesis}" for name, experiment in catalogue.items())


def overview(plan: Plan, scale: Scale, out: Path) -> str:
    """The plan as it is printed. Scores in `out`/results.csv tell of the spread; else what the scale has measured."""
    seeds, ids, trained = " ".join(map(str, plan.seeds)), len(plan.experiments), len(plan.trainings)
    lines = [
        f"scale {plan.scale}, seeds {seeds}: {ids} experiments with {trained} trainings, each with every seed",
        *_trainings(plan, scale),
        "",
        *_evaluations(plan),
        "",
        *_remarks(plan),
        *_costs(plan, scale, out),
        *_power(plan, scale, out),
    ]
    return "\n".join(lines)


def _trainings(plan: Plan, scale: Scale) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("training", "steps", "hours", "for")]
    for name, training in plan.trainings.items():
        smoke = " (random weights: smoke)" if training.smoke else ""
        hours = _hours(estimates.training_hours(plan, training, scale))
        rows.append((name, str(training.values["max_steps"]), hours, " ".join(training.experiments) + smoke))
    return _columns(rows)


def _evaluations(plan: Plan) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("experiment", "w", "N", "baseline", "test sets")]
    for name, experiment in plan.experiments.items():
        w = " ".join(f"{value:g}" for value in experiment.guidance_scale)
        steps = " ".join(map(str, plan.steps[name]))
        rows.append((name, w, steps, experiment.baseline or "–", " ".join(plan.sets_of(name))))
    yield from _columns(rows)
    tested = ", ".join(f"{name} {estimates.files(plan, name)}" for name in plan.sets)
    heard = estimates.files(plan, VALID)
    yield f"w, N and checkpoint are chosen on a validation set of {heard} files; test files: {tested}"


def _remarks(plan: Plan) -> Iterator[str]:
    """Where the scale makes an experiment another one than it is at full size."""
    for name, experiment in plan.experiments.items():
        values = plan.trainings[plan.training_of[name]].values
        if experiment.baseline is not None:
            other = plan.trainings[plan.training_of[experiment.baseline]].values["max_steps"]
            if other != values["max_steps"]:
                yield (
                    f"note: {name} gets {values['max_steps']} steps and its baseline {experiment.baseline} {other}: "
                    "unequal budgets decide no criterion"
                )
        wanted = experiment.train.get("cross_attention_resolutions", [])
        if wanted != values["cross_attention_resolutions"] and wanted:
            there = " ".join(map(str, values["cross_attention_resolutions"]))
            yield f"note: {name} attends at {there}, not {' '.join(map(str, wanted))}: the network has no more levels"


def _costs(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    cost = estimates.cost(plan, scale)
    yield f"hours: training {_hours(cost.training_hours)}, enhancing {_hours(cost.evaluation_hours)}"
    if cost.training_hours is None or cost.evaluation_hours is None:
        yield (
            "  unknown where nobody measured: the validation.csv of a run on your machine has steps and seconds; write "
            "seconds per step into the scale file"
        )
    if scale.figures.measured:
        yield f"  measured {scale.figures.measured}; scoring and loading come on top"
    yield f"disk: {estimates.size(cost.disk)} at most, {estimates.size(estimates.free(out))} free"


def _power(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    spread, origin = spread_of(plan, scale, out)
    if spread is None:
        yield f"smallest PESQ difference that the files can show: {_UNKNOWN}, {origin}"
        return
    shown = []
    for name in plan.sets:
        files, sources = estimates.files(plan, name), estimates.sources(plan, scale, name)
        least = statistics.smallest_difference(spread, files, sources, len(plan.seeds))
        shown.append(f"{name} {_UNKNOWN if math.isnan(least) else f'{least:.3f}'}")
    yield f"smallest PESQ difference that these files show with 80 % power: {', '.join(shown)} ({origin})"
    if len(plan.seeds) == 1:
        yield "  true of these trainings alone: one seed tells nothing of how much others would differ"


def spread_of(plan: Plan, scale: Scale, out: Path) -> tuple[Spread | None, str]:
    """The typical spread of paired PESQ differences to a baseline, and where it is known from."""
    found = []
    if (out / "results.csv").is_file():
        cells = group_scores(pd.read_csv(out / "results.csv"))
        for (name, test_set), rows in cells.items():
            baseline = plan.experiments[name].baseline if name in plan.experiments else None
            if baseline is not None and (baseline, test_set) in cells:
                found.append(statistics.spread(statistics.paired(rows, cells[baseline, test_set], "pesq")))
    if found:  # variances are averaged, not deviations
        means = {
            level: math.sqrt(sum(getattr(one, level) ** 2 for one in found) / len(found))
            for level in ("seed", "source", "file")
        }
        return Spread(**means), f"spread of {len(found)} comparisons in {out / 'results.csv'}"
    if scale.figures.spread:
        return Spread(**scale.figures.spread), f"spread {scale.figures.spread_measured}"
    return None, "no spread of differences is known at this scale before the first results"


def _hours(hours: float | None) -> str:
    if hours is None:
        return _UNKNOWN
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
