"""How far a training is: a bar on a terminal, a plain line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from tqdm import tqdm

LINE_EVERY_S = 60.0
_LOSS_EVERY_S = 1.0  # reading it waits for the device


class RunProgress(pl.Callback):
    """Shows the step of how many, steps a second, the time to the next validation and to the end of the run.

    The rate counts validations too, so that the time to the end is one of the clock.
    """

    def __init__(self, val_every_n_steps: int) -> None:
        self.every = val_every_n_steps
        self.bar: tqdm[Any] | None = None
        self.step = self.first_step = 0
        self.started = self.shown = time.monotonic()
        self.validating_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.step = self.first_step = trainer.global_step
        self.started = self.shown = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(total=number_of_steps(trainer), initial=self.step, unit="step", dynamic_ncols=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        if step == self.step or not trainer.is_global_zero:
            return
        if self.bar is not None:
            self.bar.update(step - self.step)
            if now - self.shown > _LOSS_EVERY_S:
                self.bar.set_postfix_str(f"{_loss(outputs)}, validation in {self._to_validation(step, now)}", False)
                self.shown = now
        elif now - self.shown > LINE_EVERY_S:
            print(self.describe(step, number_of_steps(trainer), now) + f", {_loss(outputs)}", file=sys.stderr)
            self.shown = now
        self.step = step

    def on_validation_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.validating_s += time.monotonic() - self._validation_start

    def on_train_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, model: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def describe(self, step: int, total: int | None, now: float) -> str:
        """For example "step 300 of 2400, 1.6 steps/s, validation in 0:03:05, end in 0:21:30"."""
        done, elapsed = step - self.first_step, max(now - self.started, 1e-9)
        rate = done / elapsed
        text = f"step {step}" + ("" if total is None else f" of {total}") + f", {rate:.3g} steps/s"
        text += f", validation in {self._to_validation(step, now)}"
        return text if total is None or not rate else f"{text}, end in {_duration((total - step) / rate)}"

    def _to_validation(self, step: int, now: float) -> str:
        """The time until the next validation, by the rate between validations."""
        rate = (step - self.first_step) / max(now - self.started - self.validating_s, 1e-9)
        return _duration((self.every - step % self.every) / rate) if rate else "?"

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def number_of_steps(trainer: pl.Trainer) -> int | None:
    """The step at which the run ends by --max_steps or --max_epochs; None where only time, or nothing, ends it."""
    by_epochs = trainer.max_epochs is not None and trainer.max_epochs >= 0
    if trainer.max_steps < 0 and not by_epochs:
        return None
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps < float("inf") else None


def _loss(outputs: Any) -> str:
    loss = outputs["loss"] if isinstance(outputs, dict) else outputs
    return f"loss {float(loss):.3g}" if isinstance(loss, Tensor) else "no loss"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
