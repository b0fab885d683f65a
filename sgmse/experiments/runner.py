"""From cell to cell: what is done is found again, what fails stops nothing but what rests on it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from sgmse.common.errors import UserError
from sgmse.common.lock import Held, hold
from sgmse.evaluation.metrics import METRICS, names_in
from sgmse.experiments import results, scoring, sets, training
from sgmse.experiments.training import Failed
from sgmse.experiments.work import Cell, Kind, Product, Record, Work, read_record, write_record

Outcome = Literal["done", "there", "failed", "skipped", "elsewhere"]


def provide_set(work: Work, cell: Cell) -> Product:
    """The cell `set`; compared: the training data that are known not to be in it."""
    data = training.data_read(work)
    trained = [training.write_settings(work, name) for name in data.values()]
    plan = work.plan
    built = sets.provide(cell.name, plan.data, plan.items[cell.name], work.place(cell), trained, work.jobs or 1)
    return built | {"compared": sorted(data)}


WORK: Mapping[Kind, Callable[[Work, Cell], Product]] = {
    "set": provide_set,
    "noisy": scoring.score_noisy,
    "train": training.train,
    "choose": scoring.choose,
    "score": scoring.score,
}


class Runner:
    """Does cells, and keeps account of them.

    Attributes:
        patient: wait for a cell that another process is at; else leave it to that one.
        outcomes: of the cells so far, by their keys. failures: a sentence for each that failed.
    """

    def __init__(self, work: Work, patient: bool) -> None:
        self.work, self.patient = work, patient
        self.outcomes: dict[str, Outcome] = {}
        self.failures: list[str] = []

    def run(self, cells: Sequence[Cell]) -> None:
        """Do all that is not done yet. Raises `UserError` when a test set is not the one that was scored."""
        for cell in cells:
            if cell.kind == "set":
                self.work.check_set(cell)
        training.prepare_speech(self.work)
        there = sum(self.work.is_done(cell) for cell in cells)
        print(f"{len(cells)} cells, {there} done already; logs in {self.work.folder / 'logs'}")
        for number, cell in enumerate(cells, 1):
            self.outcomes[cell.key] = self._visit(cell, f"[{number}/{len(cells)}] {cell}")
        results.collect(self.work)

    def _visit(self, cell: Cell, title: str) -> Outcome:
        """Do a cell unless it is done, cannot be done yet, or another process is at it."""
        absent = [need for need in cell.needs if not self.work.is_done(need)]
        if absent:
            if self.outcomes.get(absent[0].key) != "skipped":  # else it was printed there
                print(f"{title}: skipped, as is what rests on it, since this is not done: {absent[0]}", flush=True)
            return "skipped"
        if self._is_there(cell):
            return "there"

        def announce(holder: str) -> None:
            print(f"{title}: {holder} is at it" + ("; waiting" if self.patient else ""), flush=True)

        try:
            with hold(self.work.lock(cell.key), self.patient, announce):
                # another process may have done it meanwhile
                return "there" if self._is_there(cell) else self._do(cell, title)
        except Held:
            return "elsewhere"

    def _is_there(self, cell: Cell) -> bool:
        """Whether a cell is done; of a set also, whether it was compared with what every training of the plan reads."""
        if not self.work.is_done(cell) or cell.kind != "set":
            return self.work.is_done(cell)
        return set(training.data_read(self.work)) <= set(self.work.products[cell.key]["compared"])

    def _do(self, cell: Cell, title: str) -> Outcome:
        folder, digest = self.work.folder, self.work.digest(cell)
        before = read_record(folder, cell.key)
        stale = before is not None and before["status"] == "done" and before["hash"] != digest
        print(title + (": what it rests on has changed, so it is done anew" if stale else ""), flush=True)
        spent, start = 0.0 if before is None or stale else before["seconds"], time.monotonic()
        record: Record = {"hash": digest, "status": "running", "seconds": spent, "product": {}}
        # scores that only lack a metric which is asked for now count until they have it
        is_kept = before is not None and before["status"] == "done" and not stale and cell.has_scores
        if not is_kept:
            write_record(folder, cell.key, record)
        try:
            product = WORK[cell.kind](self.work, cell)
            ended: Record = {"status": "done", "product": product}
        except Exception as error:  # one cell must not take the others down
            ended = {"status": "failed", "error": self._report_failure(cell, error)}
        seconds = round(spent + time.monotonic() - start, 1)
        if not is_kept or ended["status"] == "done":
            write_record(folder, cell.key, record | ended | {"seconds": seconds})
        if ended["status"] == "failed":
            return "failed"
        self.work.products[cell.key] = product
        if cell.kind in ("train", "noisy", "score"):
            results.collect(self.work)
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
        print(f"    {describe(cell, product)} ({duration})", flush=True)
        return "done"

    def _report_failure(self, cell: Cell, error: Exception) -> str:
        """Log and print why a cell failed, and return it as a sentence."""
        log = self.work.log(cell)
        if not isinstance(error, Failed):  # a process has logged its own words
            with log.open("a", encoding="utf-8") as file:
                file.write("".join(traceback.format_exception(error)))
        reason = str(error) if isinstance(error, Failed | UserError) else f"{type(error).__name__}: {error}"
        self.failures.append(f"{cell}: {reason}; log: {log}")
        print(f"    failed: {reason}; log: {log}", flush=True)
        return reason


def describe(cell: Cell, product: Product) -> str:
    """What a cell found, in a few words."""
    if cell.kind == "set":
        return f"{product['items']} items"
    if cell.kind == "train":
        return f"{product['steps']} steps, {product['parameters_trained'] / 1e6:.2f} M parameters trained"
    if cell.kind == "choose":
        chosen = f"w = {product['guidance_scale']:g}, N = {product['N']}, {product['checkpoint']}"
        return f"{chosen}: PESQ {product['pesq']:.3f} on the validation set"
    scores = ", ".join(f"{METRICS[name].title} {METRICS[name].format(product[name])}" for name in names_in(product))
    return scores + (f"; real-time factor {product['rtf']:.3f}" if cell.kind == "score" else "")
