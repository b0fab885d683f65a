"""The work at a plan in its RUN_DIR: cells, the pieces that are done, fail and are found done again each on its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgmse.common.errors import UserError
from sgmse.common.files import write_json
from sgmse.data.testsets import build
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.experiments.plan import Plan, Training

Kind = Literal["set", "noisy", "train", "choose", "score"]
Stage = Literal["train", "evaluate", "all"]
Product = dict[str, Any]
"""What a cell found that later cells and tables need, e.g. the hash of a set, the guidance scale that was chosen."""
Record = dict[str, Any]
"""What RUN_DIR/state/KEY.json says of a cell: status (running, done, failed), hash of what its result depends on,
seconds (all its starts counted that ended by themselves), error, product."""
Launch = Callable[[Sequence[str], Path], None]
"""Runs a command (what follows `python`) and appends what it prints to a log; see `training.Launcher`."""

_WORDS = {"set": "test set", "noisy": "unprocessed files of", "train": "training"}
_PLACES: Mapping[Kind, str] = {  # of what a cell makes, in RUN_DIR
    "set": "sets/{}",
    "noisy": "scores/noisy/{}.csv",
    "train": "trainings/{}",
    "choose": "choices/{}/choice.json",
    "score": "scores/{}.csv",
}
_DECIDES_NOTHING = ("minutes", "device", "compared")  # of a product: what may differ without other results


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    set: build a test set. noisy: score its unprocessed files. train: a training. choose: guidance scale, steps and
    checkpoint on the validation set. score: enhance a test set with what was chosen, and score it.

    Attributes:
        name: of the experiment; for `train` of the training; for `set` and `noisy` of the set.
        test_set: for `score`. needs: the cells whose products this one takes.
    """

    kind: Kind
    name: str
    seed: int | None = None
    test_set: str = ""
    needs: tuple[Cell, ...] = ()

    @property
    def has_scores(self) -> bool:
        """Whether it makes a table of scores."""
        return self.kind in ("noisy", "score")

    @property
    def parts(self) -> list[str]:
        """What tells the cell from others of its kind: `["CFG-01", "seed0", "esc50"]`."""
        return [part for part in (self.name, "" if self.seed is None else f"seed{self.seed}", self.test_set) if part]

    @property
    def key(self) -> str:
        """The name of its record and its log."""
        return "_".join([self.kind, *self.parts])

    def __str__(self) -> str:
        return f"{_WORDS.get(self.kind, self.kind)} {', '.join(self.parts).replace('seed', 'seed ')}"


def list_shares(plan: Plan) -> list[tuple[str, int]]:
    """Every training of a plan with every seed, seed by seed."""
    return [(name, seed) for seed in plan.seeds for name in plan.trainings]


def list_cells(
    plan: Plan, shares: Sequence[tuple[str, int]], stage: Stage = "all", left_out: Collection[str] = ()
) -> list[Cell]:
    """The cells of the trainings in `shares` (name, seed) and of the experiments of `plan` that rest on them.

    Test sets come first. Then each cell follows those that it needs, share by share, so that a table exists early.
    `left_out`: test sets that these data do not allow.
    """
    found: dict[str, Cell] = {}

    def add(cells: Iterable[Cell]) -> None:
        for cell in cells:
            add(cell.needs)
            found.setdefault(cell.key, cell)

    for name, seed in shares:
        training = Cell("train", name, seed)
        add([training])
        for id in plan.experiments_of(name) if stage != "train" else ():
            valid = Cell("set", plan.experiments[id].choice_set)
            choice = Cell("choose", id, seed, needs=(training, valid))
            for test_set in (one for one in plan.sets_of(id) if one not in left_out):
                built = Cell("set", test_set)
                add([Cell("noisy", test_set, needs=(built,)), Cell("score", id, seed, test_set, needs=(choice, built))])
    listed = [cell for cell in found.values() if stage != "evaluate" or cell.kind != "train"]
    return sorted(listed, key=lambda cell: cell.kind != "set")


def read_record(folder: Path, key: str) -> Record | None:
    """The record of a cell; None where it was never begun, or its file is damaged."""
    try:
        record = json.loads((folder / "state" / f"{key}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("product"), dict):
        return None
    return {"status": "", "hash": "", "seconds": 0.0, "error": ""} | record


def write_record(folder: Path, key: str, record: Record) -> None:
    """The file appears whole, since array tasks read and write at the same time."""
    write_json(folder / "state" / f"{key}.json", {"cell": key} | record)


@dataclass(frozen=True)
class Work:
    """A plan and the folder it is worked at in.

    Attributes:
        launch: starts trainings. device, logger: flags of train.py, of which none changes a result.
        jobs: scoring processes; None: one per core. asked: metrics beside the main ones.
        products: of the cells that are known to be done, by their keys.
    """

    plan: Plan
    folder: Path
    launch: Launch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    logger: str = "csv"
    jobs: int | None = None
    asked: tuple[str, ...] = ()
    products: dict[str, Product] = field(default_factory=dict)

    def place(self, cell: Cell) -> Path:
        """The file or folder that a cell makes."""
        return self.folder / _PLACES[cell.kind].format("/".join(cell.parts))

    def log(self, cell: Cell) -> Path:
        """The log of a cell, whose folder is made."""
        path = self.folder / "logs" / f"{cell.key}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def lock(self, name: str) -> Path:
        """The lock of a cell, by its key, or of a table of the folder."""
        return self.folder / "state" / f"{name}.lease"

    def training(self, cell: Cell) -> Training:
        """The training itself, or that which the experiment of the cell rests on."""
        return self.plan.trainings[cell.name] if cell.kind == "train" else self.plan.training(cell.name)

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell and all that it rests on are done with the settings of the plan; if so, keeps its product."""
        if cell.key in self.products:
            return True
        if not all(self.is_done(need) for need in cell.needs):
            return False
        record = read_record(self.folder, cell.key)
        if record is None or record["status"] != "done" or record["hash"] != self.digest(cell):
            return False
        if self.place(cell).exists() and not (cell.has_scores and {*self.asked} - {*self.asked_before(cell)}):
            self.products[cell.key] = record["product"]
        return cell.key in self.products

    def asked_before(self, cell: Cell) -> list[str]:
        """The metrics beside the main ones in the table of scores that a cell has made; none without one."""
        if not self.place(cell).is_file():
            return []
        with self.place(cell).open(encoding="utf-8") as table:
            columns = table.readline().strip().split(",")
        return [name for name in columns if name in METRICS and name not in MAIN]

    def digest(self, cell: Cell) -> str:
        """Of what the result of a cell depends on: the plan, and the products of the cells it needs (all done)."""
        own: list[Any] = []
        if cell.kind == "set":
            own = [self.plan.items[cell.name], vars(self.plan.data)]
        elif cell.kind in ("choose", "score"):
            own = [self.plan.config_hash(cell.name)]
        needed = [self.products[need.key] for need in cell.needs]
        decisive = [{k: v for k, v in product.items() if k not in _DECIDES_NOTHING} for product in needed]
        text = json.dumps([cell.key, own, decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check_set(self, cell: Cell) -> None:
        """Raise `UserError` when the files of a set are no longer those that scores were made with."""
        record, folder = read_record(self.folder, cell.key), self.place(cell)
        if record is None or record["status"] != "done" or not folder.exists():
            return
        now, then = build.set_digest(folder), record["product"]["sha256"]
        if now != then:
            raise UserError(
                f"{folder}: is another test set than the one that was built or scored here (sha256 {now[:12]}, then "
                f"{then[:12]}); bring that one back, or choose another --out"
            )
