"""The cell `train`: one training, whatever the number of experiments that share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.common.lease import hold
from sgmse.data import corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.encoders import weights
from sgmse.experiments.catalogue import VOICEBANK
from sgmse.experiments.cells import Cell
from sgmse.experiments.work import Product, Products, Work
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.training import run as runs
from sgmse.training.saving import read_validations

SETTINGS = "settings.yaml"
CHECKPOINTS = ("best_pesq", "last")  # those to choose from, the preferred one first


def write_settings(work: Work, name: str) -> Path:
    """The settings of a training as a config file, beside its runs; they are the same for every seed."""
    training, path = work.plan.trainings[name], work.training(name) / SETTINGS
    values = dict(training.settings) | data_settings(work, name)
    text = f"# {', '.join(training.experiments)}\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def data_settings(work: Work, name: str) -> dict[str, Any]:
    """The settings of a training that name the folders it reads."""
    return work.plan.data.settings(work.plan.trainings[name].corpora, work.folder / "speech")


def data_read(work: Work) -> dict[str, str]:
    """The data settings of all trainings as JSON, each with the name of one training that reads these data."""
    return {json.dumps(data_settings(work, name)): name for name in work.plan.trainings}


def prepare_speech(work: Work) -> None:
    """List the clean speech of VoiceBank-DEMAND if a training of the plan mixes it with other noise."""
    data, out = work.plan.data, work.folder / "speech"
    mixes = any(len(training.corpora) > 1 for training in work.plan.trainings.values())
    if data.data_dir is None or not mixes:
        return
    with hold(work.lock("speech")):  # the tasks of an array begin at the same time
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


def train(work: Work, cell: Cell, products: Products) -> Product:
    """Start the run, or go on with it, until it is complete."""
    words = ["-m", "sgmse.commands.train", "--config", str(write_settings(work, cell.name))]
    words += ["--seed", str(cell.seed), "--run_dir", str(work.run(cell))]
    words += ["--device", work.device, "--logger", work.logger]
    if work.logger == "wandb":
        training = work.plan.trainings[cell.name]
        tags = [*training.experiments, f"seed{cell.seed}", work.plan.scale, *(["smoke"] if training.smoke else [])]
        words += ["--wandb_name", f"{cell.name}_seed{cell.seed}", "--wandb_group", cell.name, "--wandb_tags", *tags]
    if torch.cuda.is_initialized():  # what evaluations left in this process must not lack in the training's
        torch.cuda.empty_cache()
    work.launch(words, work.log(cell))
    return describe_run(work.run(cell), work.device)


def describe_run(folder: Path, device: str) -> Product:
    """The columns of trainings.csv that a run answers, and the hashes of the checkpoints to choose from."""
    found = find_checkpoints(folder)
    model = Enhancer.from_checkpoint(found[0], "cpu")
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    encoder = model.encoder
    rows = read_validations(folder / "validation.csv")
    return {
        "steps": int(checkpoints.read(folder / "checkpoints" / "last.ckpt")["global_step"]),
        # up to the last validation, those before a resumption included
        "minutes": round(float(rows[-1]["seconds"]) / 60, 2) if rows else 0.0,
        "device": runs.device(device),
        "parameters_trained": trained,
        "parameters_frozen": sum(p.numel() for p in parameters) - trained,
        "smoke": encoder is not None and encoder.identity == weights.RANDOM,
        "checkpoints": {path.stem: weights.identity(path) for path in found},
    }


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run to choose from: best PESQ and last; one where the two are of the same step."""
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in CHECKPOINTS]
    there = [path for path in paths if path.is_file()]
    if not there:
        raise UserError(f"{folder / 'checkpoints'}: holds no checkpoint; remove {folder} to train anew")
    return list({checkpoints.read(path)["global_step"]: path for path in there}.values())
