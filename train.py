"""Train a noise-conditioned score model for speech enhancement.

  python train.py --cond_drop_prob 0.1
      on the small corpus that comes with the code, with the preset that fits the device
  python train.py --speech_dir speech --noise_dir noise --noise_dir more_noise --encoder cnn
      dynamic mixing; speech/ and noise/ hold train/ and valid/
  python train.py --config configs/bridge.yaml --base_dir VoiceBank-DEMAND --encoder none
      the unconditioned baseline on a corpus of pairs
  python train.py --ckpt logs/RUN/checkpoints/last.ckpt --max_steps 10000
      go on with a run exactly where it stopped, with its settings

Settings come from the defaults, then from each --config in turn (without one: from the preset of the device,
configs/bridge.yaml or configs/cpu.yaml), then from the flags. All are saved in logs/RUN/config.yaml.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from sgmse import cli, runs
from sgmse.bounds import check_bounds
from sgmse.build import build_datamodule, build_model
from sgmse.checks import check_data, check_typed
from sgmse.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig
from sgmse.encoders import encoder_table
from sgmse.errors import UserError, run
from sgmse.sampling import SamplerSettings

IGNORED = ".*(num_workers|pin_memory|LeafSpec|log_every_n_steps|in eval mode at the start|exists and is not empty).*"
CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    warnings.filterwarnings("ignore", IGNORED)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    values = read_settings(sys.argv[1:])
    model_config, sampler = cli.take(ModelConfig, values), cli.take(SamplerSettings, values)
    data, train = cli.take(DataConfig, values), cli.take(TrainConfig, values)
    check_bounds(train)
    runs.check_machine(train)
    pl.seed_everything(train.seed, verbose=False)
    model = build_model(model_config, sampler, train, from_checkpoint=train.ckpt is not None)
    check_data(data, model_config)
    datamodule = build_datamodule(data, model_config, train.seed)
    runs.describe(model, data, datamodule)
    runs.try_data(datamodule)
    folder = runs.run_folder(train, model_config)
    runs.save_settings(folder, model_config, sampler, data, train)
    trainer = runs.make_trainer(train, data, folder, datamodule.valid_files)
    if train.compile:
        model.backbone.compile()
    print(f"run: {folder}", flush=True)
    last = folder / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=train.ckpt)
    except SystemExit:  # how Lightning answers Ctrl-C
        if last.exists():
            print(f"go on from the last validation with --ckpt {last}")
        raise KeyboardInterrupt from None
    trainer.save_checkpoint(last)
    print(f"stopped at step {trainer.global_step}; checkpoints in {folder / 'checkpoints'}")


def read_settings(argv: list[str]) -> dict[str, Any]:
    """Flags over YAML files over the preset (when resuming: over the settings of that run)."""
    parser = cli.make_parser(TRAIN_GROUPS, description=f"{__doc__}\n{encoder_table()}")
    layers = cli.parse(parser, argv)
    ckpt = layers[-1].values["ckpt"]
    stopped = None if ckpt is None else runs.stopped_run(Path(ckpt))
    if stopped is not None:
        layers = cli.parse(parser, argv, stopped.settings)
    elif len(layers) == 1:  # no --config
        device = runs.device(layers[0].values["device"])
        preset = CONFIGS / ("bridge.yaml" if device == "cuda" else "cpu.yaml")
        print(f"preset: {preset.name}, the one for {device} (choose with --config)")
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
        runs.check_resumable(stopped, cli.take(ModelConfig, values), cli.take(TrainConfig, values))
    return values


def _other_corpus_left_out(layers: list[cli.Layer]) -> dict[str, Any]:
    """Pairs named in a later layer replace the speech and noise of an earlier one, and the other way round."""
    for layer in reversed(layers):
        if "base_dir" in layer.typed and layer.values["base_dir"] is not None:
            return {"speech_dir": [], "noise_dir": []}
        if any(name in layer.typed and layer.values[name] for name in ("speech_dir", "noise_dir")):
            return {"base_dir": None}
    return {}


if __name__ == "__main__":
    run(main)
