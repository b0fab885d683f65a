"""Train a noise-conditioned score model for speech enhancement.

  python train.py --cond_drop_prob 0.1
      on the small corpus that comes with the code, with the preset that fits the device
  python train.py --speech_dir speech --noise_dir noise --noise_dir more_noise --encoder cnn
      dynamic mixing; speech/ and noise/ hold train/ and valid/
  python train.py --config configs/bridge.yaml --base_dir VoiceBank-DEMAND --encoder none
      the unconditioned baseline on a corpus of pairs
  python train.py --ckpt logs/RUN/checkpoints/last.ckpt --max_steps 10000
      go on with a run exactly where it stopped, with its settings
  python train.py --config configs/bridge.yaml --run_dir runs/first
      start this run, or go on with it: what a job that may be stopped and started again needs

Settings come from the defaults, then from each --config in turn (without one: from the preset of the device,
configs/bridge.yaml or configs/cpu.yaml), then from the flags. All are saved in logs/RUN/config.yaml.

SIGUSR1 or SIGTERM ends a training after the step at hand, with its last.ckpt and exit code 85. Several processes:
--devices on one machine; on a cluster, `srun python train.py --run_dir DIR --devices D --num_nodes N ...` or torchrun.
"""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError, run
from sgmse.common.lock import locked_folder
from sgmse.data.loaders import NoiseCondDataModule
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import encoder_table
from sgmse.model.datamodule import build_datamodule
from sgmse.model.score_model import Diverged, NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.checks import check_data, check_typed
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig
from sgmse.training import resumption
from sgmse.training import run as runs
from sgmse.training.interruption import Preempted, Preemption, watched
from sgmse.training.resumption import Stopped

IGNORED = ".*(num_workers|pin_memory|LeafSpec|log_every_n_steps|in eval mode at the start|exists and is not empty"
IGNORED += "|command is available on your system but is not used|sync_dist=True).*"


def main() -> None:
    warnings.filterwarnings("ignore", IGNORED)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with watched() as preemption:
        train_model(preemption)


def train_model(preemption: Preemption) -> None:
    """Everything from the settings to the last checkpoint, or up to a signal."""
    values = read_settings(sys.argv[1:])
    model_config, sampler = cli.take(ModelConfig, values), cli.take(SamplerSettings, values)
    data, train = cli.take(DataConfig, values), cli.take(TrainConfig, values)
    check_bounds(train)
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


def read_settings(argv: list[str]) -> dict[str, Any]:
    """Flags over YAML files over the preset (when resuming: over the settings of that run)."""
    parser = cli.make_parser(TRAIN_GROUPS, description=f"{__doc__}\n{encoder_table()}")
    layers = cli.parse(parser, argv)
    ckpt, run_dir = layers[-1].values["ckpt"], layers[-1].values["run_dir"]
    if ckpt is not None:
        stopped: Stopped | None = resumption.stopped_run(Path(ckpt))
    else:
        stopped = None if run_dir is None else resumption.stopped_in(Path(run_dir))
    if stopped is not None:
        layers = cli.parse(parser, argv, stopped.settings)
    elif len(layers) == 1:  # no --config
        device = runs.device(layers[0].values["device"])
        preset = CONFIGS / ("bridge.yaml" if device == "cuda" else "cpu.yaml")
        say(f"preset: {preset.name}, the one for {device} (choose with --config)")
        layers = cli.parse(parser, argv, preset)
    for layer in layers:
        v = layer.values
        if layer.source and "ckpt" in layer.typed and v["ckpt"] is None:
            continue  # the config.yaml of a run, which names every setting, those without a meaning too
        try:
            check_typed(layer.typed, cli.take(ModelConfig, v), cli.take(SamplerSettings, v), cli.take(TrainConfig, v))
        except UserError as error:
            raise UserError(f"{layer.source}: {error}" if layer.source else str(error)) from None
    values = layers[-1].values | _other_corpus_left_out(layers)
    if stopped is not None:
        _check_resumption(stopped, cli.take(ModelConfig, values), cli.take(TrainConfig, values))
        values["ckpt"] = str(stopped.ckpt)
        before = cli.parse(parser, [], stopped.settings)[-1].values
        for sentence in resumption.describe_changes(before, values, stopped.steps):
            say(sentence)
    return values


def _check_resumption(stopped: Stopped, model: ModelConfig, train: TrainConfig) -> None:
    """Raise `UserError` where the run cannot go on; with --run_dir, end here where it is complete."""
    resumption.check_resumable(stopped, model, train)
    done = resumption.completed(stopped, train)
    if done:
        say(f"{train.run_dir}: is complete, {done[1]}; a larger --{done[0]} would go on")
        sys.exit(0)


def _other_corpus_left_out(layers: list[cli.Layer]) -> dict[str, Any]:
    """Pairs named in a later layer replace the speech and noise of an earlier one, and the other way round."""
    for layer in reversed(layers):
        if "base_dir" in layer.typed and layer.values["base_dir"] is not None:
            return {"speech_dir": [], "noise_dir": []}
        if any(name in layer.typed and layer.values[name] for name in ("speech_dir", "noise_dir")):
            return {"base_dir": None}
    return {}


def command() -> NoReturn:
    """`main`, with mistakes of the user told in one sentence."""
    run(main)


if __name__ == "__main__":  # how the experiments start a training: `python -m sgmse.commands.train`
    command()
