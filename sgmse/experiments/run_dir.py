"""RUN_DIR/plan.json: one plan per folder, which may gain experiments and seeds, and change in nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.experiments.plan import Plan, Training
from sgmse.experiments.state import State

PLAN = "plan.json"
LAYOUT = ("state", "logs", "slurm")  # what may be there before a plan is
_POLL_S = 0.2


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder, if there is one. Raises `UserError` where it cannot be understood."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error}); use another --out") from None


def join_plan(folder: Path, asked: Plan) -> Plan:
    """Lay `asked` beside the plan of the folder, write the whole and return it.

    Raises `UserError` where the two would give one experiment different numbers. Array tasks may call it at once.
    """
    joined(folder, asked)  # refuses before anything is written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
    with alone(folder, "plan"):
        whole = joined(folder, asked)
        if whole != read_plan(folder):
            write_text(folder / PLAN, whole.as_json())
    return whole


def joined(folder: Path, asked: Plan) -> Plan:
    """What `join_plan` would write."""
    before = read_plan(folder)
    if before is not None:
        return _joined(folder, before, asked)
    strangers = [path for path in folder.glob("*") if path.name not in LAYOUT] if folder.is_dir() else []
    if strangers:
        raise UserError(f"{folder}: holds {strangers[0].name} and is no folder of experiments; choose another --out")
    return asked


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Inside, no other process is at `what`, which takes moments."""
    lock = State(folder / "state").lock(what)
    while lock.acquire():
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


def _joined(folder: Path, before: Plan, asked: Plan) -> Plan:
    for name, old, new in (("scale", before.scale, asked.scale), *_data(before, asked)):
        if old != new:
            raise UserError(f"{folder}: holds results with another {name} ({old}, not {new}); choose another --out")
    for name in before.experiments.keys() & asked.experiments.keys():
        if before.config_hash(name) != asked.config_hash(name):
            raise UserError(
                f"{folder}: holds {name} with other settings than it has now (config hash {before.config_hash(name)}, "
                f"not {asked.config_hash(name)}); choose another --out"
            )
    for name in before.items.keys() & asked.items.keys():
        if before.items[name] != asked.items[name]:
            raise UserError(f"{folder}: holds the set {name} of {before.items[name]} items; choose another --out")
    trainings = {
        name: _with_experiments(before.trainings.get(name), asked.trainings.get(name))
        for name in {**before.trainings, **asked.trainings}
    }
    return replace(
        asked,
        seeds=tuple(sorted({*before.seeds, *asked.seeds})),
        experiments={**before.experiments, **asked.experiments},
        trainings=trainings,
        training_of={**before.training_of, **asked.training_of},
        set_names={**before.set_names, **asked.set_names},
        items={**before.items, **asked.items},
        steps={**before.steps, **asked.steps},
    )


def _data(before: Plan, asked: Plan) -> Iterator[tuple[str, object, object]]:
    """The folders of both, by name."""
    old, new = asdict(before.data), asdict(asked.data)
    return ((name, old[name], new[name]) for name in old)


def _with_experiments(before: Training | None, asked: Training | None) -> Training:
    some = [training for training in (before, asked) if training is not None]
    served = dict.fromkeys(name for training in some for name in training.experiments)
    return replace(some[-1], experiments=tuple(served))
