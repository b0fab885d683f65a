"""The tables of a run: results.csv, a row per file and system, and trainings.csv, made from what the cells left."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv
from sgmse.common.lease import hold
from sgmse.evaluation.metrics import MAIN
from sgmse.experiments.cells import Cell, list_cells, list_shares
from sgmse.experiments.ledger import Ledger
from sgmse.experiments.scoring import COLUMNS
from sgmse.experiments.work import Work, read_plan
from sgmse.training.loggers import PROJECT

RESULTS, TRAININGS = "results.csv", "trainings.csv"
_TYPES = {"seed": "Int64", "file": "str", "source": "str"}  # numbers in some names of files
_TYPES |= dict.fromkeys(MAIN, "float")
OF_TRAININGS = (
    *("training", "seed", "experiments", "run_folder", "steps", "minutes", "device"),
    *("parameters_trained", "parameters_frozen", "smoke", "config_hash"),
)


def collect(work: Work) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both tables from every cell of the plan that is done, and return them: results, trainings.

    Raises `UserError` where scores were made with other settings, at another scale or on another test set: they must
    not stand in one table. Array tasks may call it at the same time, and plan.json may have grown since they began.
    """
    with hold(work.lock("results")):
        work = replace(work, plan=read_plan(work.folder) or work.plan)
        ledger = Ledger(work)
        planned = list_cells(work.plan, list_shares(work.plan))
        done = [cell for cell in planned if ledger.is_done(cell)]
        tables = [_scores(ledger, cell) for cell in done if cell.kind in ("noisy", "score")]
        frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
        write_csv(frame, work.folder / RESULTS)
        rows = [_training(ledger, cell) for cell in done if cell.kind == "train"]
        trainings = pd.DataFrame(rows, columns=list(OF_TRAININGS))
        write_csv(trainings, work.folder / TRAININGS)
    return frame, trainings


def _scores(ledger: Ledger, cell: Cell) -> pd.DataFrame:
    path, plan = ledger.work.scores(cell), ledger.work.plan
    try:
        frame = pd.read_csv(path, dtype=_TYPES)
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read as a table of scores; remove it and run again") from None
    absent = [column for column in COLUMNS if column not in frame]
    if absent:
        raise UserError(f"{path}: has no column {absent[0]}; remove it and run again")
    name = cell.test_set or cell.name
    expected = {"scale": plan.scale, "set_sha256": ledger.products[Cell("set", name).key]["sha256"]}
    if cell.kind == "score":
        expected["config_hash"] = plan.config_hash(cell.name)
    for column, value in expected.items():
        other = sorted(set(frame[column].astype(str)) - {value})
        if other:
            raise UserError(f"{path}: was made with {column} {other[0]}, not {value}; remove it and run again")
    return frame


def _training(ledger: Ledger, cell: Cell) -> dict[str, object]:
    work, product = ledger.work, ledger.products[cell.key]
    return {
        "training": cell.name,
        "seed": cell.seed,
        "experiments": " ".join(work.plan.trainings[cell.name].experiments),
        "run_folder": os.path.relpath(work.run(cell), work.folder),
        **{name: value for name, value in product.items() if name in OF_TRAININGS},
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
