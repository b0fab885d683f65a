"""The cell `train`: one training, whatever the number of experiments that share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.data import corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.encoders import weights
from sgmse.experiments.catalogue import VOICEBANK
from sgmse.experiments.cells import Cell
from sgmse.experiments.commands import call
from sgmse.experiments.run_dir import alone
from sgmse.experiments.work import Product, Products, Work
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.training import run as runs
from sgmse.training.saving import read_validations

SETTINGS = "settings.yaml"


def write_settings(work: Work, name: str) -> Path:
    """The settings of a training as a config file, beside its runs; they are the same for every seed."""
    training, path = work.plan.trainings[name], work.training(name) / SETTINGS
    values = dict(training.settings) | folders(work)[name]
    shared = f"# {', '.join(training.experiments)}\n"
    text = shared + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def speech_dir(work: Work) -> Path:
    """Where the clean speech of VoiceBank-DEMAND is listed for mixing it with other noise."""
    return work.folder / "speech"


def folders(work: Work) -> dict[str, dict[str, Any]]:
    """The settings of each training that name the folders it reads."""
    return {
        name: work.plan.data.settings(training.corpora, speech_dir(work))
        for name, training in work.plan.trainings.items()
    }


def data_read(work: Work) -> dict[str, str]:
    """What the trainings read, in words, each with one training that does."""
    return {json.dumps(read): name for name, read in folders(work).items()}


def prepare_speech(work: Work) -> None:
    """List that speech if a training of the plan mixes it."""
    data, out = work.plan.data, speech_dir(work)
    mixes = any(len(training.corpora) > 1 for training in work.plan.trainings.values())
    if data.data_dir is None or not mixes:
        return
    with alone(work.folder, "speech"):  # the tasks of an array begin at the same time
        if not (out / manifest.MANIFEST).is_file():
            write_speech(Path(data.data_dir) / VOICEBANK, out)


def write_speech(voicebank: Path, out: Path) -> Path:
    """Write `out`/manifest.csv with the clean training and validation speech of prepared VoiceBank-DEMAND.

    For dynamic mixing with other noise: `train.py --speech_dir OUT`. No audio is copied.
    """
    clips = []
    for split in ("train", "valid"):
        for pair in corpora.paired_files(voicebank, split):
            speaker = pair.clean.path.stem.partition("_")[0]
            clips.append(Clip(pair.clean.path, "speech", speaker, split, pair.clean.sample_rate, pair.clean.seconds))
    return manifest.write(out, clips)


def command(work: Work, cell: Cell) -> list[str]:
    """What starts the run, and what goes on with it."""
    options, training = work.options, work.plan.trainings[cell.name]
    words = [
        "-m",
        "sgmse.commands.train",
        "--config",
        str(work.training(cell.name) / SETTINGS),
        "--seed",
        str(cell.seed),
    ]
    words += ["--run_dir", str(work.run(cell.name, cell.seed)), "--device", options.device]
    words += ["--logger", options.logger]
    if options.logger == "wandb":
        tags = [*training.experiments, f"seed{cell.seed}", work.plan.scale, *(["smoke"] if training.smoke else [])]
        words += ["--wandb_name", f"{cell.name}_seed{cell.seed}", "--wandb_group", cell.name, "--wandb_tags", *tags]
    return words


def train(work: Work, cell: Cell, products: Products, lock: int) -> Product:
    """Start the run, or go on with it, until it is complete."""
    write_settings(work, cell.name)
    call(work.launch, command(work, cell), work.log(cell), lock)
    return outcome(work, cell)


def outcome(work: Work, cell: Cell) -> Product:
    """What tables tell of a training, and the hashes of the checkpoints to choose from."""
    folder = work.run(cell.name, cell.seed)
    found = candidates(folder)
    model = Enhancer.from_checkpoint(found[0], "cpu")
    count = {True: 0, False: 0}
    for parameter in model.parameters():
        count[parameter.requires_grad] += parameter.numel()
    encoder = model.encoder
    return {
        "steps": int(checkpoints.read(folder / "checkpoints" / "last.ckpt")["global_step"]),
        "minutes": round(minutes(folder / "validation.csv"), 2),
        "device": runs.device(work.options.device),
        "parameters_trained": count[True],
        "parameters_frozen": count[False],
        "smoke": encoder is not None and encoder.identity == weights.RANDOM,
        "checkpoints": {path.stem: weights.identity(path) for path in found},
    }


def candidates(folder: Path) -> list[Path]:
    """The checkpoints of a run to choose from: best PESQ and last; one where the two are of the same step."""
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in ("best_pesq", "last")]
    there = [path for path in paths if path.is_file()]
    if not there:
        raise UserError(f"{folder / 'checkpoints'}: holds no checkpoint; remove {folder} to train anew")
    steps = {checkpoints.read(path)["global_step"]: path for path in there}
    return list(steps.values())


def minutes(curves: Path) -> float:
    """Minutes of training up to the last validation, those before a resumption included."""
    rows = read_validations(curves)
    return float(rows[-1]["seconds"]) / 60 if rows else 0.0
