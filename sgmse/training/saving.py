"""What a training leaves on disk: its checkpoints and validation.csv, right whenever it is killed."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from sgmse.common.files import remove_leftovers, whole_file, write_rows
from sgmse.data.loaders import UnreadableItem
from sgmse.model import checkpoints
from sgmse.settings.config import TrainConfig
from sgmse.training.resumption import is_missed, read_validations

BEST_BY = ("pesq", "si_sdr")  # metrics of validation.csv whose best step has a checkpoint of its own
_OF_A_BATCH = ("train_", "grad_norm", "null_references")  # curves of training, which a validation done again lacks
_SHOWN = ("valid_loss", "cond_gap", "pesq", "si_sdr", "estoi", "uncond/pesq", "noisy/pesq")


class RunFiles(Checkpoint):
    """Writes `last.ckpt`, `step_….ckpt`, `best_….ckpt` and validation.csv into the folder of a run.

    `last.ckpt` is written before each validation, so that one that was cut short is done again when the run goes on.
    After a validation the best checkpoints are written first and the row of validation.csv last: a row says that all of
    its validation is on disk. Whether a step is the best is read from the rows of the steps before it, so that a run
    that was killed, moved or resumed ends with the files of an undisturbed one. Where validation.csv is gone, the best
    checkpoint tells its score. `last.ckpt` is also written where the next batch cannot be read.

    seconds: in validation.csv, of the run, earlier sittings counted.
    scores: of the last validation, kept in the checkpoints.
    """

    state_key = "CurvesOnDisk"  # as in the checkpoints of earlier versions

    def __init__(self, folder: Path, table: Path, train: TrainConfig) -> None:
        self.folder, self.table = folder, table
        self.last, self._before_last = folder / "last.ckpt", folder / ".last.before_validation.ckpt"
        self.every, self.keep_every, self.max_steps = train.val_every_n_steps, train.save_every_n_steps, train.max_steps
        self.start, self.saved_step, self.is_validated = time.monotonic(), 0, True
        self.is_last, self.scores = False, dict[str, float]()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": time.monotonic() - self.start, "scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start = time.monotonic() - state_dict["seconds"]
        self.scores = state_dict.get("scores", {})

    def on_load_checkpoint(self, trainer: pl.Trainer, model: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.saved_step = checkpoint["global_step"]
        self.is_validated = not is_missed(self.table, self.saved_step, self.every)
        if not self.is_validated and self.saved_step == self.max_steps:
            trainer.fit_loop.epoch_loop.max_steps += 1  # otherwise training would be over before it starts
        self._set_abandoned_aside(trainer)

    def on_fit_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.is_last = trainer.should_stop or self.saved_step == self.max_steps  # --max_minutes may be over
        trainer.should_stop &= self.is_validated  # or training would not start for the validation that is missed

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        """Do the validation that the run was stopped in; after that of the last step nothing else is left to do."""
        self.saved_step = trainer.global_step
        if trainer.strategy.broadcast(self.is_validated):
            return
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # from its first batch
        trainer.validating = True
        loop.run()
        trainer.training = True
        trainer.should_stop = self.is_last

    def on_exception(self, trainer: pl.Trainer, model: pl.LightningModule, exception: BaseException) -> None:
        """Keep the steps before a batch that cannot be read. Several processes would wait for each other here."""
        is_alone, progress = trainer.world_size == 1, trainer.fit_loop.epoch_loop.batch_progress.current
        if isinstance(exception, UnreadableItem) and is_alone and trainer.training and trainer.global_step:
            progress.completed -= progress.completed % trainer.accumulate_grad_batches  # the step begins anew
            trainer.save_checkpoint(self.last)

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.saved_step:  # a step has several batches when they are accumulated
            return
        self.saved_step = step
        if step % self.every == 0:
            self._keep_before_last(trainer)
            trainer.save_checkpoint(self.last)
            self.is_validated = False
        if step % self.keep_every == 0:
            trainer.save_checkpoint(self.folder / f"step_{step:07d}.ckpt")

    def on_validation_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        step = trainer.global_step
        scores = {name: float(v) for name, v in trainer.callback_metrics.items() if not name.startswith(_OF_A_BATCH)}
        self.scores = {name: scores[name] for name in BEST_BY if name in scores}
        earlier = [row for row in read_validations(self.table) if int(row["step"]) < step]
        for name in BEST_BY:
            best = _best(earlier, name) if earlier else self._read_best(name, step)
            is_best = name in scores and scores[name] > best
            if trainer.strategy.broadcast(is_best):  # all processes save, or none
                trainer.save_checkpoint(self.folder / f"best_{name}.ckpt")
        if trainer.is_global_zero:
            self._add_row(earlier, {"step": step, "seconds": round(time.monotonic() - self.start, 1), **scores})
            self._before_last.unlink(missing_ok=True)
        self.is_validated = True

    def _read_best(self, name: str, step: int) -> float:
        """The score of the best checkpoint of steps before, which says it where validation.csv is gone."""
        path = self.folder / f"best_{name}.ckpt"
        content = checkpoints.read(path) if path.exists() else {}
        if content.get("global_step", step) >= step:  # none, or of this validation, which is done again
            return -math.inf
        return float(content["callbacks"][self.state_key].get("scores", {}).get(name, -math.inf))

    def _set_abandoned_aside(self, trainer: pl.Trainer) -> None:
        """Going on from an earlier step abandons later ones; the best checkpoint of one of those gets another name."""
        rows = read_validations(self.table) if trainer.is_global_zero else []
        for name in BEST_BY:
            best, scored = self.folder / f"best_{name}.ckpt", [row for row in rows if row.get(name)]
            step = max(scored, key=lambda row: float(row[name]), default={"step": 0})["step"]  # the first of equal ones
            if int(step) > self.saved_step and best.exists():
                best.replace(self.folder / f"abandoned_best_{name}_step_{int(step):07d}.ckpt")

    def set_back(self) -> Path | None:
        """After a divergence, `last.ckpt` becomes the last one that passed its validation. None: there is none."""
        if not self.is_validated:
            (self.folder / f"step_{self.saved_step:07d}.ckpt").unlink(missing_ok=True)
            if self._before_last.exists():
                self._before_last.replace(self.last)
            else:
                self.last.unlink(missing_ok=True)
        if not self.last.exists():
            return None
        self.last.touch()  # newer than kept steps after it, from which the run must not go on
        return self.last

    def _keep_before_last(self, trainer: pl.Trainer) -> None:
        """Until the validation has ended well, the checkpoint before it stays too."""
        if not trainer.is_global_zero or not self.last.exists():
            return
        self._before_last.unlink(missing_ok=True)
        try:
            os.link(self.last, self._before_last)  # costs no space until `last.ckpt` is written anew
        except OSError:  # a disk without links
            shutil.copyfile(self.last, self._before_last)

    def _add_row(self, earlier: list[dict[str, Any]], row: dict[str, Any]) -> None:
        """Write validation.csv; the columns may be others than those of earlier rows."""
        rows = [*earlier, row]
        write_rows(self.table, list(dict.fromkeys(name for each in rows for name in each)), rows)
        shown = ", ".join(f"{name} {row[name]:.3g}" for name in _SHOWN if name in row)
        print(f"\nstep {row['step']}: {shown}", file=sys.stderr, flush=True)


def _best(rows: list[dict[str, Any]], name: str) -> float:
    """The best score of earlier validations; a file that cannot be scored gives NaN, which is no score."""
    scores = [float(row[name]) for row in rows if row.get(name)]
    return max((score for score in scores if not math.isnan(score)), default=-math.inf)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and then puts it in its place, so that no kill leaves half of one.

    Nothing in a checkpoint is run when it is read. Lightning's own writing ends with a move from the folder of
    temporary files, which copies between file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        path = Path(path)
        remove_leftovers(path)
        with whole_file(path) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        return super().load_checkpoint(path, map_location, weights_only=True)
