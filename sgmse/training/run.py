"""One training, from its settings to its last checkpoint, or up to a signal; the folder of its run."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import warnings
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.common.lock import locked_folder
from sgmse.common.machine import check_compiler, device, is_first_process
from sgmse.data.dataset import mixing_report
from sgmse.data.loaders import NoiseCondDataModule, UnreadableItem
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import weights
from sgmse.model.score_model import LOG_EVERY, Diverged, NoiseCondScoreModel
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig
from sgmse.training.datamodule import build_datamodule
from sgmse.training.interruption import Preempted, Preemption, check_launch, slurm_plugins, watch_signals
from sgmse.training.loggers import RunProgress, check_wandb, make_loggers
from sgmse.training.resumption import CURVES, SETTINGS
from sgmse.training.saving import RunFiles, WholeCheckpoints
from sgmse.training.validation import EnhancementValidation

IGNORED = ".*(num_workers|pin_memory|LeafSpec|log_every_n_steps|in eval mode at the start|exists and is not empty"
IGNORED += "|generation for complex operators|command is available on your system but is not used|sync_dist=True).*"
MAX_NULL_SHARE = 0.02  # beyond it the silent references shift the drop probability
_FOLDER = "SGMSE_RUN_FOLDER"  # tells the processes of the other devices, which Lightning starts, where the run lives


def train_model(model_config: ModelConfig, sampler: SamplerSettings, data: DataConfig, train: TrainConfig) -> Path:
    """Train, and leave a folder of the run with its settings, curves and checkpoints, which is returned."""
    warnings.filterwarnings("ignore", IGNORED)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with watch_signals() as preemption:
        check_machine(train)
        pl.seed_everything(train.seed, verbose=False)
        model = NoiseCondScoreModel(model_config, sampler, train, load_pretrained=train.ckpt is None)
        if train.init_ckpt is not None and train.ckpt is None:  # a run that goes on has its own weights
            say(model.start_from(train.init_ckpt))
        check_data(data, model_config)
        datamodule = build_datamodule(data, model_config, train.seed)
        describe(model, data, datamodule)
        try_data(datamodule)
        folder = run_folder(train, model_config)
        with locked_folder(folder, "trained") if is_first_process() else nullcontext():
            save_settings(folder, model_config, sampler, data, train)
            files = RunFiles(folder / "checkpoints", folder / CURVES, train)
            callbacks: list[pl.Callback] = [RunProgress(train.val_every_n_steps), files, preemption]
            if data.num_eval_files:
                sounds = None if train.nolog else folder / "validation"
                callbacks.insert(0, EnhancementValidation(datamodule.valid_files, sounds, preemption))
            if train.compile:
                model.backbone.compile()
            say(f"run: {folder}")
            fit(make_trainer(train, folder, callbacks), model, datamodule, train, files, preemption)
        return folder


def fit(
    trainer: pl.Trainer,
    model: NoiseCondScoreModel,
    datamodule: NoiseCondDataModule,
    train: TrainConfig,
    files: RunFiles,
    preemption: Preemption,
) -> None:
    """Train until the limit of the settings, a signal, or a divergence, and leave the last good checkpoint."""
    last = preemption.last = files.last
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=train.ckpt)
    except Preempted:
        how = f"with --ckpt {last}" if train.run_dir is None else "with the same command"
        say(f"stopped by {preemption.reason} after step {trainer.global_step}; go on {how}")
        raise
    except Diverged as error:
        good = files.set_back() if trainer.is_global_zero else None
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint was written before"
        raise UserError(f"training diverged: {error}; {kept}; use a smaller --lr or a smaller --grad_clip") from None
    except UnreadableItem as error:
        kept = f"; the training is kept in {last}" if last.exists() else ""
        raise UserError(f"{error}; scripts/doctor.py names all files that are bad{kept}") from None
    except SystemExit:  # how Lightning answers Ctrl-C
        if last.exists():
            print(f"go on from the last validation with --ckpt {last}")
        raise KeyboardInterrupt from None
    _settle_epoch(trainer)
    trainer.save_checkpoint(last)
    say(f"stopped at step {trainer.global_step}; checkpoints in {last.parent}")


def _settle_epoch(trainer: pl.Trainer) -> None:
    """Make the progress true that last.ckpt keeps, so that going on neither loses nor repeats a part of an epoch.

    Where a limit ends a training, Lightning counts the epoch as done, whole or not, and would go on after its end with
    none of its batches left: with the next one only once that is counted again.
    """
    batches, epochs = trainer.fit_loop.epoch_loop.batch_progress, trainer.fit_loop.epoch_progress
    if not batches.current.ready:
        return
    is_counted = epochs.current.ready == epochs.current.completed
    if batches.is_last_batch:
        if is_counted:
            batches.reset_on_run()
        return
    begun = batches.current.completed % trainer.accumulate_grad_batches  # batches of a step that was not made
    for progress, names, count in (
        (batches, ("ready", "started", "processed", "completed"), begun),
        (epochs, ("processed", "completed"), int(is_counted)),
    ):
        for counts in (progress.current, progress.total):
            for name in names:
                setattr(counts, name, getattr(counts, name) - count)


@rank_zero_only
def say(sentence: str) -> None:
    print(sentence, flush=True)


def check_machine(train: TrainConfig) -> None:
    """Raise `UserError` for devices, a compiler or a W&B key that this machine does not have."""
    if train.logger == "wandb" and not train.nolog:
        check_wandb()
    kind = device(train.device)
    if train.compile:
        check_compiler(kind)
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions use anyway
    if kind == "cuda" and train.devices > torch.cuda.device_count():
        raise UserError(f"--devices {train.devices}: {torch.cuda.device_count()} CUDA devices are visible; use fewer")
    check_launch(train)


@rank_zero_only
def describe(model: NoiseCondScoreModel, data: DataConfig, module: NoiseCondDataModule) -> None:
    """Print what is trained on what."""
    if data.base_dir is not None:
        print(f"data: pairs of {data.base_dir}")
    elif data.speech_dir:
        print(f"data: speech of {', '.join(data.speech_dir)} mixed with noise of {', '.join(data.noise_dir)}")
    else:
        print("data: the embedded corpus (choose with --base_dir, or --speech_dir and --noise_dir)")
    print(f"      {len(module.train)} training and {len(module.valid)} validation files")
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    print("model: " + ", ".join(f"{name} {millions:.2f} M" for name, millions in count.items() if millions))
    if model.encoder is not None and model.encoder.identity is not None:
        name, fate = model.settings["encoder"], "frozen" if model.settings["freeze_encoder"] else "trained along"
        print(f"encoder: {name}, weights of hash {model.encoder.identity}, {fate}")
        if model.encoder.identity == weights.RANDOM:
            print(f"warning: the {name} encoder has random weights; what comes out says nothing about {name}")


@rank_zero_only
def try_data(module: NoiseCondDataModule) -> None:
    """Read what validation will read and some training items, so that unusable files show before any training.

    Warns when too many references are silent; raises `UserError` when all are.
    """
    for key in range(module.num_valid_items):
        module.valid[key]
    for index in range(len(module.valid_files)):
        module.valid_files[index]
    module.train[0]
    report = mixing_report(module.train)
    found = f"{report.null_share:.1%} of the references are silent or too short and become the null condition"
    if report.null_share == 1:
        raise UserError(f"{found}; use other noise or longer files, or --encoder none for a model without reference")
    if report.null_share > MAX_NULL_SHARE:
        print(f"warning: {found}, more than {MAX_NULL_SHARE:.0%}; check the noise files")
    if report.looped_share > 0:
        print(f"      {report.looped_share:.0%} of the mixtures loop a noise shorter than the speech, with cross-fades")


def run_folder(train: TrainConfig, model: ModelConfig) -> Path:
    """The folder of a resumed run, the one that --run_dir names, or a new one below log_dir."""
    if train.ckpt is not None:
        return Path(train.ckpt).resolve().parent.parent
    if train.run_dir is None and "LOCAL_RANK" in os.environ and _FOLDER in os.environ:
        return Path(os.environ[_FOLDER])
    flag, place = ("--log_dir", train.log_dir) if train.run_dir is None else ("--run_dir", train.run_dir)
    try:
        folder = _new_folder(Path(place), f"{model.sde}_{model.encoder}") if train.run_dir is None else Path(place)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}); choose another {flag}") from None
    if train.run_dir is None and train.devices > 1:
        os.environ[_FOLDER] = str(folder)
    return folder


def _new_folder(log_dir: Path, name: str) -> Path:
    """A folder that no other run has, whenever that started."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}_{name}"
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = log_dir / (stem + suffix)
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise UserError(f"{log_dir}: is full of runs of this second; try again")


