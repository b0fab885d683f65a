"""Watching a training: enhance and score a fixed set of files, with the reference and without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from sgmse.data import audio
from sgmse.data.dataset import ValidationSet
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import Signal, encode_batch, enhance_batch, noise_key
from sgmse.evaluation import figures, metrics
from sgmse.model.enhancer import Enhancer
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.training.interruption import Preemption

NUM_SHOWN = 2  # files whose sound and spectrogram are kept at each validation


class EnhancementValidation(pl.Callback):
    """Logs the metrics (`pesq`, …) of the validation files under averaged weights, and the same under `uncond/`.

    The unconditional ones are logged where the null condition is trained, that is, where references are dropped.
    `noisy/…` are the scores of the unprocessed files. A metric that a file does not allow leaves that file out of its
    mean. Files are shared among the devices. Sounds and spectrograms of the first files go to `out_dir` and, with
    TensorBoard or W&B, to the logger. A signal ends it after the file at hand.
    """

    def __init__(self, files: ValidationSet, out_dir: Path | None, preemption: Preemption) -> None:
        self.files, self.out_dir, self.preemption = files, out_dir, preemption

    def on_validation_epoch_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        assert isinstance(model, NoiseCondScoreModel)
        scales = {"": 1.0}
        if model.encoder is not None and model.cond_drop_prob > 0:
            scales["uncond/"] = 0.0
        rows: dict[str, list[list[float]]] = {prefix: [] for prefix in ("noisy/", *scales)}
        for start in range(0, len(self.files), trainer.world_size):  # as many rounds on every device
            self.preemption.leave(trainer)
            index = start + trainer.global_rank
            if index >= len(self.files):
                continue
            item = {name: value for name, value in self.files[index].items() if isinstance(value, Tensor)}
            waveforms = {"noisy/": item["noisy"], **enhance_item(model, item, index, scales)}
            for prefix, waveform in waveforms.items():
                rows[prefix].append(score_item(model.settings["sample_rate"], item["clean"], waveform))
            if index < NUM_SHOWN:
                self._show(trainer, model, {"clean": item["clean"], "reference": item["reference"], **waveforms}, index)
        for prefix, values in rows.items():
            for name, mean in zip(metrics.MAIN, _means(trainer, values), strict=True):
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


def score_item(rate: int, clean: Tensor, estimate: Tensor) -> list[float]:
    """The metrics of two waveforms [N]; NaN where one is not defined."""
    pair = [audio.resample(w.numpy(), rate, metrics.SAMPLE_RATE) for w in (clean, estimate)]
    scores = metrics.score(pair[0], pair[1], metrics.SAMPLE_RATE)
    return [float(scores[name]) for name in metrics.MAIN]


def _means(trainer: pl.Trainer, rows: list[list[float]]) -> list[float]:
    """The mean of each metric over the files of all devices that have a finite one; NaN if none has."""
    table = np.array(rows, dtype=np.float64).reshape(-1, len(metrics.MAIN))
    known = np.isfinite(table)
    sums = torch.tensor(np.stack([np.where(known, table, 0).sum(axis=0), known.sum(axis=0)]), dtype=torch.float64)
    sums = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum").cpu()
    return [total / count if count else math.nan for total, count in sums.T.tolist()]
