"""A small RUN_DIR as scripts/run_experiments.py leaves it, with scores that were drawn instead of measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from sgmse.data import audio
from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.plan import Data, Plan, Training
from sgmse.experiments.work import list_cells, list_shares, write_record

RATE = 16000
SETS = ("id", "esc50", "nonstationary")
KINDS = {"id": ("alarm", "water"), "esc50": ("chainsaw", "rain_&_wind"), "nonstationary": ("concat", "events")}
GAINS: Mapping[str, float] = {  # PESQ over the noisy files
    "BASE-00": 0.30,
    "CFG-00": 0.31,
    "CFG-01": 0.36,
    "XAttn-03": 0.33,
    "XAttn-02": 0.35,
    "CLAP-01": 0.20,
}
_SHA = "a" * 64
CHOICE = {"guidance_scale": 1.0, "N": 3, "checkpoint": "best_pesq"}


def make_plan(names: tuple[str, ...], seeds: tuple[int, ...]) -> Plan:
    """Every experiment with a training of its own."""
    experiments, trainings, training_of = {}, {}, {}
    for name in names:
        baseline, training = None if name == "BASE-00" else "BASE-00", f"bridge_{name.lower()}"
        experiments[name] = Experiment(
            id=name,
            hypothesis=f"What {name} is expected to show.",
            train={"encoder": "cnn" if baseline else "none"},
            sets=["nonstationary"] if name.startswith("XAttn") else list(SETS),
            baseline=baseline,
            versus=["XAttn-03"] if name == "XAttn-02" and "XAttn-03" in names else [],
            reference="disjoint" if baseline else "none",
        )
        training_of[name], trainings[training] = training, Training(training, experiments[name].train, [])
    items, steps = dict.fromkeys((*SETS, "valid"), 6), {name: [1, 3] for name in names}
    set_names = {name: name for name in SETS}
    return Plan("mini", list(seeds), experiments, trainings, training_of, Data(), set_names, items, steps)


def make_run(
    folder: Path,
    names: tuple[str, ...] = tuple(GAINS),
    seeds: tuple[int, ...] = (0,),
    items: int = 6,
    seconds: float = 0.4,
) -> Plan:
    """Write plan.json, results.csv, trainings.csv, validation.csv, sweeps, test sets and enhanced files."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(names, seeds)
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    rng = np.random.default_rng(0)
    tables = []
    for name in plan.sets:
        rows = _set_rows(name, items, rng)
        _write_set(folder / "sets" / name, [str(row["file"]) for row in rows], seconds, rng)
        tables.append(pd.DataFrame(rows).assign(**_FIXED_NOISY))
    noisy = {table["set"].iloc[0]: table for table in tables}
    for experiment_id in names:
        for seed in seeds:
            for name in plan.sets_of(experiment_id):
                tables.append(_scores(plan, experiment_id, seed, noisy[name], rng))
                _write_enhanced(folder, experiment_id, seed, name, noisy[name]["file"])
            _write_choice(folder / "choices" / experiment_id / f"seed{seed}", GAINS[experiment_id])
    pd.concat(tables, ignore_index=True).to_csv(folder / "results.csv", index=False)
    _write_trainings(folder, plan)
    for cell in list_cells(plan, list_shares(plan)):
        product = CHOICE | {"pesq": 1.2 + GAINS[cell.name]} if cell.kind == "choose" else {}
        write_record(folder, cell.key, {"status": "done", "product": product})
    return plan


_FIXED_NOISY = {"experiment": "noisy", "seed": None, "system": "noisy", "reason": None, "seconds": 0.4, "smoke": False}
_FIXED_NOISY |= {"scale": "mini", "reference": None, "set_sha256": _SHA}


def _set_rows(name: str, items: int, rng: np.random.Generator) -> list[dict[str, object]]:
    return [
        {
            "set": name,
            "file": f"{name}_{place:03d}",
            "kind": KINDS[name][place % 2],
            "source": f"n{place // 2}",
            "snr_db": (0, 5, 10)[place % 3],
            "pesq": round(1.2 + 0.1 * (place % 3) + rng.normal(0, 0.05), 4),
            "estoi": 0.7,
            "si_sdr": 5.0,
        }
        for place in range(items)
    ]


