"""Train a noise-conditioned score model for speech enhancement.

  python train.py --cond_drop_prob 0.1
      on the small corpus that comes with the code, with the preset that fits the device
  python train.py --speech_dir speech --noise_dir noise --noise_dir more_noise --encoder cnn
      dynamic mixing; speech/ and noise/ hold train/ and valid/
  python train.py --config configs/bridge.yaml --base_dir VoiceBank-DEMAND --encoder none
      the unconditioned baseline on a corpus of pairs
  python train.py --config configs/bridge.yaml --run_dir runs/first
      start this run, or go on with it: what a job that may be stopped and started again needs

Settings come from the defaults, then from each --config in turn (without one: from the preset of the device,
configs/bridge.yaml or configs/cpu.yaml), then from the flags. All are saved in logs/RUN/config.yaml.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError, run
from sgmse.common.machine import device as find_device
from sgmse.common.machine import is_first_process
from sgmse.common.typed import print_next
from sgmse.data import corpora
from sgmse.data.noise.talkers import Talkers
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import encoder_table
from sgmse.model.checkpoints import run_checkpoint
from sgmse.model.pretrained import find_model
from sgmse.settings import cli
from sgmse.settings.checks import DYNAMIC_MIXING, check_data, check_model, check_typed
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig
from sgmse.training import resumption
from sgmse.training.resumption import StoppedRun

COMMON = """config base_dir speech_dir noise_dir backbone encoder cond_drop_prob batch_size lr max_steps max_minutes
device seed run_dir ckpt""".split()
DETAILS = """
more examples:
  python train.py --ckpt logs/RUN/checkpoints/last.ckpt --max_steps 10000
      go on with a run exactly where it stopped, with its settings
  python train.py --init_ckpt logs/RUN/checkpoints/best_pesq.ckpt --encoder sequence
      a new run that starts from the weights of another one, as far as they fit

