"""What a RUN_DIR holds so far, read for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.evaluation.scores import NOISY
from sgmse.experiments.plan import PLAN, Plan, read_plan
from sgmse.experiments.results import OF_TRAININGS, RESULTS, TRAININGS, read_table
from sgmse.experiments.scoring import CANDIDATE, COLUMNS
from sgmse.experiments.work import read_record


@dataclass(frozen=True)
class Run:
    """A RUN_DIR. Of what is not there yet, tables have no rows and dictionaries no entries.

    Attributes:
        results, trainings: results.csv and trainings.csv. noisy: the results of the unprocessed files. enhanced: those
            of what experiments enhanced, in the plan's order of experiments.
        smoke: experiments whose encoder had random weights.
        choices: what the validation set chose, by experiment and seed. validations: validation.csv by training and
            seed. sweeps: mean PESQ on the validation set and passes per experiment and candidate; seeds are averaged.
    """

    folder: Path
    plan: Plan
    results: pd.DataFrame
    trainings: pd.DataFrame
    noisy: pd.DataFrame
    enhanced: pd.DataFrame
    smoke: list[str]
    choices: dict[tuple[str, int], dict[str, Any]]
    validations: dict[tuple[str, int], pd.DataFrame]
    sweeps: pd.DataFrame


def read_run(folder: Path) -> Run:
    """Read a RUN_DIR. Raises `UserError` for a folder that is none, or whose tables are not those of the runner."""
    plan = read_plan(folder)
    if plan is None:
        raise UserError(f"{folder}: holds no {PLAN}; name a folder that scripts/run_experiments.py wrote")
    results = _read_if_there(folder / RESULTS, COLUMNS)
    results["smoke"] = results["smoke"].map(lambda value: str(value).lower() == "true").astype(bool)
    order = {name: place for place, name in enumerate(plan.experiments)}
    enhanced = results[results["experiment"].isin(order)]
    enhanced = enhanced.sort_values("experiment", key=lambda names: names.map(order), kind="stable")

    def find(room: str, names: Iterable[str], file: str) -> dict[tuple[str, int], Path]:
        places = {(name, seed): folder / room / name / f"seed{seed}" / file for name in names for seed in plan.seeds}
        return {place: path for place, path in places.items() if path.is_file()}

    records = {(name, seed): read_record(folder, f"choose_{name}_seed{seed}") for name in order for seed in plan.seeds}
    sweeps = [
        read_table(path, [*CANDIDATE, "pesq", "passes"]).assign(experiment=name)
        for (name, _), path in find("choices", order, "sweep.csv").items()
    ]
    keys = ["experiment", "checkpoint", "guidance_scale", "N"]
    candidates = pd.concat(sweeps) if sweeps else pd.DataFrame(columns=[*keys, "pesq", "passes"])
    curves = find("trainings", plan.trainings, "validation.csv")
    return Run(
        folder,
        plan,
        results,
        trainings=_read_if_there(folder / TRAININGS, OF_TRAININGS),
        noisy=results[results["system"] == NOISY],
        enhanced=enhanced,
        smoke=list(enhanced.loc[enhanced["smoke"], "experiment"].drop_duplicates()),
        choices={place: r["product"] for place, r in records.items() if r is not None and r["status"] == "done"},
        validations={place: read_table(path, ["step", "seconds"]) for place, path in curves.items()},
        sweeps=candidates.groupby(keys, sort=False, as_index=False)[["pesq", "passes"]].mean(),
    )


def _read_if_there(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    return read_table(path, columns) if path.is_file() else pd.DataFrame(columns=list(columns))