def _scores(plan: Plan, name: str, seed: int, noisy: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    gain = GAINS[name] + 0.02 * seed + rng.normal(0, 0.08, len(noisy))
    return noisy.assign(
        experiment=name,
        seed=seed,
        system="enhanced",
        pesq=(noisy["pesq"] + gain).round(4),
        estoi=noisy["estoi"] + 0.05,
        si_sdr=noisy["si_sdr"] + 10 * gain,
        leak=0.1,
        leak_shared=False,
        rtf=0.2,
        nfe=3,
        passes=6 if name.startswith("CFG") else 3,
        guidance_scale=1.0,
        N=3,
        checkpoint="best_pesq",
        checkpoint_sha256=_SHA,
        reference=plan.experiments[name].reference,
        encoder=plan.experiments[name].train["encoder"],
        encoder_weights="random" if name.startswith("CLAP") else None,
        smoke=name.startswith("CLAP"),
        training=plan.training_of[name],
        config_hash=plan.config_hash(name),
    )


def _write_set(folder: Path, files: list[str], seconds: float, rng: np.random.Generator) -> None:
    time = np.arange(int(seconds * RATE)) / RATE
    for place, file in enumerate(files):
        clean = 0.3 * np.sin(2 * np.pi * (300 + 200 * place) * time) * np.hanning(len(time))
        noise = 0.05 * rng.standard_normal(len(time) + RATE // 5)
        signals = {"clean": clean, "noisy": clean + noise[: len(clean)], "ref": noise[len(clean) :]}
        for name, waveform in signals.items():
            audio.write(folder / name / f"{file}.flac", waveform, RATE)


def _write_enhanced(folder: Path, name: str, seed: int, set_name: str, files: pd.Series) -> None:
    for file in files:
        noisy = audio.read(folder / "sets" / set_name / "noisy" / f"{file}.flac", RATE)
        out = folder / "enhanced" / name / f"seed{seed}" / set_name / f"{file}.flac"
        audio.write(out, noisy * (1 - GAINS[name]), RATE)


def _write_choice(folder: Path, gain: float) -> None:
    folder.mkdir(parents=True)
    grid = [(checkpoint, N, w) for checkpoint in ("best_pesq", "last") for N in (1, 3) for w in (1.0, 3.0)]
    rows = pd.DataFrame(grid, columns=["checkpoint", "N", "guidance_scale"])
    w, N = rows["guidance_scale"], rows["N"]
    pesq = 1.2 + gain + 0.02 * w - 0.006 * w**2 + 0.01 * N - 0.01 * (rows["checkpoint"] == "last")
    rows.assign(pesq=pesq, nfe=N, passes=N * np.where(w == 1, 1, 2)).to_csv(folder / "sweep.csv", index=False)


def _write_trainings(folder: Path, plan: Plan) -> None:
    rows = []
    for id, name in plan.training_of.items():
        for seed in plan.seeds:
            run, steps = folder / "trainings" / name / f"seed{seed}", np.arange(100, 501, 100)
            run.mkdir(parents=True)
            table = pd.DataFrame({"step": steps, "seconds": steps * 0.5, "valid_loss": 0.01 / np.sqrt(steps)})
            table = table.assign(**{"noisy/pesq": 1.2, "pesq": 1.2 + GAINS[id] * (1 - np.exp(-steps / 150))})
            if plan.experiments[id].baseline:
                table["cond_gap"] = 1e-4 * steps / 500
            table.to_csv(run / "validation.csv", index=False)
            (run / "config.yaml").write_text("# code: 0123abc\nmax_steps: 500\n")
            row = {"training": name, "seed": seed, "experiments": id, "run_folder": f"trainings/{name}/seed{seed}"}
            row |= {"steps": 500, "minutes": 4.2, "device": "cpu", "parameters_trained": 1_000_000}
            smoke = id.startswith("CLAP")
            row |= {"parameters_frozen": 28_000_000 if smoke else 0, "smoke": smoke}
            rows.append(row | {"config_hash": plan.config_hash(id)})
    pd.DataFrame(rows).to_csv(folder / "trainings.csv", index=False)
