"""The cell `choose`: guidance scale, steps and checkpoint by the mean PESQ of the validation set, before any test."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv, write_json
from sgmse.common.machine import cores, device
from sgmse.enhancement.engine import Engine, enhance_and_score
from sgmse.enhancement.lookup import check_inputs, open_test_set
from sgmse.enhancement.protocols import Protocol
from sgmse.enhancement.settings import sweep_settings
from sgmse.evaluation.metrics import MAIN
from sgmse.evaluation.results import Results
from sgmse.evaluation.scores import scorer
from sgmse.experiments.cells import Cell
from sgmse.experiments.scales import VALID
from sgmse.experiments.training import CHECKPOINTS
from sgmse.experiments.work import Product, Products, Work
from sgmse.model.enhancer import Enhancer

CANDIDATE = ["guidance_scale", "N", "checkpoint"]


def choose(work: Work, cell: Cell, products: Products) -> Product:
    """Try every checkpoint, guidance scale and number of steps, then choose.

    Writes sweep.csv, a row per candidate, and choice.json; results.sqlite has every file, so that a stopped choice goes
    on where it was.
    """
    folder = work.choice(cell)
    names = list(products[cell.needs[0].key]["checkpoints"])
    ranked = rank_candidates(_try_candidates(work, cell, names))
    best = ranked.iloc[0]
    choice = {
        "guidance_scale": float(best["guidance_scale"]),
        "N": int(best["N"]),
        "checkpoint": str(best["checkpoint"]),
        "pesq": round(float(best["pesq"]), 4),
    }
    write_csv(ranked, folder / "sweep.csv")
    candidates = json.loads(ranked[[*CANDIDATE, "pesq", "passes"]].round(4).to_json(orient="records"))
    write_json(folder / "choice.json", choice | {"candidates": candidates})
    return choice


def _try_candidates(work: Work, cell: Cell, names: list[str]) -> pd.DataFrame:
    """A row per candidate and file of the validation set, its checkpoint by name."""
    experiment = work.plan.experiments[cell.name]
    protocol: Protocol = experiment.reference if work.is_conditioned(cell.name) else "none"
    test_set = open_test_set(work.test_set(VALID), protocol, is_scored=True)
    facts = {"test_set": test_set.fingerprint(), "device": device(work.device)}
    results = Results(work.choice(cell), facts)
    tables = []
    with scorer(cores() if work.jobs is None else work.jobs) as score:
        for name in names:
            model = Enhancer.from_checkpoint(work.run(cell) / "checkpoints" / f"{name}.ckpt", work.device)
            check_inputs(test_set, test_set.items, protocol, model.settings["n_fft"], model.settings["sample_rate"])
            steps, scales = work.plan.steps[cell.name], experiment.guidance_scale
            settings = sweep_settings(model, ["auto"], steps, scales, ["none"], protocol)
            enhance_and_score(Engine(model), test_set, settings, results, score)
            frame = results.frame()
            mine = (frame["checkpoint"] == model.checkpoint_sha256) & frame["setting"].isin([s.key for s in settings])
            tables.append(frame[mine].assign(checkpoint=name))
    return pd.concat(tables, ignore_index=True)


def rank_candidates(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per candidate: guidance_scale, N, checkpoint, their mean scores and cost; the one to choose comes first.

    Highest mean PESQ; of equal ones the one with fewer network passes, then the checkpoint that validation preferred.
    Files that PESQ cannot score with some candidate are left out for all of them.
    """
    unscored = set(rows.loc[rows["pesq"].isna(), "file"])
    rows = rows[~rows["file"].isin(unscored)]
    if rows.empty:
        raise UserError("the validation set: PESQ scores no file of it; use another one")
    means: dict[str, Any] = {name: (name, "mean") for name in MAIN}
    cost: dict[str, Any] = {"nfe": ("nfe", "max"), "passes": ("passes", "max"), "seconds": ("seconds", "sum")}
    found = rows.groupby(CANDIDATE, sort=False).agg(**means, **cost, audio_s=("audio_s", "sum"), files=("file", "size"))
    found = found.reset_index()
    found["rtf"] = found.pop("seconds") / found.pop("audio_s")
    found["place"] = found["checkpoint"].map(CHECKPOINTS.index)
    found = found.sort_values(["pesq", "passes", "place"], ascending=[False, True, True], kind="stable")
    return found.drop(columns="place").reset_index(drop=True)
