"""What a result costs: how soon a training converges, how long enhancement takes, how large the network is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError

SHARE = 0.95
CONVERGENCE = ["step", "minutes", "best_step", "best_pesq", "noisy_pesq", "reason"]
_OF_TRAINING = ["training", "seed", "experiments", "device", "smoke", "steps"]


def find_convergence(path: Path) -> dict[str, Any]:
    """When the training with this validation.csv was nearly as good as it became, in the columns `CONVERGENCE`.

    The gain of a validation is its PESQ (with the reference, w = 1, averaged weights) less that of the noisy files.
    `step` and `minutes` (validations included; a resumed run counts on) are those of the first validation whose gain is
    at least 95 % of the best one's; NaN where no validation gains. The validation before it was worse, so both are
    upper bounds by one interval. best_step: of the best validation; a run whose last one is the best may not have
    finished learning. reason: why there is no step, or what to know of it.

    Raises `UserError` for a file that is no such table.
    """
    nothing = dict.fromkeys(CONVERGENCE, math.nan)
    if not path.is_file():
        return nothing | {"reason": f"{path.name} is not there: no validation yet"}
    try:
        table = pd.read_csv(path).astype({"step": int, "seconds": float})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as the validation table of a run ({error}); train again") from None
    if not {"pesq", "noisy/pesq"} <= set(table):
        return nothing | {"reason": "no PESQ was measured in training (num_eval_files 0)"}
    scored = table[table["pesq"].notna() & table["noisy/pesq"].notna()]
    if scored.empty:
        return nothing | {"reason": "no validation has a PESQ"}
    gain = scored["pesq"] - scored["noisy/pesq"]
    best = scored.iloc[int(gain.to_numpy().argmax())]
    found = nothing | {"best_step": int(best["step"]), "best_pesq": best["pesq"], "noisy_pesq": best["noisy/pesq"]}
    if gain.max() <= 0:
        return found | {"reason": "no validation was better than the noisy files"}
    first = scored[gain >= SHARE * gain.max()].iloc[0]
    is_last = int(best["step"]) == int(scored["step"].max())
    reason = "the last validation was the best: it may still have been learning" if is_last else ""
    return found | {"step": int(first["step"]), "minutes": float(first["seconds"]) / 60, "reason": reason}


def find_convergences(run_dir: Path, trainings: pd.DataFrame) -> pd.DataFrame:
    """`find_convergence` of each row of trainings.csv, with the columns that say which training it is.

    gpu_hours: minutes / 60 where it was trained on one CUDA device; NaN elsewhere.
    """
    rows = []
    for _, row in trainings.iterrows():
        found = find_convergence(run_dir / str(row["run_folder"]) / "validation.csv")
        gpu_hours = found["minutes"] / 60 if str(row["device"]).startswith("cuda") else math.nan
        rows.append({name: row[name] for name in _OF_TRAINING} | {"gpu_hours": gpu_hours} | found)
    return pd.DataFrame(rows, columns=[*_OF_TRAINING, "gpu_hours", *CONVERGENCE])


def measure_latency(results: pd.DataFrame) -> pd.DataFrame:
    """What enhancement cost, by experiment and seed, whose guidance and steps were chosen apart.

    Returns the columns experiment, seed, guidance_scale, N, rtf (seconds of computing per second of audio, over all
    its files), nfe, passes (network passes per file) and n_files. Real-time factors compare on one machine only.
    """
    enhanced = results[results["system"] != "noisy"]
    rows = []
    for (experiment, seed), own in enhanced.groupby(["experiment", "seed"]):
        first = own.iloc[0]
        line = {"experiment": experiment, "seed": seed, "guidance_scale": first["guidance_scale"], "N": first["N"]}
        line["rtf"] = float((own["rtf"] * own["seconds"]).sum() / own["seconds"].sum())
        rows.append(line | {"nfe": own["nfe"].mean(), "passes": own["passes"].mean(), "n_files": len(own)})
    columns = ["experiment", "seed", "guidance_scale", "N", "rtf", "nfe", "passes", "n_files"]
    return pd.DataFrame(rows, columns=columns)


def list_sizes(trainings: pd.DataFrame) -> pd.DataFrame:
    """Parameters of each training, whatever the seed: the columns training, experiments, trained and frozen."""
    once = trainings.drop_duplicates("training").reset_index(drop=True)
    named = {"parameters_trained": "trained", "parameters_frozen": "frozen"}
    return once[["training", "experiments", *named]].rename(columns=named)
