"""RUN_DIR: where each thing lies in it, and its plan, which may gain experiments and seeds and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.common.lease import hold
from sgmse.experiments.cells import Cell
from sgmse.experiments.plan import Plan

PLAN = "plan.json"
_BEFORE_PLAN = ("state", "logs", "slurm")  # what may be in the folder before the plan is

Product = dict[str, Any]
"""What a cell found that later cells and tables need, e.g. the hash of a set, the guidance scale that was chosen."""
Products = Mapping[str, Product]
"""Those of the cells that a cell needs, by their keys."""
Launch = Callable[[Sequence[str], Path], None]
"""Runs a command (what follows `python`) and appends what it prints to a log; see `processes.Launcher`."""


@dataclass(frozen=True)
class Work:
    """A plan and the folder it is worked at in.

    Attributes:
        launch: starts trainings. device, logger: flags of train.py, of which none changes a result.
        jobs: scoring processes; None: one per core.
    """

    plan: Plan
    folder: Path
    launch: Launch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    logger: str = "csv"
    jobs: int | None = None

    def training(self, name: str) -> Path:
        """The folder of a training, which holds its settings and a run folder per seed."""
        return self.folder / "trainings" / name

    def run(self, cell: Cell) -> Path:
        """The run folder of a training, or of the training that an experiment's cell rests on."""
        name = cell.name if cell.kind == "train" else self.plan.training_of[cell.name]
        return self.training(name) / f"seed{cell.seed}"

    def test_set(self, name: str) -> Path:
        return self.folder / "sets" / name

    def choice(self, cell: Cell) -> Path:
        return self.folder / "choices" / cell.name / f"seed{cell.seed}"

    def enhanced(self, cell: Cell) -> Path:
        return self.folder / "enhanced" / cell.name / f"seed{cell.seed}" / cell.test_set

    def scores(self, cell: Cell) -> Path:
        """The table of a `score` or `noisy` cell."""
        if cell.kind == "noisy":
            return self.folder / "scores" / "noisy" / f"{cell.name}.csv"
        return self.folder / "scores" / cell.name / f"seed{cell.seed}" / f"{cell.test_set}.csv"

    def log(self, cell: Cell) -> Path:
        return self.folder / "logs" / f"{cell.key}.log"

    def lock(self, name: str) -> Path:
        """The lock of a cell, by its key, or of a table of the folder."""
        return self.folder / "state" / f"{name}.lease"

    def is_conditioned(self, experiment_id: str) -> bool:
        """Whether the model of an experiment takes a reference."""
        return bool(self.plan.trainings[self.plan.training_of[experiment_id]].values["encoder"] != "none")


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder, if there is one. Raises `UserError` where it cannot be understood."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error}); use another --out") from None


def join_plan(folder: Path, plan: Plan) -> Plan:
    """Merge `plan` into that of the folder, write the whole and return it.

    Raises `UserError` where the two would give one experiment different numbers. Array tasks may call it at once.
    """
    merged_plan(folder, plan)  # refuses before anything is written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
    with hold(folder / "state" / "plan.lease"):
        whole = merged_plan(folder, plan)
        if whole != read_plan(folder):
            write_text(folder / PLAN, whole.to_json())
    return whole


def merged_plan(folder: Path, plan: Plan) -> Plan:
    """What `join_plan` would write."""
    before = read_plan(folder)
    if before is not None:
        _check_same_numbers(folder, before, plan)
        return _merge(before, plan)
    strangers = [path for path in folder.glob("*") if path.name not in _BEFORE_PLAN] if folder.is_dir() else []
    if strangers:
        raise UserError(f"{folder}: holds {strangers[0].name} and is no folder of experiments; choose another --out")
    return plan


def _check_same_numbers(folder: Path, before: Plan, plan: Plan) -> None:
    facts: list[tuple[str, object, object]] = [("scale", before.scale, plan.scale)]
    facts += [(name, old, vars(plan.data)[name]) for name, old in vars(before.data).items()]
    facts += [(f"size of {name}", before.items[name], plan.items[name]) for name in before.items.keys() & plan.items]
    for name, old, new in facts:
        if old != new:
            raise UserError(f"{folder}: holds results with another {name} ({old}, not {new}); choose another --out")
    for name in before.experiments.keys() & plan.experiments.keys():
        old, new = before.config_hash(name), plan.config_hash(name)
        if old != new:
            raise UserError(
                f"{folder}: holds {name} with other settings than it has now (config hash {old}, not {new}); choose "
                "another --out"
            )


def _merge(before: Plan, plan: Plan) -> Plan:
    trainings = {**before.trainings, **plan.trainings}
    for name in before.trainings.keys() & plan.trainings.keys():
        both = [*before.trainings[name].experiments, *plan.trainings[name].experiments]
        trainings[name] = replace(trainings[name], experiments=list(dict.fromkeys(both)))
    return replace(
        plan,
        seeds=sorted({*before.seeds, *plan.seeds}),
        experiments={**before.experiments, **plan.experiments},
        trainings=trainings,
        training_of={**before.training_of, **plan.training_of},
        set_names={**before.set_names, **plan.set_names},
        items={**before.items, **plan.items},
        steps={**before.steps, **plan.steps},
    )
