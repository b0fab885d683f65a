"""Which cells are done: those whose record says so, made from what they would be made from now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.data.testsets import build
from sgmse.experiments import training
from sgmse.experiments.cells import Cell
from sgmse.experiments.state import Record, State
from sgmse.experiments.work import Product, Work

_DECIDES_NOTHING = ("rtf", "minutes", "device", "compared")  # of a product: what may differ without other results


class Account:
    """What RUN_DIR/state says, held against the plan. products: of the cells that were found done."""

    def __init__(self, work: Work) -> None:
        self.work, self.state = work, State(work.folder / "state")
        self.products: dict[str, Product] = {}

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell and all that it rests on are done with the settings of the plan; if so, keeps its product."""
        if cell.key in self.products:
            return True
        if not all(self.is_done(need) for need in cell.needs):
            return False
        record = self.state.read(cell.key)
        if record is None or record.status != "done" or record.hash != self.hash(cell):
            return False
        if not self._result(cell).exists():
            return False
        self.products[cell.key] = record.product
        return True

    def is_compared(self, cell: Cell) -> bool:
        """Whether a set, which is done, was compared with what every training of the plan reads."""
        return set(training.data_read(self.work)) <= set(self.products[cell.key]["compared"])

    def done(self, cell: Cell, record: Record) -> None:
        """Write that a cell is done, and keep its product."""
        self.state.write(record)
        self.products[cell.key] = record.product

    def hash(self, cell: Cell) -> str:
        """Of what the result of a cell depends on: the plan, and what those cells made that it rests on (all done)."""
        plan, own = self.work.plan, []
        if cell.kind == "set":
            own = [plan.items[cell.name], vars(plan.data)]
        elif cell.kind in ("choose", "enhance"):
            own = [plan.config_hash(cell.name)]
        made = [_deciding(self.products[need.key]) for need in cell.needs]
        text = json.dumps([cell.key, own, made], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check_set(self, cell: Cell) -> None:
        """Raise `UserError` when the files of a set are no longer those that scores were made with."""
        record, folder = self.state.read(cell.key), self.work.test_set(cell.name)
        if record is None or record.status != "done" or not folder.exists():
            return
        now, then = build.set_digest(folder), record.product["sha256"]
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
            return work.run(cell.name, cell.seed)
        if cell.kind == "choose":
            return work.choice(cell) / "choice.json"
        return work.enhanced(cell) if cell.kind == "enhance" else work.scores(cell)


def _deciding(product: Product) -> dict[str, Any]:
    return {name: value for name, value in product.items() if name not in _DECIDES_NOTHING}
