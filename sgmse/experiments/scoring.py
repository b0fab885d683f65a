"""The cells `choose`, `score` and `noisy`: what is tried on the validation set, and tested once on the others.

`choose` takes guidance scale, steps and checkpoint by the mean PESQ of the validation set, before any test.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv, write_json
from sgmse.common.machine import cores, device
from sgmse.data.testsets import build
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.encoders import weights
from sgmse.enhancement.engine import Engine, enhance_and_score
from sgmse.enhancement.folder import enhance_folder
from sgmse.enhancement.lookup import check_inputs, open_test_set
from sgmse.enhancement.protocols import Protocol
from sgmse.enhancement.settings import sweep_settings
from sgmse.evaluation import leakage
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.results import Results
from sgmse.experiments.training import CHECKPOINTS
from sgmse.experiments.work import Cell, Product, Work
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

ENHANCED = "enhanced"
CANDIDATE = ["guidance_scale", "N", "checkpoint"]
_OF_RUN = "rtf nfe passes guidance_scale N checkpoint_sha256 reference encoder encoder_weights".split()
COLUMNS = [
    *("experiment", "seed", "set", "system", "file", "kind", "source", "snr_db", *MAIN, "reason"),
    *("seconds", "leak", "leak_shared", "rtf", "nfe", "passes", "guidance_scale", "N", "checkpoint"),
    *("checkpoint_sha256", "reference", "encoder", "encoder_weights", "smoke", "scale", "training", "config_hash"),
    "set_sha256",
]
"""of results.csv; the metrics that were asked for beside the main ones come last"""


def choose(work: Work, cell: Cell) -> Product:
    """Try every checkpoint, guidance scale and number of steps, then choose.

    Writes sweep.csv, a row per candidate, and choice.json; results.sqlite has every file, so that a stopped choice goes
    on where it was.
    """
    path = work.place(cell)
    ranked = rank_candidates(_try_candidates(work, cell))
    write_csv(ranked, path.parent / "sweep.csv")
    candidates = json.loads(ranked[[*CANDIDATE, "pesq", "passes"]].round({"pesq": 4}).to_json(orient="records"))
    choice = {name: candidates[0][name] for name in (*CANDIDATE, "pesq")}
    write_json(path, choice | {"candidates": candidates})
    return choice


def _try_candidates(work: Work, cell: Cell) -> pd.DataFrame:
    """A row per candidate and file of the validation set, its checkpoint by name."""
    experiment, (training, valid) = work.plan.experiments[cell.name], cell.needs
    protocol: Protocol = experiment.reference if work.training(cell).is_conditioned else "none"
    test_set = open_test_set(work.place(valid), protocol, is_scored=True)
    facts = {"test_set": test_set.fingerprint(), "device": device(work.device)}
    results = Results(work.place(cell).parent, facts)
    tables = []
    with evaluation.scorer(work.jobs or cores()) as score:
        for name in work.products[training.key]["checkpoints"]:
            model = Enhancer.from_checkpoint(work.place(training) / "checkpoints" / f"{name}.ckpt", work.device)
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


def score(work: Work, cell: Cell) -> Product:
    """Enhance a test set once, with what was chosen, and write the table of its scores."""
    work = _with_metrics_before(work, cell)
    choose, built = cell.needs
    choice, folder = work.products[choose.key], work.place(built)
    enhanced = work.folder.joinpath("enhanced", *cell.parts)
    is_conditioned = work.training(cell).is_conditioned
    config = EnhanceConfig(
        ckpt=str(work.place(choose.needs[0]) / "checkpoints" / f"{choice['checkpoint']}.ckpt"),
        test_dir=str(folder),
        enhanced_dir=str(enhanced),
        reference=work.plan.experiments[cell.name].reference if is_conditioned else None,
        device=work.device,
    )
    guidance = GuidanceSettings(guidance_scale=choice["guidance_scale"]) if is_conditioned else GuidanceSettings()
    with work.log(cell).open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        enhance_folder(config, guidance, {"N": choice["N"]})
    run = evaluation.read_run(enhanced)
    facts = {name: run.get(name) for name in _OF_RUN}
    facts |= {"experiment": cell.name, "seed": cell.seed, "checkpoint": choice["checkpoint"]}
    facts |= {"smoke": run.get("encoder_weights") == weights.RANDOM, "training": work.plan.training_of[cell.name]}
    facts |= {"config_hash": work.plan.config_hash(cell.name)}
    frame = evaluation.evaluate(
        folder / "clean", {ENHANCED: enhanced}, _noisy_needed(work, folder), work.jobs, work.asked
    )
    frame = frame[frame["system"] == ENHANCED].reset_index(drop=True)
    references = leakage.find_references({ENHANCED: enhanced}, folder / "clean", folder / "noisy")
    means = _write_scores(work, cell, built, leakage.with_leaks(frame, references, work.jobs), facts)
    return means | {"rtf": facts["rtf"]}


def score_noisy(work: Work, cell: Cell) -> Product:
    """Score the unprocessed files of a set."""
    work = _with_metrics_before(work, cell)
    (built,) = cell.needs
    folder = work.place(built)
    frame = evaluation.evaluate(folder / "clean", {}, folder / "noisy", work.jobs, work.asked)
    return _write_scores(work, cell, built, frame, {"experiment": evaluation.NOISY, "smoke": False})


def _with_metrics_before(work: Work, cell: Cell) -> Work:
    """Asks also for the metrics that the cell's table had before, which would be lost."""
    return replace(work, asked=tuple(dict.fromkeys((*work.asked_before(cell), *work.asked))))


def _noisy_needed(work: Work, folder: Path) -> Path | None:
    """The noisy files of a set, where a metric that was asked for needs more than the clean ones."""
    needs = {signal for name in work.asked for signal in METRICS[name].needs}
    return folder / "noisy" if needs - {"clean"} else None


def _write_scores(work: Work, cell: Cell, built: Cell, frame: pd.DataFrame, facts: Mapping[str, Any]) -> Product:
    """Write the rows of `frame`, each with `facts` and the class and SNR of its noise, and return the means."""
    rows = build.find_rows(work.place(built), frame["file"])
    noises = {name: [row.get(name, "") for row in rows] for name in ("kind", "snr_db")}
    of_set = {"set": built.name, "scale": work.plan.scale, "set_sha256": work.products[built.key]["sha256"]}
    write_csv(frame.assign(**noises, **facts, **of_set).reindex(columns=[*COLUMNS, *work.asked]), work.place(cell))
    return {name: round(float(frame[name].mean()), 4) for name in (*MAIN, *work.asked)}
