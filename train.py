"""Train a noise-conditioned score model for speech enhancement.

python train.py --cond_drop_prob 0.1
    the small corpus that comes with the code, and the preset that fits the device
python train.py --speech_dir speech --noise_dir noise --noise_dir more_noise --encoder cnn
    dynamic mixing: speech/ and noise/ hold train/ and valid/
python train.py --config configs/bridge.yaml --base_dir VoiceBank-DEMAND --encoder none
    the unconditioned baseline on a paired corpus
python train.py --ckpt logs/RUN/checkpoints/last.ckpt
    resume a run exactly where it stopped

Settings come from the defaults, then from each --config in turn (without one: a preset), then from the flags.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from sgmse import cli, runs
from sgmse.build import build_datamodule, build_model
from sgmse.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig, check_typed
from sgmse.errors import run
from sgmse.sampling import SamplerSettings

CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    warnings.filterwarnings("ignore", ".*num_workers.*|.*pin_memory.*|.*LeafSpec.*|.*log_every_n_steps.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    values = read_settings(sys.argv[1:])
    model_config, sampler = cli.take(ModelConfig, values), cli.take(SamplerSettings, values)
    data, train = cli.take(DataConfig, values), cli.take(TrainConfig, values)
    pl.seed_everything(train.seed, verbose=False)
    model = build_model(model_config, sampler, train)
    datamodule = build_datamodule(data, model_config, train.seed)
    runs.describe(model, data, datamodule)
    folder = runs.run_folder(train, model_config)
    runs.save_settings(folder, model_config, sampler, data, train)
    trainer = runs.make_trainer(train, data, folder, datamodule.valid_files)
    if train.compile:
        model.backbone.compile()
    print(f"run: {folder}", flush=True)
    trainer.fit(model, datamodule=datamodule, ckpt_path=train.ckpt)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    print(f"stopped at step {trainer.global_step}; checkpoints in {folder / 'checkpoints'}")


def read_settings(argv: list[str]) -> dict[str, Any]:
    """Flags over YAML files over the preset (when resuming: over the settings of that run)."""
    parser = cli.make_parser(TRAIN_GROUPS, description=__doc__ or "")
    values, typed = cli.parse(parser, argv)
    if values["ckpt"] is not None:
        ckpt = Path(values["ckpt"])
        values, typed = cli.parse(parser, argv, runs.settings_beside(ckpt))
        runs.check_resumable(ckpt, cli.take(ModelConfig, values))
    elif len(typed) == 1:  # no --config
        device = runs.device(values["device"])
        preset = CONFIGS / ("bridge.yaml" if device == "cuda" else "cpu.yaml")
        print(f"preset: {preset.name}, the one for {device} (choose with --config)")
        values, typed = cli.parse(parser, argv, preset)
    for names in typed:
        check_typed(names, values["encoder"], values["sde"])
    return values


if __name__ == "__main__":
    run(main)
