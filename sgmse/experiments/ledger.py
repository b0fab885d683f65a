"""Which cells are done: those whose record says so, made from what they would be made from now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.common.files import write_json
from sgmse.data.testsets import build
from sgmse.experiments import training
from sgmse.experiments.cells import Cell
from sgmse.experiments.work import Product, Work

Record = dict[str, Any]
"""what RUN_DIR/state/KEY.json says of a cell: status (running, done, failed), hash of what its result depends on,
started, seconds (all its starts counted that ended by themselves), error, product"""

_DECIDES_NOTHING = ("rtf", "minutes", "device", "compared")  # of a product: what may differ without other results


def read_record(folder: Path, key: str) -> Record | None:
    """The record of a cell; None where it was never begun, or its file is damaged."""
    try:
        record = json.loads((folder / "state" / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("product"), dict):
        return None
    return {"status": "", "hash": "", "seconds": 0.0, "error": ""} | record


def write_record(folder: Path, key: str, record: Record) -> None:
    """The file appears whole, since array tasks read and write at the same time."""
    write_json(folder / "state" / f"{key}.json", {"cell": key} | record)


class Ledger:
    """The records of a RUN_DIR, held against its plan. products: of the cells that were found done."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.products: dict[str, Product] = {}

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell and all that it rests on are done with the settings of the plan; if so, keeps its product."""
        if cell.key in self.products:
            return True
        if not all(self.is_done(need) for need in cell.needs):
            return False
        record = read_record(self.work.folder, cell.key)
        if record is None or record["status"] != "done" or record["hash"] != self.digest(cell):
            return False
        if not self._result(cell).exists():
            return False
        self.products[cell.key] = record["product"]
        return True

    def is_compared(self, cell: Cell) -> bool:
        """Whether a set, which is done, was compared with what every training of the plan reads."""
        return set(training.data_read(self.work)) <= set(self.products[cell.key]["compared"])

    def write_done(self, cell: Cell, record: Record) -> None:
        """Write that a cell is done, and keep its product."""
        write_record(self.work.folder, cell.key, record)
        self.products[cell.key] = record["product"]

    def digest(self, cell: Cell) -> str:
        """Of what the result of a cell depends on: the plan, and the products of the cells it needs (all done)."""
        plan, own = self.work.plan, []
        if cell.kind == "set":
            own = [plan.items[cell.name], vars(plan.data)]
        elif cell.kind in ("choose", "enhance"):
            own = [plan.config_hash(cell.name)]
        needed = [self.products[need.key] for need in cell.needs]
        decisive = [{k: v for k, v in product.items() if k not in _DECIDES_NOTHING} for product in needed]
        text = json.dumps([cell.key, own, decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check_set(self, cell: Cell) -> None:
        """Raise `UserError` when the files of a set are no longer those that scores were made with."""
        record, folder = read_record(self.work.folder, cell.key), self.work.test_set(cell.name)
        if record is None or record["status"] != "done" or not folder.exists():
            return
        now, then = build.set_digest(folder), record["product"]["sha256"]
        if now != then:
            raise UserError(
                f"{folder}: is another test set than the one that was built or scored here (sha256 {now[:12]}, then "
                f"{then[:12]}); bring that one back, or choose another --out"
            )

    def _result(self, cell: Cell) -> Path:
        """What must still be there."""
        work = self.work
        if cell.kind == "set":
            return work.test_set(cell.name)
        if cell.kind == "train":
            return work.run(cell)
        if cell.kind == "choose":
            return work.choice(cell) / "choice.json"
        return work.enhanced(cell) if cell.kind == "enhance" else work.scores(cell)
