"""A training can be stopped at any time: a signal ends it after the step at hand.

SLURM sends SIGUSR1 where it is told to (`#SBATCH --signal=USR1@120`), and SIGTERM some time before SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

EXIT_CODE = 85  # the same command, started again, goes on
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Preempted(SystemExit):
    """Ends the process with `EXIT_CODE`."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class Preemption(Checkpoint):
    """Stops a training after the step in which a signal arrives, and writes `last` with the state after that step.

    Validation is left at once, since `last` is written before each: the resumed run does it again (`MissedValidation`).
    Among several processes one that has the signal is enough, and all stop after the same step. As a `Checkpoint` it is
    called after the callbacks that save at this step.
    """

    def __init__(self) -> None:
        self.last = Path()
        self.training = False
        self._signal: str | None = None
        self._pid = os.getpid()

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of a signal. Before training there is nothing to save."""
        if os.getpid() != self._pid:  # a copy in a process that prepares batches
            return
        self._signal = signal.Signals(number).name
        if not self.training:
            print(f"stopped by {self._signal} before training; start the same command again", file=sys.stderr)
            raise Preempted

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        _handle(self)  # Lightning has put its own handlers there by now
        self.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and self.is_asked(trainer):
            trainer.save_checkpoint(self.last)
            raise Preempted

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.leave(trainer)

    def leave(self, trainer: pl.Trainer) -> None:
        """Stop here if a signal has come. Every process must call it equally often."""
        if self.is_asked(trainer):
            raise Preempted

    def is_asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process has a signal."""
        asked = self._signal is not None
        return asked if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(asked, all=False)

    @property
    def reason(self) -> str:
        return self._signal or "a signal to another process"


@contextmanager
def watched() -> Iterator[Preemption]:
    """Inside, the signals are answered; afterwards by what answered them before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    preemption = Preemption()
    _handle(preemption)
    try:
        yield preemption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(preemption: Preemption) -> None:
    for number in SIGNALS:
        signal.signal(number, preemption.receive)
