"""What all cells share: the plan, where results go, how commands are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sgmse.experiments.cells import Cell
from sgmse.experiments.commands import Launch
from sgmse.experiments.plan import Plan

Product = dict[str, Any]
Products = Mapping[str, Product]  # of the cells that a cell needs, by their keys


@dataclass(frozen=True)
class Options:
    """What changes no result. jobs: scoring processes; None: one per core."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"
    jobs: int | None = None


@dataclass(frozen=True)
class Work:
    """The layout of RUN_DIR, `folder`, beside the plan and how to work at it."""

    plan: Plan
    folder: Path
    options: Options
    launch: Launch

    def training(self, name: str) -> Path:
        """The folder of a training, which holds its settings and a run folder per seed."""
        return self.folder / "trainings" / name

    def run(self, name: str, seed: int | None) -> Path:
        """The run folder of a training."""
        return self.training(name) / f"seed{seed}"

    def run_of(self, cell: Cell) -> Path:
        """The run folder of the training that an experiment's cell rests on."""
        return self.run(self.plan.training_of[cell.name], cell.seed)

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

    def conditioned(self, experiment_id: str) -> bool:
        """Whether the model of an experiment takes a reference."""
        return bool(self.plan.trainings[self.plan.training_of[experiment_id]].values["encoder"] != "none")
