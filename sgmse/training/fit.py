"""One training, from its settings to its last checkpoint, or up to a signal."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from sgmse.common.errors import UserError
from sgmse.common.lock import locked_folder
from sgmse.data.loaders import NoiseCondDataModule
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model.score_model import Diverged, NoiseCondScoreModel
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig
from sgmse.training import run as runs
from sgmse.training.datamodule import build_datamodule
from sgmse.training.interruption import Preempted, Preemption, watched

IGNORED = ".*(num_workers|pin_memory|LeafSpec|log_every_n_steps|in eval mode at the start|exists and is not empty"
IGNORED += "|command is available on your system but is not used|sync_dist=True).*"


def train_model(model_config: ModelConfig, sampler: SamplerSettings, data: DataConfig, train: TrainConfig) -> None:
    """Train, and leave a folder of the run with its settings, curves and checkpoints."""
    warnings.filterwarnings("ignore", IGNORED)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with watched() as preemption:
        _train(model_config, sampler, data, train, preemption)


def _train(
    model_config: ModelConfig, sampler: SamplerSettings, data: DataConfig, train: TrainConfig, preemption: Preemption
) -> None:
    runs.check_machine(train)
    pl.seed_everything(train.seed, verbose=False)
    model = NoiseCondScoreModel(model_config, sampler, train, load_pretrained=train.ckpt is None)
    check_data(data, model_config)
    datamodule = build_datamodule(data, model_config, train.seed)
    runs.describe(model, data, datamodule)
    runs.try_data(datamodule)
    folder = runs.run_folder(train, model_config)
    with locked_folder(folder, "trained") if getattr(rank_zero_only, "rank", 0) == 0 else nullcontext():
        runs.save_settings(folder, model_config, sampler, data, train)
        trainer = runs.make_trainer(train, data, folder, datamodule.valid_files, preemption)
        if train.compile:
            model.backbone.compile()
        say(f"run: {folder}")
        fit(trainer, model, datamodule, train, preemption)


def fit(
    trainer: pl.Trainer,
    model: NoiseCondScoreModel,
    datamodule: NoiseCondDataModule,
    train: TrainConfig,
    preemption: Preemption,
) -> None:
    """Train until the limit of the settings, a signal, or a divergence, and leave the last good checkpoint."""
    last = preemption.last
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=train.ckpt)
    except Preempted:
        how = f"with --ckpt {last}" if train.run_dir is None else "with the same command"
        say(f"stopped by {preemption.reason} after step {trainer.global_step}; go on {how}")
        raise
    except Diverged as error:
        good = runs.last_good_checkpoint(trainer)
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint was written before"
        raise UserError(f"training diverged: {error}; {kept}; use a smaller --lr or a smaller --grad_clip") from None
    except SystemExit:  # how Lightning answers Ctrl-C
        if last.exists():
            print(f"go on from the last validation with --ckpt {last}")
        raise KeyboardInterrupt from None
    trainer.save_checkpoint(last)
    say(f"stopped at step {trainer.global_step}; checkpoints in {last.parent}")


@rank_zero_only
def say(sentence: str) -> None:
    print(sentence, flush=True)
