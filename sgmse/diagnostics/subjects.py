"""The checkpoints under test: one model, trained with one seed or several, and the baselines it is held against."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import CONDITIONING, DataConfig, ModelConfig
from sgmse.settings.yaml_files import read_yaml

STEP_TOLERANCE = 0.05  # trainings by the clock never end at the same step
_BUDGET = {"batch_size", "accumulate_grad_batches", "devices", "max_steps", "max_epochs", "max_minutes"}
_BUDGET |= {"lr", "warmup_steps", "lr_decay", "grad_clip", "ema_decay"}
_WATCHING = {"num_workers", "num_eval_files", "num_valid_items", "encoder_checkpoint"}  # of no effect on the weights
COMPARED = ({f.name for cls in (ModelConfig, DataConfig) for f in fields(cls)} - _WATCHING) | _BUDGET


@dataclass(frozen=True)
class Subject:
    """A checkpoint with what is known of its training.

    Args:
        seed: of the training; its place among the others where that is not known.
        settings: of the run, from config.yaml beside the checkpoint; of the model alone where there is none.
        has_run: whether config.yaml was there.
        steps: of the training as a whole, None if not known.
    """

    path: Path
    model: Enhancer
    seed: int
    settings: Mapping[str, Any]
    has_run: bool
    steps: int | None


def load_subjects(paths: Sequence[Path], encoder_checkpoint: str | None) -> list[Subject]:
    """Checkpoints of one model that was trained with several seeds, on the CPU.

    Raises `UserError` where they differ in more than the seed, or not even in that.
    """
    found = []
    for place, path in enumerate(paths):
        model, config = Enhancer.from_checkpoint(path, "cpu", encoder_checkpoint), _run_folder(path) / "config.yaml"
        run = read_yaml(config) if config.is_file() else {}
        seed = run.get("seed", place)
        if not isinstance(seed, int):
            raise UserError(f"{config}: seed {seed} is no whole number; restore it, or move it away")
        found.append(Subject(path, model, seed, model.settings | run, bool(run), _read_steps(path)))
    for other in found[1:]:
        differing = compare_settings(found[0], other, COMPARED)
        if differing:
            raise UserError(
                f"{other.path}: was not trained as {found[0].path}, which is to differ in its seed alone "
                f"({', '.join(differing)}); examine the two one by one"
            )
    seeds = [subject.seed for subject in found]
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"{', '.join(map(str, paths))}: are trainings with the seeds {', '.join(map(str, seeds))}; give one "
            "checkpoint of each seed"
        )
    return found


def load_baselines(paths: Sequence[Path], subject: Subject) -> list[Subject]:
    """The checkpoints of the model without reference. Raises `UserError` where it takes one."""
    if subject.path in paths:
        raise UserError(f"{subject.path}: is model and baseline at once; name another --baseline")
    found = load_subjects(paths, None)
    for baseline in found:
        if baseline.model.encoder is not None:
            raise UserError(
                f"{baseline.path}: takes a noise reference, but the baseline is a model trained without one; train it "
                "with --encoder none"
            )
    return found


def compare_settings(one: Subject, other: Subject, names: set[str]) -> list[str]:
    """`name VALUE of other, not VALUE of one` for each of the settings that both name and that differ."""

    def show(value: Any) -> str:
        return f"[{' '.join(map(str, value))}]" if isinstance(value, list) else str(value)

    pairs = {
        name: (other.settings[name], one.settings[name]) for name in names & one.settings.keys() & other.settings.keys()
    }
    return [f"{name} {show(a)}, not {show(b)}" for name, (a, b) in sorted(pairs.items()) if a != b]


def compare_training(subject: Subject, baseline: Subject, num_steps: int | None) -> list[str]:
    """In what, beside the reference, the baseline was trained or is sampled otherwise: its value, then the model's.

    num_steps: of the sampler of both; None: each its own.
    """
    found = compare_settings(subject, baseline, COMPARED - CONDITIONING)
    if subject.steps is not None and baseline.steps is not None:
        longer = max(subject.steps, baseline.steps)
        if abs(subject.steps - baseline.steps) > STEP_TOLERANCE * longer:
            found.append(f"{baseline.steps} steps of training, not {subject.steps}")
    own, other = subject.model.sampler.N, baseline.model.sampler.N
    if num_steps is None and own != other:
        found.append(f"{other} sampling steps, not {own} (equal ones with --N)")
    return found


def describe_training(subject: Subject, baselines: Sequence[Subject], unlike: Sequence[str]) -> list[str]:
    """Sentences on how model and baseline were trained; `unlike`: in what they differ beside the reference."""
    if not baselines:
        return []
    known = {"baseline": baselines[0], "this model": subject}
    steps = [f"{what} {one.steps} steps" for what, one in known.items() if one.steps is not None]
    lines = [f"training: {', '.join(steps)}"] if steps else []
    if unlike:
        lines.append(f"the baseline differs in more than the reference: {'; '.join(unlike)}")
    unknown = [one.path for one in known.values() if not one.has_run]
    return lines + [
        f"{path}: no config.yaml of its run, so whether both were trained alike is not known" for path in unknown
    ]


def run_name(ckpt: Path) -> str:
    """That of the run which wrote a checkpoint, or its own."""
    return _run_folder(ckpt).name if ckpt.parent.name == "checkpoints" else ckpt.stem


def _run_folder(ckpt: Path) -> Path:
    return ckpt.parent.parent


def _read_steps(ckpt: Path) -> int | None:
    """How many steps the run behind a checkpoint was trained: a best checkpoint may be an early one."""
    try:
        with open(_run_folder(ckpt) / "validation.csv", newline="", encoding="utf-8") as file:
            return max(int(float(row["step"])) for row in csv.DictReader(file))
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        step = checkpoints.read(ckpt).get("global_step")
        return int(step) if isinstance(step, int) else None
