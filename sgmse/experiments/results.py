"""What a RUN_DIR holds: its tables, results.csv and trainings.csv, made from what cells left; and all of it, read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import keep_text, read_table
from sgmse.common.lock import hold
from sgmse.evaluation.metrics import MAIN
from sgmse.evaluation.scores import NOISY
from sgmse.experiments.comparisons import check_results
from sgmse.experiments.plan import PLAN, Plan, read_plan
from sgmse.experiments.scoring import CANDIDATE, COLUMNS
from sgmse.experiments.work import Cell, Work, list_cells, list_shares, read_record
from sgmse.training.loggers import PROJECT

RESULTS, TRAININGS = "results.csv", "trainings.csv"
OF_TRAININGS = [
    *("training", "seed", "experiments", "run_folder", "steps", "minutes", "device"),
    *("parameters_trained", "parameters_frozen", "smoke", "config_hash"),
]
TYPES: Mapping[str, type | str] = {
    # names and hashes may look like numbers
    **dict.fromkeys("file kind source set experiment scale reason reference".split(), "str"),
    **dict.fromkeys("checkpoint_sha256 config_hash set_sha256".split(), "str"),
    "seed": "Int64",  # the noisy files have none
    **dict.fromkeys((*MAIN, "seconds", "rtf", "minutes"), "float"),
    **dict.fromkeys(("steps", "parameters_trained", "parameters_frozen"), "int"),
}


def collect(work: Work) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both tables from every cell of the plan that is done, and return them: results, trainings.

    Raises `UserError` where scores were made with other settings, at another scale or on another test set: they must
    not stand in one table. Array tasks may call it at the same time, and plan.json may have grown since they began.
    """
    with hold(work.lock("results")):
        work = replace(work, plan=read_plan(work.folder) or work.plan, products={}, asked=())  # whatever was asked for
        done = [cell for cell in list_cells(work.plan, list_shares(work.plan)) if work.is_done(cell)]
        tables = [read_results(work.place(cell)) for cell in done if cell.has_scores]
        frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
        check_results(frame, work.plan)
        keep_text(work.folder / RESULTS, frame.to_csv(index=False))
        rows = [_describe_training(work, cell) for cell in done if cell.kind == "train"]
        trainings = pd.DataFrame(rows, columns=OF_TRAININGS)
        keep_text(work.folder / TRAININGS, trainings.to_csv(index=False))
    return frame, trainings


def read_results(path: Path, columns: Sequence[str] = COLUMNS, may_be_absent: bool = False) -> pd.DataFrame:
    """A table of a RUN_DIR. Raises `UserError` for a file that is none."""
    if may_be_absent and not path.is_file():
        return pd.DataFrame(columns=list(columns))
    types = {name: kind for name, kind in TYPES.items() if kind != "str"}
    names = dict.fromkeys(TYPES.keys() - types, lambda text: text or None)  # a file or a class may be called NA
    return read_table(path, columns, "remove it and run again", dtype=types, converters=names)


def _describe_training(work: Work, cell: Cell) -> dict[str, object]:
    return {
        "training": cell.name,
        "seed": cell.seed,
        "experiments": " ".join(work.plan.experiments_of(cell.name)),
        "run_folder": os.path.relpath(work.place(cell), work.folder),
        **work.products[cell.key],
        "config_hash": cell.name.rpartition("_")[2],
    }


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
    """Read a RUN_DIR. Raises `UserError` for a folder that is none, or whose tables are not those of its plan."""
    plan = read_plan(folder)
    if plan is None:
        raise UserError(f"{folder}: holds no {PLAN}; name a folder that scripts/run_experiments.py wrote")
    results = read_results(folder / RESULTS, may_be_absent=True)
    check_results(results, plan)
    results["smoke"] = results["smoke"].map(lambda value: str(value).lower() == "true").astype(bool)
    order = {name: place for place, name in enumerate(plan.experiments)}
    enhanced = results[results["experiment"].isin(order)]
    enhanced = enhanced.sort_values("experiment", key=lambda names: names.map(order), kind="stable")

    def find(room: str, names: Iterable[str], file: str) -> dict[tuple[str, int], Path]:
        places = {(name, seed): folder / room / name / f"seed{seed}" / file for name in names for seed in plan.seeds}
        return {place: path for place, path in places.items() if path.is_file()}

    records = {(name, seed): read_record(folder, f"choose_{name}_seed{seed}") for name in order for seed in plan.seeds}
    sweeps = [
        read_results(path, [*CANDIDATE, "pesq", "passes"]).assign(experiment=name)
        for (name, _), path in find("choices", order, "sweep.csv").items()
    ]
    keys = ["experiment", "checkpoint", "guidance_scale", "N"]
    candidates = pd.concat(sweeps) if sweeps else pd.DataFrame(columns=[*keys, "pesq", "passes"])
    curves = find("trainings", plan.trainings, "validation.csv")
    return Run(
        folder,
        plan,
        results,
        trainings=read_results(folder / TRAININGS, OF_TRAININGS, may_be_absent=True),
        noisy=results[results["system"] == NOISY],
        enhanced=enhanced,
        smoke=list(enhanced.loc[enhanced["smoke"], "experiment"].drop_duplicates()),
        choices={place: r["product"] for place, r in records.items() if r is not None and r["status"] == "done"},
        validations={place: read_results(path, ["step", "seconds"]) for place, path in curves.items()},
        sweeps=candidates.groupby(keys, sort=False, as_index=False)[["pesq", "passes"]].mean(),
    )


def send_to_wandb(work: Work) -> None:
    """The tables as an artifact of a W&B run of their own; a failure costs a warning only."""
    import wandb

    try:
        run = wandb.init(project=PROJECT, group=work.plan.scale, job_type="results", dir=str(work.folder))
        artifact = wandb.Artifact(f"results-{work.plan.scale}", type="results")
        for name in (RESULTS, TRAININGS):
            artifact.add_file(str(work.folder / name))
        run.log_artifact(artifact)
        run.finish()
    except Exception as error:  # whatever its server or its files do: the tables are on disk
        print(f"warning: W&B did not take the tables ({type(error).__name__}: {error})", file=sys.stderr)