SIGUSR1 or SIGTERM ends a training after the step at hand, or the next one where several processes train, with its
last.ckpt and exit code 85. Several processes:
--devices on one machine; on a cluster, `srun python train.py --run_dir DIR --devices D --num_nodes N ...` or torchrun.
"""


def main() -> None:
    values = read_settings(sys.argv[1:])
    model, sampler = cli.take(ModelConfig, values), cli.take(SamplerSettings, values)
    data, train = cli.take(DataConfig, values), cli.take(TrainConfig, values)
    check_model(model, sampler)
    check_data(data, model)
    _check_folders(data)
    if train.init_ckpt is not None and train.ckpt is None:  # a run that goes on has weights of its own
        find_model(train.init_ckpt)
    # Lightning takes seconds to load, which --help and refusals need not wait
    from sgmse.training.run import train_model

    ckpt = run_checkpoint(train_model(model, sampler, data, train))
    test = None if data.base_dir is None else Path(data.base_dir, "test")
    own = [] if test is None or not test.is_dir() else [test]
    print_next("enhancement_noise_cond.py", *own, "--ckpt", ckpt)


def read_settings(argv: list[str]) -> dict[str, Any]:
    """Flags over YAML files over the preset (when resuming: over the settings of that run)."""
    parser = cli.make_parser(TRAIN_GROUPS, __doc__ or "", common=COMMON, details=f"{DETAILS}\n{encoder_table()}\n")
    layers = cli.parse(parser, argv)
    ckpt, run_dir = (layers[-1].values[name] for name in ("ckpt", "run_dir"))
    stopped = None
    if ckpt is not None:
        stopped = resumption.read_stopped_run(Path(ckpt))
    elif run_dir is not None:
        stopped = resumption.find_stopped_run(Path(run_dir))
    files = layers[:-1]  # each must fit together by itself, or with the settings of the run that goes on
    if stopped is not None:
        layers = cli.parse(parser, argv, stopped.settings)
    elif not files:
        device = find_device(layers[0].values["device"])
        preset = CONFIGS / ("bridge.yaml" if device == "cuda" else "cpu.yaml")
        _say(f"preset: {preset.name}, the one for {device} (choose with --config)")
        layers = cli.parse(parser, ["--config", str(preset), *argv])
    for alone, laid in zip((*files, layers[-1]), layers[-len(files) - 1 :], strict=True):
        error = _find_contradiction(alone)
        if error is not None and _find_contradiction(laid) is not None:
            raise UserError(f"{laid.source}: {error}" if laid.source else str(error))
    values = layers[-1].values | _other_corpus_left_out(layers) | _steps_left_out(layers)
    values |= _talkers_left_out(layers, values)
    if stopped is not None:
        _check_resumption(stopped, cli.take(ModelConfig, values), cli.take(TrainConfig, values))
        values["ckpt"] = str(stopped.ckpt)
        before = cli.parse(parser, [], stopped.settings)[-1].values
        for sentence in resumption.describe_changes(before, values, stopped.steps):
            _say(sentence)
    return values


def _find_contradiction(layer: cli.Layer) -> UserError | None:
    """Why the settings of a layer do not fit together, or what is below them; None: they do."""
    v = layer.values
    if layer.source and "ckpt" in layer.typed and v["ckpt"] is None:
        return None  # the config.yaml of a run, which names every setting, those without a meaning too
    # a flag must also fit what a file chose
    typed = layer.typed if layer.source else layer.typed | {"encoder", "nolog"}
    try:
        check_typed(typed, cli.take(ModelConfig, v), cli.take(SamplerSettings, v), cli.take(TrainConfig, v))
    except UserError as error:
        return error
    return None


def _check_resumption(stopped: StoppedRun, model: ModelConfig, train: TrainConfig) -> None:
    """Raise `UserError` where the run cannot go on, or is complete; with --run_dir a complete one ends here."""
    resumption.check_same_model(stopped, model)
    reached = resumption.find_reached_limit(stopped, train)
    if reached is None:
        return
    limit, done = reached
    if train.run_dir is None:
        raise UserError(f"{stopped.ckpt}: has done {done}; give a larger --{limit} to go on")
    _say(f"{train.run_dir}: is complete, {done}; a larger --{limit} would go on")
    sys.exit(0)


def _check_folders(data: DataConfig) -> None:
    """Raise `UserError` for a folder of the training data that is not there, before anything slow is loaded."""
    pairs = [] if data.base_dir is None else [data.base_dir]
    for folder in (*pairs, *data.speech_dir, *data.noise_dir, *data.rir_dir):
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; check --base_dir, --speech_dir, --noise_dir and --rir_dir")


def _say(sentence: str) -> None:
    if is_first_process():
        print(sentence, flush=True)


def _own_settings(layers: list[cli.Layer]) -> set[str]:
    """The names of the settings that the user gave, on the command line or in files that are no presets."""
    return {name for layer in layers if not _is_preset(layer) for name in layer.typed}


def _is_preset(layer: cli.Layer) -> bool:
    """Whether it is a file of configs/, in a checkout of the code or in the installed package."""
    file = CONFIGS / Path(layer.source).name
    return bool(layer.source) and file.is_file() and file.read_bytes() == Path(layer.source).read_bytes()


def _steps_left_out(layers: list[cli.Layer]) -> dict[str, int]:
    """The steps of the sampler in a preset are for its process: another one takes as many as are usual."""
    own, presets = _own_settings(layers), [layer.values["sde"] for layer in layers if _is_preset(layer)]
    is_other = bool(presets) and layers[-1].values["sde"] != presets[-1]
    return {"N": SamplerSettings().N} if is_other and "N" not in own else {}


def _other_corpus_left_out(layers: list[cli.Layer]) -> dict[str, Any]:
    """Pairs named in a later layer replace the speech and noise of an earlier one, and the other way round.

    How the preset mixes these does not hold for pairs.
    """
    mixing = {name: getattr(DataConfig(), name) for name in set(DYNAMIC_MIXING) - _own_settings(layers)}
    for layer in reversed(layers):
        if "base_dir" in layer.typed and layer.values["base_dir"] is not None:
            return {"speech_dir": [], "noise_dir": [], **mixing}
        if any(name in layer.typed and layer.values[name] for name in ("speech_dir", "noise_dir")):
            return {"base_dir": None}
    return {} if layers[-1].values["base_dir"] is None else mixing


def _talkers_left_out(layers: list[cli.Layer], values: dict[str, Any]) -> dict[str, float]:
    """Shares of other talkers that a preset asks for are 0 where the speech has too few of them."""
    preset = [name for name in ("babble_share", "talker_share") if values[name] and name not in _own_settings(layers)]
    speech = values["speech_dir"] or [str(corpora.embedded_dir() / "speech")]
    is_whole = bool(values["speech_dir"]) == bool(values["noise_dir"]) and all(
        Path(folder).is_dir() for folder in speech
    )
    if not preset or not is_whole:  # what is not whole is refused later
        return {}
    talkers = Talkers(corpora.split_files(speech, "train", "speech"), values["sample_rate"])
    possible = {"babble_share": talkers.give_babble, "talker_share": talkers.give_competitors}
    left_out = {name: 0.0 for name in preset if not possible[name]}
    if left_out:
        _say(f"{' and '.join(left_out)} of the preset: 0, since too few talkers can be told apart by names and folders")
    return left_out


command = partial(run, main)


if __name__ == "__main__":  # how the experiments start a training: `python -m sgmse.commands.train`
    command()
