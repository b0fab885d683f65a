"""The cell `choose`: guidance scale, steps and checkpoint by the mean PESQ of the validation set, before any test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv, write_json
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.metrics import MAIN
from sgmse.experiments.cells import Cell
from sgmse.experiments.scales import VALID
from sgmse.experiments.work import Product, Products, Work

CANDIDATE = ["guidance_scale", "N", "checkpoint"]
SWEEPABLE = ("disjoint", "same_class", "other_take", "mismatched")  # protocols that scripts/guidance_sweep.py takes
_CHECKPOINTS = ("best_pesq", "last")


def choose(work: Work, cell: Cell, products: Products) -> Product:
    """Sweep every checkpoint of the training, then choose. Writes sweep.csv, a row per candidate, and choice.json."""
    folder = work.choice(cell)
    found = products[cell.needs[0].key]["checkpoints"]
    for name in found:
        work.launch(sweep_command(work, cell, name), work.log(cell))
    table = candidates({name: folder / name for name in found})
    best = table.iloc[0]
    choice = {
        "guidance_scale": float(best["guidance_scale"]),
        "N": int(best["N"]),
        "checkpoint": str(best["checkpoint"]),
        "pesq": round(float(best["pesq"]), 4),
    }
    write_csv(table, folder / "sweep.csv")
    shown = json.loads(table[[*CANDIDATE, "pesq", "passes"]].round(4).to_json(orient="records"))
    write_json(folder / "choice.json", choice | {"candidates": shown})
    return choice


def sweep_command(work: Work, cell: Cell, checkpoint: str) -> list[str]:
    """Every guidance scale with every number of steps, for one checkpoint on the validation set."""
    experiment = work.plan.experiments[cell.name]
    words = ["-m", "scripts.guidance_sweep", "--ckpt", str(work.run(cell) / "checkpoints" / f"{checkpoint}.ckpt")]
    words += ["--test_dir", str(work.test_set(VALID)), "--out", str(work.choice(cell) / checkpoint)]
    words += ["--scales", *(f"{scale:g}" for scale in experiment.guidance_scale)]
    words += ["--steps", *map(str, work.plan.steps[cell.name]), "--device", work.device]
    if work.is_conditioned(cell.name) and experiment.reference in SWEEPABLE:
        words += ["--reference", experiment.reference]
    return words + ([] if work.jobs is None else ["--jobs", str(work.jobs)])


def candidates(sweeps: dict[str, Path]) -> pd.DataFrame:
    """A row per candidate: guidance_scale, N, checkpoint, their mean scores and cost; the one to choose comes first.

    Highest mean PESQ; of equal ones the one with fewer network passes, then the checkpoint that validation preferred.
    Files that PESQ cannot score with some candidate are left out for all of them.
    """
    tables = [
        pd.read_csv(folder / "sweep.csv", keep_default_na=False, na_values={n: [""] for n in MAIN}).assign(
            checkpoint=name
        )
        for name, folder in sweeps.items()
    ]
    rows = pd.concat([table[table["sampler"] != evaluation.NOISY] for table in tables], ignore_index=True)
    unscored = set(rows.loc[rows["pesq"].isna(), "file"])
    rows = rows[~rows["file"].isin(unscored)]
    if rows.empty:
        raise UserError(f"{next(iter(sweeps.values()))}: PESQ scores no file of the validation set; use another one")
    means: dict[str, Any] = {name: (name, "mean") for name in MAIN}
    cost: dict[str, Any] = {"nfe": ("nfe", "max"), "passes": ("passes", "max"), "seconds": ("seconds", "sum")}
    found = rows.groupby(CANDIDATE, sort=False).agg(**means, **cost, audio_s=("audio_s", "sum"), files=("file", "size"))
    found = found.reset_index()
    found["rtf"] = found.pop("seconds") / found.pop("audio_s")
    found["place"] = found["checkpoint"].map(_CHECKPOINTS.index)
    found = found.sort_values(["pesq", "passes", "place"], ascending=[False, True, True], kind="stable")
    return found.drop(columns="place").reset_index(drop=True)