@rank_zero_only
def save_settings(folder: Path, *parts: Any) -> None:
    """config.yaml: every setting as resolved, and the commit of the code.

    What a resumed run was started with before, where it differs, stays as config.1.yaml, config.2.yaml, ...
    """
    values: dict[str, Any] = {}
    for part in parts:
        values |= asdict(part)
    values |= {"ckpt": None, "run_dir": None}  # where it goes on, which no other run shares
    text = f"# code: {_commit()}\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path = folder / SETTINGS
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        earlier = (path.with_suffix(f".{i}.yaml") for i in range(1, 10000))
        shutil.copyfile(path, next(copy for copy in earlier if not copy.exists()))
    write_text(path, text)


def _commit() -> str:
    """The commit of the code, with a mark when files were changed since."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", *words]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy may lie in somebody else's repository
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"


def _strategy(train: TrainConfig) -> str | DDPStrategy:
    """The same weights take part in every step, so several processes need not look for them."""
    if train.devices * train.num_nodes == 1:
        return "auto"
    # a static graph does not go with steps that skip the exchange of gradients
    return DDPStrategy(static_graph=train.accumulate_grad_batches == 1, gradient_as_bucket_view=True)


def make_trainer(train: TrainConfig, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    """The Lightning trainer with its loggers."""
    return pl.Trainer(
        accelerator="gpu" if device(train.device) == "cuda" else "cpu",
        devices=train.devices,
        num_nodes=train.num_nodes,
        strategy=_strategy(train),
        plugins=[*slurm_plugins(), WholeCheckpoints()],
        precision=train.precision,
        max_steps=train.max_steps,
        max_epochs=train.max_epochs,
        max_time=timedelta(minutes=train.max_minutes) if train.max_minutes else None,
        gradient_clip_val=train.grad_clip or None,
        accumulate_grad_batches=train.accumulate_grad_batches,
        val_check_interval=train.val_every_n_steps * train.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=make_loggers(train, folder),
        log_every_n_steps=LOG_EVERY,
        callbacks=callbacks,
        benchmark=device(train.device) == "cuda",
        enable_model_summary=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
