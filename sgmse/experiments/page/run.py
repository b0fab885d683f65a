"""What a RUN_DIR holds so far, read for the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.evaluation import scores as evaluation
from sgmse.experiments import sets
from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.cells import list_cells, list_shares
from sgmse.experiments.ledger import read_record
from sgmse.experiments.plan import Plan
from sgmse.experiments.results import OF_TRAININGS, RESULTS, TRAININGS
from sgmse.experiments.scoring import COLUMNS
from sgmse.experiments.work import PLAN, read_plan

_TEXT: dict[str, type] = dict.fromkeys(  # names and hashes may look like numbers
    "file kind source set experiment reason reference checkpoint_sha256 config_hash set_sha256".split(), str
)
_NUMBERS = dict.fromkeys("seed pesq estoi si_sdr seconds rtf nfe passes guidance_scale N".split(), float)
_OF_TRAININGS = {"seed": int, "steps": int, "minutes": float, "parameters_trained": int, "parameters_frozen": int}
_OF_CHOICE: dict[str, Any] = {"guidance_scale": (int, float), "N": int, "checkpoint": str, "pesq": (int, float)}


@dataclass(frozen=True)
class Run:
    """A RUN_DIR. results, trainings: the rows of the cells that are complete, maybe none."""

    folder: Path
    plan: Plan
    results: pd.DataFrame
    trainings: pd.DataFrame

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        return self.plan.experiments

    @cached_property
    def noisy(self) -> pd.DataFrame:
        """Scores of the unprocessed files."""
        return self.results[self.results["system"] == evaluation.NOISY]

    @cached_property
    def enhanced(self) -> pd.DataFrame:
        """Scores of what experiments enhanced, in the plan's order of experiments."""
        order = {name: place for place, name in enumerate(self.experiments)}
        rows = self.results[self.results["experiment"].isin(order)]
        return rows.sort_values("experiment", key=lambda names: names.map(order), kind="stable")

    @cached_property
    def smoke(self) -> list[str]:
        """Experiments whose encoder had random weights."""
        return list(self.enhanced.loc[self.enhanced["smoke"], "experiment"].drop_duplicates())

    @cached_property
    def choices(self) -> dict[tuple[str, int], dict[str, Any]]:
        """choice.json by experiment and seed."""
        paths = self._each("choices", self.experiments, "choice.json")
        return {place: _choice(path) for place, path in paths.items()}

    @cached_property
    def validations(self) -> dict[tuple[str, int], pd.DataFrame]:
        """validation.csv by training and seed."""
        return {place: _csv(p) for place, p in self._each("trainings", self.plan.trainings, "validation.csv").items()}

    @cached_property
    def sweeps(self) -> pd.DataFrame:
        """PESQ on the validation set per experiment, guidance scale, N and checkpoint; seeds are averaged."""
        paths = self._each("choices", self.experiments, "sweep.csv")
        tables = [_csv(path).assign(experiment=name) for (name, _), path in paths.items()]
        keys = ["experiment", "checkpoint", "guidance_scale", "N"]
        rows = pd.concat(tables) if tables else pd.DataFrame(columns=[*keys, "pesq", "passes"])
        return rows.groupby(keys, sort=False, as_index=False)[["pesq", "passes"]].mean()

    @cached_property
    def commits(self) -> list[str]:
        """The code of the trainings, as their config.yaml opens with it; hashes are shortened."""
        paths = sorted((self.folder / "trainings").glob("*/seed*/config.yaml"))
        openings = (path.open(encoding="utf-8", errors="replace").readline().strip() for path in paths)
        found = dict.fromkeys(line.removeprefix("# code: ") for line in openings if line.startswith("# code: "))
        return [re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}", r"\1", code) for code in found]

    def _each(self, room: str, names: Iterable[str], file: str) -> dict[tuple[str, int], Path]:
        """The files RUN_DIR/room/name/seed/file that are there."""
        places = {
            (name, seed): self.folder / room / name / f"seed{seed}" / file for name in names for seed in self.plan.seeds
        }
        return {place: path for place, path in places.items() if path.is_file()}

    def set_folder(self, name: str) -> Path:
        """The folder of a test set, with noisy/, clean/ and references."""
        return self.folder / "sets" / name

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The sets that these data do not allow, each with what would; none where the data are on another machine."""
        with suppress(UserError):
            return sets.left_out(self.plan.sets, self.plan.data)
        return {}

    def missing(self) -> tuple[list[str], int, int]:
        """The cells that failed, each with its error; how many others are not done yet; how many there are."""
        planned = list_cells(self.plan, list_shares(self.plan), "all", self.left_out)
        records = {cell: read_record(self.folder, cell.key) for cell in planned}
        failed = [f"{cell}: {r['error']}" for cell, r in records.items() if r is not None and r["status"] == "failed"]
        open_ = sum(record is None or record["status"] == "running" for record in records.values())
        return failed, open_, len(planned)


def read(folder: Path) -> Run:
    """Read a RUN_DIR. Raises `UserError` for a folder that is none, or whose tables are not those of the runner."""
    plan = read_plan(folder)
    if plan is None:
        raise UserError(f"{folder}: holds no {PLAN}; name a folder that scripts/run_experiments.py wrote")
    results = _table(folder / RESULTS, COLUMNS, _TEXT | _NUMBERS)
    results["smoke"] = results["smoke"].map(lambda value: str(value).lower() == "true").astype(bool)
    return Run(folder, plan, results, _table(folder / TRAININGS, OF_TRAININGS, _TEXT | _OF_TRAININGS))


def _table(path: Path, columns: Sequence[str], types: Mapping[str, type]) -> pd.DataFrame:
    """The table with at least these columns; empty where the file is not there yet."""
    if not path.is_file():
        return pd.DataFrame(columns=list(columns))
    found = _csv(path, types)
    absent = [name for name in columns if name not in found]
    if absent:
        raise UserError(f"{path}: has no column {absent[0]}; let scripts/run_experiments.py write it anew")
    return found


def _csv(path: Path, types: Mapping[str, type] | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=types)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); remove it and run again") from None


def _choice(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: is not valid JSON; remove it and run again") from None
    whole = isinstance(content, dict) and all(isinstance(content.get(name), t) for name, t in _OF_CHOICE.items())
    if not whole:
        raise UserError(f"{path}: lacks one of {', '.join(_OF_CHOICE)}; remove it and run again")
    return dict(content)
