"""The cells `enhance`, `score` and `noisy`: a test set with what was chosen, and a row of scores per file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.files import write_csv
from sgmse.data.testsets import build
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.encoders import weights
from sgmse.enhancement.folder import enhance_folder
from sgmse.evaluation import leakage
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.metrics import MAIN
from sgmse.experiments.cells import Cell
from sgmse.experiments.work import Product, Products, Work
from sgmse.settings.config import EnhanceConfig

ENHANCED = "enhanced"
COLUMNS = (
    *("experiment", "seed", "set", "system", "file", "kind", "source", "snr_db", *MAIN, "reason"),
    *("seconds", "leak", "leak_shared", "rtf", "nfe", "passes", "guidance_scale", "N", "checkpoint"),
    *("checkpoint_sha256", "reference", "encoder", "encoder_weights", "smoke", "scale", "training", "config_hash"),
    "set_sha256",
)
_OF_RUN = (
    *("rtf", "nfe", "passes", "guidance_scale", "N", "checkpoint_sha256", "reference", "encoder"),
    "encoder_weights",
)


def enhance(work: Work, cell: Cell, products: Products) -> Product:
    """Enhance the test set once, with the guidance scale, steps and checkpoint that were chosen."""
    choice, _ = (products[need.key] for need in cell.needs)
    conditioned, out = work.is_conditioned(cell.name), work.enhanced(cell)
    config = EnhanceConfig(
        ckpt=str(work.run(cell) / "checkpoints" / f"{choice['checkpoint']}.ckpt"),
        test_dir=str(work.test_set(cell.test_set)),
        enhanced_dir=str(out),
        reference=work.plan.experiments[cell.name].reference if conditioned else None,
        device=work.device,
    )
    guidance = GuidanceSettings(guidance_scale=choice["guidance_scale"]) if conditioned else GuidanceSettings()
    log = work.log(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        enhance_folder(config, guidance, {"N": choice["N"]})
    run = evaluation.read_run(out)
    return {name: run.get(name) for name in _OF_RUN}


def score(work: Work, cell: Cell, products: Products) -> Product:
    """Score the enhanced files and write the cell's table."""
    enhanced = cell.needs[0]
    choice, built = (need.key for need in enhanced.needs)
    folder, run = work.test_set(cell.test_set), products[enhanced.key]
    systems = {ENHANCED: work.enhanced(enhanced)}
    frame = evaluation.evaluate(folder / "clean", systems, None, work.jobs)
    references = leakage.find_references(systems, folder / "clean", folder / "noisy")
    frame = leakage.with_leaks(frame, references, work.jobs)
    facts = {
        **run,
        "experiment": cell.name,
        "seed": cell.seed,
        "set": cell.test_set,
        "checkpoint": products[choice]["checkpoint"],
        "smoke": run["encoder_weights"] == weights.RANDOM,
        "scale": work.plan.scale,
        "training": work.plan.training_of[cell.name],
        "config_hash": work.plan.config_hash(cell.name),
        "set_sha256": products[built]["sha256"],
    }
    _write(frame, facts, folder, work.scores(cell))
    return _means(frame)


def score_noisy(work: Work, cell: Cell, products: Products) -> Product:
    """Score the unprocessed files of a set."""
    folder = work.test_set(cell.name)
    frame = evaluation.evaluate(folder / "clean", {}, folder / "noisy", work.jobs)
    sha = products[cell.needs[0].key]["sha256"]
    facts = {"experiment": evaluation.NOISY, "set": cell.name, "scale": work.plan.scale, "set_sha256": sha}
    _write(frame, {**facts, "smoke": False}, folder, work.scores(cell))
    return _means(frame)


def _write(frame: pd.DataFrame, facts: Mapping[str, Any], folder: Path, path: Path) -> None:
    """The rows of `frame`, each with `facts`, and the class of its noise and its SNR in dB from the set's manifest."""
    rows = {row["id"]: row for row in build.read_rows(folder)}
    noises = {name: [rows[Path(file).name].get(name, "") for file in frame["file"]] for name in ("kind", "snr_db")}
    write_csv(frame.assign(**noises, **facts).reindex(columns=list(COLUMNS)), path)


def _means(frame: pd.DataFrame) -> Product:
    return {name: round(float(frame[name].mean()), 4) for name in MAIN}
