"""Going on with a run: what its folder must hold, what may not change, and when nothing is left to do."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.common.machine import is_first_process
from sgmse.encoders import weights
from sgmse.model import checkpoints
from sgmse.settings.config import ModelConfig, TrainConfig

SETTINGS, CURVES = "config.yaml", "validation.csv"  # in the folder of a run
_OF_A_START = ("ckpt", "run_dir", "log_dir", "num_workers", "device")  # settings that change no result
_OF_JOBS = (".log", ".out", ".err", ".lock")  # what a job may have put into a folder before its run starts


@dataclass(frozen=True)
class StoppedRun:
    """A run that can go on: its checkpoint, its config.yaml, the model in it, and how far it has come.

    minutes: of training. encoder_identity: of the pretrained weights it was trained with, or None.
    """

    ckpt: Path
    settings: Path
    model: ModelConfig
    steps: int
    epochs: int
    minutes: float
    encoder_identity: str | None


def read_stopped_run(ckpt: Path) -> StoppedRun:
    """The run that wrote a checkpoint. Raises `UserError` unless training can go on from it."""
    content = checkpoints.read(ckpt)
    average = content.get("average")
    whole = "optimizer_states" in content and isinstance(average, dict) and "weights" in average
    if not whole or not isinstance(content.get("model_settings"), dict):
        raise UserError(f"{ckpt}: training can be resumed from checkpoints of train.py only; check --ckpt")
    path = ckpt.resolve().parent.parent / SETTINGS
    if not path.is_file():
        raise UserError(f"{ckpt}: no {path.name} in {ckpt.parent.parent}; the folder of the run must be whole")
    model = checkpoints.stored_settings(content)[0]
    seconds = content.get("callbacks", {}).get("Timer", {}).get("time_elapsed", {}).get("train", 0.0)
    steps, epochs = content["global_step"], content.get("epoch", 0)
    return StoppedRun(ckpt, path, model, steps, epochs, seconds / 60, content.get("encoder_identity"))


def find_stopped_run(folder: Path) -> StoppedRun | None:
    """The run in `folder`; None where one is to start. Raises `UserError` for a folder of something else.

    A run that was killed before its first checkpoint starts again.
    """
    saved = folder / "checkpoints"
    last, kept = saved / "last.ckpt", sorted(saved.glob("step_*.ckpt"))
    run = read_stopped_run(last) if last.is_file() else None
    if kept and (run is None or _is_newer(kept[-1], run)):
        return read_stopped_run(kept[-1])
    if run is not None:
        return run
    for path in (path for path in saved.glob("*.ckpt") if path.name[0] != "."):
        raise UserError(f"{folder}: holds {path.name} but no last.ckpt to go on from; choose another --run_dir")
    # further processes may see what the first one has begun
    is_of_a_run = not is_first_process() or not folder.is_dir() or (folder / SETTINGS).is_file()
    for path in () if is_of_a_run else folder.iterdir():
        if path.name[0] != "." and path.suffix not in _OF_JOBS and path.name != "checkpoints":
            raise UserError(f"{folder}: holds {path.name} and is no folder of a run; choose another --run_dir")
    return None


def _is_newer(kept: Path, run: StoppedRun) -> bool:
    """Whether a kept step is a later one of the same sitting or of one after it, as where a run was killed."""
    later = int(kept.stem.removeprefix("step_")) > run.steps
    return later and kept.stat().st_mtime_ns > run.ckpt.stat().st_mtime_ns


def check_same_model(run: StoppedRun, wanted: ModelConfig) -> None:
    """Raise `UserError` unless the run is of the model that is wanted, before anything is written into its folder."""
    ckpt, stored = run.ckpt, asdict(run.model)
    for name, value in asdict(wanted).items():
        if stored[name] != value and name != "encoder_checkpoint":  # the file may move; its hash must not change
            flag = f"--no-{name}" if value is False else f"--{name}"
            raise UserError(f"{ckpt}: was trained with {name} {stored[name]}, not {value}; leave {flag} out to resume")
    if wanted.encoder in weights.PUBLISHED and wanted.freeze_encoder:
        weights.check_identity(ckpt, wanted.encoder, wanted.encoder_checkpoint, run.encoder_identity)


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], step: int) -> list[str]:
    """Sentences on the settings that a resumed run changes; all of them are in force from its first step on."""
    changed = [name for name in before if name not in _OF_A_START and before[name] != now[name]]
    if not changed:
        return []
    sentences = [f"from step {step} on: " + ", ".join(f"{name} {before[name]} → {now[name]}" for name in changed)]
    if now["lr_decay"] == "cosine" and {"max_steps", "lr_decay"} & set(changed):
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, step / now["max_steps"])))
        sentences.append(
            f"the cosine now ends at step {now['max_steps']}, so the learning rate is {share:.2f} of lr here"
        )
    if {"accumulate_grad_batches", "batch_size", "devices", "num_nodes"} & set(changed):
        sentences.append("a step takes other items than before, and validations may fall on other steps")
    return sentences


def find_reached_limit(run: StoppedRun, train: TrainConfig) -> tuple[str, str] | None:
    """The limit that the run has reached and how, e.g. ("max_steps", "400 of 400 steps"); None before that."""
    missed = is_missed(run.settings.with_name(CURVES), run.steps, train.val_every_n_steps)
    if 0 <= train.max_steps <= run.steps and not (train.max_steps == run.steps and missed):
        return "max_steps", f"{run.steps} of {train.max_steps} steps"
    if 0 <= train.max_epochs <= run.epochs:
        return "max_epochs", f"{run.epochs} of {train.max_epochs} epochs"
    if 0 < train.max_minutes <= run.minutes and not missed:
        return "max_minutes", f"{run.minutes:g} of {train.max_minutes:g} minutes"
    return None


def is_missed(table: Path, step: int, every: int) -> bool:
    """Whether the validation after `step`, one of those after `every` steps, is missing in validation.csv."""
    return step > 0 and step % every == 0 and step not in (int(row["step"]) for row in read_validations(table))


def read_validations(table: Path) -> list[dict[str, Any]]:
    """The rows of a validation.csv; none without the file. Raises `UserError` where it is damaged."""
    if not table.is_file():
        return []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        if all(int(row["step"]) >= 0 and None not in row for row in rows):
            return rows
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{table}: is damaged; repair its lines or move it away")
