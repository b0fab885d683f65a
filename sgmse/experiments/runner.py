"""From cell to cell: what is done is found again, what fails stops nothing but what rests on it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from sgmse.common.errors import UserError
from sgmse.experiments import choice, results, scoring, sets, training
from sgmse.experiments.account import Account
from sgmse.experiments.cells import Cell, Kind
from sgmse.experiments.commands import Failed
from sgmse.experiments.state import Lock, Record
from sgmse.experiments.work import Product, Products, Work
from sgmse.training.interruption import Preempted

POLL_S = 2.0
Outcome = Literal["done", "there", "failed", "skipped", "elsewhere"]


def provide_set(work: Work, cell: Cell, products: Products, lock: int) -> Product:
    """The cell `set`; compared: the training data that are known not to be in it."""
    read = training.data_read(work)
    trained = [training.write_settings(work, name) for name in read.values()]
    plan, out = work.plan, work.test_set(cell.name)
    made = sets.provide(cell.name, plan.data, plan.items[cell.name], out, trained, work.options.jobs or 1)
    return made | {"compared": sorted(read)}


DO: Mapping[Kind, Callable[[Work, Cell, Products, int], Product]] = {
    "set": provide_set,
    "noisy": scoring.score_noisy,
    "train": training.train,
    "choose": choice.choose,
    "enhance": scoring.enhance,
    "score": scoring.score,
}


@dataclass
class Runner:
    """Does cells, and keeps account of them.

    Attributes:
        patient: wait for a cell that another process is at; else leave it to that one.
        stopping: whether this process was asked to end.
        outcomes: of the cells so far. failures: a sentence for each that failed.
    """

    work: Work
    patient: bool
    stopping: Callable[[], bool]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.account = Account(self.work)

    def run(self, cells: Sequence[Cell]) -> None:
        """Do all that is not done yet.

        Raises `Preempted` when it was asked to stop, and `UserError` when a test set is not the one that was scored.
        """
        for cell in cells:
            if cell.kind == "set":
                self.account.check_set(cell)
        training.prepare_speech(self.work)
        there = sum(self.account.is_done(cell) for cell in cells)
        print(f"{len(cells)} cells, {there} done already; logs in {self.work.folder / 'logs'}")
        for number, cell in enumerate(cells, 1):
            if self.stopping():
                raise Preempted
            self.outcomes[cell.key] = self._one(cell, f"[{number}/{len(cells)}] {cell}")
        results.collect(self.work)

    def _one(self, cell: Cell, title: str) -> Outcome:
        absent = [need for need in cell.needs if not self.account.is_done(need)]
        if absent:
            if self.outcomes.get(absent[0].key) != "skipped":  # else it was told there
                print(f"{title}: skipped, as is what rests on it, since this is not done: {absent[0]}", flush=True)
            return "skipped"
        if self._is_there(cell):
            return "there"
        lock = self.account.state.lock(cell.key)
        if not self._acquire(lock, title):
            return "elsewhere"
        try:  # another process may have done it meanwhile
            return "there" if self._is_there(cell) else self._do(cell, title, lock)
        finally:
            lock.release()

    def _is_there(self, cell: Cell) -> bool:
        return self.account.is_done(cell) and (cell.kind != "set" or self.account.is_compared(cell))

    def _do(self, cell: Cell, title: str, lock: Lock) -> Outcome:
        before, digest = self.account.state.read(cell.key), self.account.hash(cell)
        stale = before is not None and before.status == "done" and before.hash != digest
        print(title + (": what it rests on has changed, so it is done anew" if stale else ""), flush=True)
        spent, start = 0.0 if before is None or stale else before.seconds, time.monotonic()
        record = Record(cell.key, "running", digest, f"{datetime.now():%Y-%m-%dT%H:%M:%S}", spent)
        self.account.state.write(record)
        try:
            product = DO[cell.kind](self.work, cell, self.account.products, lock.fd)
        except Exception as error:  # one cell must not take the others down
            if self.stopping():
                raise Preempted from None
            return self._failed(replace(record, seconds=round(spent + time.monotonic() - start, 1)), cell, error)
        seconds = round(spent + time.monotonic() - start, 1)
        self.account.done(cell, replace(record, status="done", seconds=seconds, product=product))
        if cell.kind in ("train", "noisy", "score"):
            results.collect(self.work)
        print(f"    {_said(cell, product)} ({_duration(seconds)})", flush=True)
        return "done"

    def _failed(self, record: Record, cell: Cell, error: Exception) -> Outcome:
        log = self.work.log(cell)
        reason = str(error) if isinstance(error, Failed | UserError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, Failed):  # a process has logged its own words
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write("".join(traceback.format_exception(error)))
        self.account.state.write(replace(record, status="failed", error=reason))
        self.failures.append(f"{cell}: {reason}; log: {log}")
        print(f"    failed: {reason}; log: {log}", flush=True)
        return "failed"

    def _acquire(self, lock: Lock, title: str) -> bool:
        """Whether the lock is ours in the end."""
        holder = lock.acquire()
        if holder:
            print(
                f"{title}: {holder}, or what it started, is at it" + ("; waiting" if self.patient else ""), flush=True
            )
        while holder and self.patient:
            if self.stopping():
                raise Preempted
            time.sleep(POLL_S)
            holder = lock.acquire()
        return not holder


def _said(cell: Cell, product: Product) -> str:
    """What a cell found, in a few words."""
    if cell.kind == "set":
        return f"{product['items']} items"
    if cell.kind == "train":
        return f"{product['steps']} steps, {product['parameters_trained'] / 1e6:.2f} M parameters trained"
    if cell.kind == "choose":
        chosen = f"w = {product['guidance_scale']:g}, N = {product['N']}, {product['checkpoint']}"
        return f"{chosen}: PESQ {product['pesq']:.3f} on the validation set"
    if cell.kind == "enhance":
        return f"real-time factor {product['rtf']:.3f}, nfe {product['nfe']}, passes {product['passes']}"
    return f"PESQ {product['pesq']:.3f}, ESTOI {product['estoi']:.3f}, SI-SDR {product['si_sdr']:.2f} dB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
