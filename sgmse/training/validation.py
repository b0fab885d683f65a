"""Watching a training: enhance and score a fixed set of files, with the reference and without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from sgmse.common.machine import cores
from sgmse.data import audio
from sgmse.data.dataset import ValidationSet
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import Signal, encode_batch, enhance_batch, noise_key
from sgmse.evaluation import figures, metrics
from sgmse.evaluation.scores import Row, scorer
from sgmse.model.enhancer import Enhancer
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.training.interruption import Preemption

FILES_PER_PROCESS = 8  # to start a process that scores takes as long as to score so many
NUM_SHOWN = 2  # files whose sound and spectrogram are kept at each validation


class EnhancementValidation(pl.Callback):
    """Logs the metrics (`pesq`, …) of the validation files under averaged weights, and the same under `uncond/`.

    The unconditional ones are logged where the null condition is trained, that is, where references are dropped.
    `noisy/…` are the scores of the unprocessed files. A metric that a file does not allow leaves that file out of its
    mean. Files are shared among the devices, and scored in processes of their own where they are many. Sounds and
    spectrograms of the first files go to `out_dir` and, with TensorBoard or W&B, to the logger. A signal ends it after
    the file at hand.
    """

    def __init__(self, files: ValidationSet, out_dir: Path | None, preemption: Preemption) -> None:
        self.files, self.out_dir, self.preemption = files, out_dir, preemption
        self._pool = ExitStack()
        self._noisy: list[Row] = []  # scores of the unprocessed files, which stay

    def on_fit_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        share = len(self.files) // trainer.world_size // FILES_PER_PROCESS
        jobs = max(1, min(cores() // trainer.world_size, share))
        self._score = self._pool.enter_context(scorer(jobs))

    def on_exception(self, trainer: pl.Trainer, model: pl.LightningModule, exception: BaseException) -> None:
        self._pool.close()  # Lightning calls no teardown then

    def teardown(self, trainer: pl.Trainer, model: pl.LightningModule, stage: str) -> None:
        self._pool.close()

    def on_validation_epoch_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        assert isinstance(model, NoiseCondScoreModel)
        scales = {"": 1.0}
        if model.encoder is not None and model.cond_drop_prob > 0:
            scales["uncond/"] = 0.0
        clean: list[np.ndarray] = []
        estimates: dict[str, list[np.ndarray]] = {prefix: [] for prefix in ("noisy/", *scales)}
        for start in range(0, len(self.files), trainer.world_size):  # as many rounds on every device
            self.preemption.leave()
            index = start + trainer.global_rank
            if index >= len(self.files):
                continue
            item = {name: value for name, value in self.files[index].items() if isinstance(value, Tensor)}
            waveforms = {"noisy/": item["noisy"], **enhance_item(model, item, index, scales)}
            clean.append(to_score(model, item["clean"]))
            for prefix, waveform in waveforms.items():
                estimates[prefix].append(to_score(model, waveform))
            if index < NUM_SHOWN:
                self._show(trainer, model, {"clean": item["clean"], "reference": item["reference"], **waveforms}, index)
        noisy = estimates["noisy/"]
        rows = {"noisy/": self._noisy or self._score(clean, noisy, noisy)}
        self._noisy = rows["noisy/"]
        for prefix in scales:
            self.preemption.leave()
            rows[prefix] = self._score(clean, estimates[prefix], noisy)
        for prefix, scores in rows.items():
            for name, mean in zip(metrics.MAIN, _means(trainer, scores), strict=True):
                model.log(f"{prefix}{name}", mean, rank_zero_only=False)

    def _show(self, trainer: pl.Trainer, model: NoiseCondScoreModel, signals: dict[str, Tensor], index: int) -> None:
        rate, step = model.settings["sample_rate"], trainer.global_step
        names = {"": "enhanced", "uncond/": "unconditional", "noisy/": "noisy"}
        waveforms = {names.get(name, name): w.numpy() for name, w in signals.items() if len(w)}
        figure = figures.side_by_side(waveforms, rate)
        if self.out_dir is not None:
            folder = self.out_dir / f"step_{step:07d}"
            for name, waveform in waveforms.items():
                audio.write(folder / f"{index:03d}_{name}.flac", waveform, rate)
            figure.savefig(folder / f"{index:03d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(f"valid/{index:03d}", figure, step)
                for name, waveform in waveforms.items():
                    logger.experiment.add_audio(f"valid/{index:03d}_{name}", waveform[None], step, sample_rate=rate)
            elif isinstance(logger, WandbLogger):
                import wandb

                logger.experiment.log({f"valid/{index:03d}": wandb.Image(figure)})
                sounds = {f"valid/{index:03d}_{n}": wandb.Audio(w, sample_rate=rate) for n, w in waveforms.items()}
                logger.experiment.log(sounds)


def enhance_item(
    model: Enhancer, item: Mapping[str, Tensor], index: int, scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """A validation file [N] under each guidance scale. It has a noise of its own, the same at each validation."""
    reference = item["reference"] if len(item["reference"]) else None
    batch = encode_batch(model, [Signal(item["noisy"], reference, noise_key(0, f"validation/{index}"))])
    settings = {prefix: Setting(model.sampler, GuidanceSettings(scale)) for prefix, scale in scales.items()}
    return {prefix: enhance_batch(model, batch, setting)[0].waveform for prefix, setting in settings.items()}


def to_score(model: Enhancer, waveform: Tensor) -> np.ndarray:
    """A waveform [N] of the model at the rate of the metrics."""
    return audio.resample(waveform.numpy(), model.settings["sample_rate"], metrics.SAMPLE_RATE)


def _means(trainer: pl.Trainer, rows: list[Row]) -> list[float]:
    """The mean of each metric over the files of all devices that have a finite one; NaN if none has."""
    table = np.array([[float(row[name]) for name in metrics.MAIN] for row in rows]).reshape(-1, len(metrics.MAIN))
    known = np.isfinite(table)
    sums = torch.tensor(np.stack([np.where(known, table, 0).sum(axis=0), known.sum(axis=0)]), dtype=torch.float64)
    sums = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum").cpu()
    return [total / count if count else math.nan for total, count in sums.T.tolist()]
