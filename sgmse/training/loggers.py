"""Where the curves of a training go: always into CSV files, and where --logger says; and how far it is, on stderr."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.common.progress import LINE_EVERY_S
from sgmse.settings.config import TrainConfig

PROJECT = "sgmse"  # of W&B
_WANDB_ID = "wandb_id.txt"
_RENEWED_EVERY_S = 1.0  # on a terminal; reading the loss waits for the device


def check_wandb() -> None:
    """Raise `UserError` where W&B is to be reached and there is no key for it."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    import wandb

    try:
        wandb.login()
    except wandb.errors.UsageError as error:
        raise UserError(f"--logger wandb: {error} (or set WANDB_MODE=offline)") from None


def make_loggers(train: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a run: CSV first. None at all with --nolog."""
    if train.nolog:
        return []
    version = next(f"curves_{i}" for i in range(1000) if not (folder / f"curves_{i}").exists())  # one per resumption
    found: list[Logger] = [CSVLogger(folder, name="", version=version)]
    if train.logger == "tensorboard":
        found.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    elif train.logger == "wandb":
        wandb_logger = WandbLogger(
            project=PROJECT,
            name=train.wandb_name or folder.name,
            save_dir=str(folder),
            id=_keep_id(folder / _WANDB_ID),
            resume="allow",
            group=train.wandb_group,
            tags=train.wandb_tags or None,
        )
        found.append(wandb_logger)
    return found


@rank_zero_only
def _keep_id(path: Path) -> str:
    """The id in the file, a new one without it: a resumed run goes on under it, so that W&B shows one run."""
    if not path.is_file():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


class RunProgress(pl.Callback):
    """Says the step of how many, steps a second, and the time to the next validation and to the end of the run.

    On a terminal one line is renewed each second, elsewhere there is a new one each minute. The rate counts validations
    too, so that the time to the end is one of the clock.
    """

    def __init__(self, val_every_n_steps: int) -> None:
        self.every = val_every_n_steps
        self.on_terminal = sys.stderr.isatty()
        self.first_step = 0
        self.started = self.shown = self.validation_start = time.monotonic()
        self.validating_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.first_step = trainer.global_step
        self.started = self.shown = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if not trainer.is_global_zero or now - self.shown < (_RENEWED_EVERY_S if self.on_terminal else LINE_EVERY_S):
            return
        self.shown = now
        text = self.describe(trainer.global_step, number_of_steps(trainer), now)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        text += f", loss {float(loss):.3g}" if isinstance(loss, Tensor) else ""
        if self.on_terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)  # erases what was longer before
        else:
            print(text, file=sys.stderr, flush=True)

    def on_validation_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.validation_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.validating_s += time.monotonic() - self.validation_start

    def on_train_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.end_line(trainer)
        elapsed = time.monotonic() - self.started
        if trainer.is_global_zero and self.validating_s:
            took = timedelta(seconds=round(elapsed))
            print(f"trained for {took}, {self.validating_s / elapsed:.1%} of it in validations", file=sys.stderr)

    def on_exception(self, trainer: pl.Trainer, model: pl.LightningModule, exception: BaseException) -> None:
        self.end_line(trainer)

    def end_line(self, trainer: pl.Trainer) -> None:
        """Let what comes next begin a line of its own on a terminal."""
        if self.on_terminal and trainer.is_global_zero:
            print(file=sys.stderr)

    def describe(self, step: int, total: int | None, now: float) -> str:
        """For example "step 300 of 2400, 1.6 steps/s, validation in 0:03:05, end in 0:21:30"."""
        done, elapsed = step - self.first_step, max(now - self.started, 1e-9)
        text = f"step {step}" + ("" if total is None else f" of {total}") + f", {done / elapsed:.3g} steps/s"
        if not done:
            return text
        steps = self.every - step % self.every
        if total is None or step + steps <= total:
            to_validation = steps * (elapsed - self.validating_s) / done
            text += f", validation in {timedelta(seconds=round(to_validation))}"
        return text if total is None else f"{text}, end in {timedelta(seconds=round((total - step) * elapsed / done))}"


def number_of_steps(trainer: pl.Trainer) -> int | None:
    """The step at which the run ends by --max_steps or --max_epochs; None where only time, or nothing, ends it."""
    by_epochs = trainer.max_epochs is not None and trainer.max_epochs >= 0
    if trainer.max_steps < 0 and not by_epochs:
        return None
    steps = trainer.estimated_stepping_batches
    return int(steps) if steps < float("inf") else None
