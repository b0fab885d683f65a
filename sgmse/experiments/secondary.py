"""What a result costs: how soon a training converges, how long enhancement takes, how large the network is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from sgmse.common.errors import UserError

SHARE = 0.95


@dataclass(frozen=True)
class Convergence:
    """When a training was nearly as good as it became.

    The gain of a validation is its PESQ (with the reference, w = 1, averaged weights) less that of the noisy files.
    `step` and `minutes` are those of the first validation whose gain is at least 95 % of the best one's; None where no
    validation gains. The validation before it was worse, so both are upper bounds by one interval.

    Attributes:
        minutes: of training up to there, validations included; a resumed run counts on.
        best_step: of the best validation; a run whose last one is the best may not have finished learning.
        reason: why there is no step, or what to know of it.
    """

    step: int | None
    minutes: float | None
    best_step: int | None
    best_pesq: float
    noisy_pesq: float
    reason: str


def convergence(path: Path) -> Convergence:
    """From the validation.csv of a run. Raises `UserError` for a file that is no such table."""
    nothing = Convergence(None, None, None, math.nan, math.nan, "")
    if not path.is_file():
        return Convergence(**asdict(nothing) | {"reason": f"{path.name} is not there: no validation yet"})
    try:
        table = pd.read_csv(path).astype({"step": int, "seconds": float})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as the validation table of a run ({error}); train again") from None
    if not {"pesq", "noisy/pesq"} <= set(table):
        return Convergence(**asdict(nothing) | {"reason": "no PESQ was measured in training (num_eval_files 0)"})
    scored = table[table["pesq"].notna() & table["noisy/pesq"].notna()]
    if scored.empty:
        return Convergence(**asdict(nothing) | {"reason": "no validation has a PESQ"})
    gain = scored["pesq"] - scored["noisy/pesq"]
    best = scored.iloc[int(gain.to_numpy().argmax())]
    common = (int(best["step"]), float(best["pesq"]), float(best["noisy/pesq"]))
    if gain.max() <= 0:
        return Convergence(None, None, *common, "no validation was better than the noisy files")
    first = scored[gain >= SHARE * gain.max()].iloc[0]
    last = int(best["step"]) == int(scored["step"].max())
    reason = "the last validation was the best: it may still have been learning" if last else ""
    return Convergence(int(first["step"]), float(first["seconds"]) / 60, *common, reason)


def convergences(run_dir: Path, trainings: pd.DataFrame) -> pd.DataFrame:
    """`convergence` of each row of trainings.csv.

    Returns the columns training, seed, experiments, device, smoke, steps, gpu_hours (minutes / 60 where it was trained
    on one CUDA device; NaN elsewhere) and those of `Convergence`.
    """
    rows = []
    for _, row in trainings.iterrows():
        found = convergence(run_dir / str(row["run_folder"]) / "validation.csv")
        on_gpu = str(row["device"]).startswith("cuda") and found.minutes is not None
        kept = {name: row[name] for name in ("training", "seed", "experiments", "device", "smoke", "steps")}
        rows.append(kept | {"gpu_hours": (found.minutes or 0) / 60 if on_gpu else math.nan} | asdict(found))
    columns = ["training", "seed", "experiments", "device", "smoke", "steps", "gpu_hours"]
    return pd.DataFrame(rows, columns=[*columns, *Convergence.__dataclass_fields__])


def latency(results: pd.DataFrame) -> pd.DataFrame:
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


def sizes(trainings: pd.DataFrame) -> pd.DataFrame:
    """Parameters of each training, whatever the seed: the columns training, experiments, trained and frozen."""
    once = trainings.drop_duplicates("training").reset_index(drop=True)
    named = {"parameters_trained": "trained", "parameters_frozen": "frozen"}
    return once[["training", "experiments", *named]].rename(columns=named)
