"""The tables of a run: results.csv, a row per file and system, and trainings.csv, made from what the cells left."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv
from sgmse.common.lock import hold
from sgmse.evaluation.metrics import MAIN
from sgmse.experiments.plan import read_plan
from sgmse.experiments.scoring import COLUMNS
from sgmse.experiments.work import Cell, Work, list_cells, list_shares
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
        work = replace(work, plan=read_plan(work.folder) or work.plan, products={})
        done = [cell for cell in list_cells(work.plan, list_shares(work.plan)) if work.is_done(cell)]
        tables = [_read_scores(work, cell) for cell in done if cell.kind in ("noisy", "score")]
        frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
        write_csv(frame, work.folder / RESULTS)
        rows = [_describe_training(work, cell) for cell in done if cell.kind == "train"]
        trainings = pd.DataFrame(rows, columns=OF_TRAININGS)
        write_csv(trainings, work.folder / TRAININGS)
    return frame, trainings


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table with at least these columns. Raises `UserError` for a file that is none."""
    try:
        frame = pd.read_csv(path, dtype=TYPES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); remove it and run again") from None
    absent = [column for column in columns if column not in frame]
    if absent:
        raise UserError(f"{path}: has no column {absent[0]}; remove it and run again")
    return frame


def _read_scores(work: Work, cell: Cell) -> pd.DataFrame:
    path = work.place(cell)
    frame = read_table(path, COLUMNS)
    built = work.products[Cell("set", cell.test_set or cell.name).key]
    expected = {"scale": work.plan.scale, "set_sha256": built["sha256"]}
    if cell.kind == "score":
        expected["config_hash"] = work.plan.config_hash(cell.name)
    for column, value in expected.items():
        other = sorted(set(frame[column].astype(str)) - {value})
        if other:
            raise UserError(f"{path}: was made with {column} {other[0]}, not {value}; remove it and run again")
    return frame


def _describe_training(work: Work, cell: Cell) -> dict[str, object]:
    return {
        "training": cell.name,
        "seed": cell.seed,
        "experiments": " ".join(work.plan.experiments_of(cell.name)),
        "run_folder": os.path.relpath(work.place(cell), work.folder),
        **work.products[cell.key],
        "config_hash": cell.name.rpartition("_")[2],
    }


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
