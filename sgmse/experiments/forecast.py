"""What a plan costs before anything of it is done, and what would make it fail after hours."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.data.corpora.manifest import MANIFEST
from sgmse.data.corpora.published import NOISE_CORPORA
from sgmse.data.testsets import build
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS, weights
from sgmse.experiments import sets
from sgmse.experiments.catalogue import NOISE_OF_SET, VOICEBANK, Experiment
from sgmse.experiments.plan import Plan, Training
from sgmse.experiments.scales import VALID, Scale, encoder_kind, pretrained_encoders
from sgmse.experiments.work import merged_plan
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import ModelConfig, TrainConfig

BYTES_PER_PARAMETER = 16  # of a checkpoint: weight, two moments of Adam, averaged weight, each in 32 bit
CHECKPOINTS_OF_CHOICE = 2  # best_pesq.ckpt and last.ckpt are tried
FILES_PER_ITEM = 8  # of a test set: noisy, clean, noise and a reference under five protocols
BYTES_PER_SECOND = 32000  # 16-bit samples at 16 kHz; FLAC makes them fewer


def check_plan(plan: Plan, scale: Scale, out: Path) -> dict[str, str]:
    """Raise `UserError` for corpora, folders or weights that are missing, a disk too small, or another plan in `out`.

    Returns the test sets that these data do not allow, each with what would.
    """
    merged_plan(out, plan)
    check_corpora(plan)
    for folders, what in ((plan.data.speech_dir, "speech"), (plan.data.noise_dir, "noise")):
        for split in ("train", "valid") if folders else ():
            corpora.split_files(folders, split, what)
    for training in plan.trainings.values():
        values = training.values
        if values["encoder"] in weights.PUBLISHED and not training.smoke:
            weights.locate(weights.PUBLISHED[values["encoder"]], values["encoder_checkpoint"])
    left_out = sets.left_out((*plan.sets, VALID), plan.data)
    there = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and not path.is_symlink())
    needed, space = disk_bytes(plan, scale) - there, free_bytes(out)
    if needed > space:
        raise UserError(
            f"{out}: the plan takes {format_bytes(needed)} more and its disk has {format_bytes(space)} free; name "
            "another --out, or fewer experiments or seeds"
        )
    return left_out


def check_corpora(plan: Plan) -> None:
    """Raise `UserError`, with the commands to type, unless the corpora of a plan are prepared."""
    if plan.data.data_dir is None:
        return
    folder = Path(plan.data.data_dir)
    absent = [name for name in list_corpora(plan) if not (folder / name / MANIFEST).is_file()]
    commands = []
    for name in absent:
        downloads = name == VOICEBANK or NOISE_CORPORA[name].archives
        source = "" if downloads else " --source FOLDER_WITH_ITS_CLIPS"
        commands.append(f"`python scripts/prepare.py {name}{source} --out {folder / name}`")
    if absent:
        raise UserError(
            f"{folder}: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not prepared there; run "
            f"{', '.join(commands)}, or name another --data_dir"
        )


def list_corpora(plan: Plan) -> list[str]:
    """The corpora that trainings and test sets of a plan are made of."""
    ready = Path(plan.data.test_sets) if plan.data.test_sets else None
    built = [name for name in (*plan.sets, VALID) if ready is None or not (ready / name).is_dir()]
    noise = [NOISE_OF_SET[name] for name in built if name in NOISE_OF_SET]
    trained = [corpus for training in plan.trainings.values() for corpus in training.corpora]
    return list(dict.fromkeys([*([VOICEBANK] if built else []), *trained, *noise]))


def count_items(plan: Plan, scale: Scale, name: str) -> tuple[int, int]:
    """How many files and how many noise recordings a set of a plan holds, or will hold once it is built."""
    folder = sets.ready(name, plan.data)
    if folder is None or not (folder / build.MANIFEST).is_file():
        files = plan.items[name]
        return files, min(files, scale.figures.sources.get(name, files))
    rows = build.read_rows(folder)
    return len(rows), len({row.get("source") or row.get("noise") or row["id"] for row in rows})


def training_hours(plan: Plan, training: Training, scale: Scale) -> float | None:
    """Of one seed with its validations; None where the scale has no seconds per step of this base and encoder."""
    values, figures = training.values, scale.figures
    base = plan.experiments[training.experiments[0]].base
    seconds = figures.seconds_per_step.get(base, {}).get(encoder_kind(values))
    if seconds is None:
        return None
    steps = values["max_steps"]
    audio_s = steps // values["val_every_n_steps"] * values["num_eval_files"] * figures.item_seconds
    ways = 1 if values["encoder"] == "none" else 2  # with the reference and without
    enhancing = audio_s * ways * _evaluations(base, values["N"]) * figures.seconds_per_pass.get(base, 0)
    return float(steps * seconds + enhancing) / 3600


def evaluation_hours(plan: Plan, name: str, scale: Scale) -> float | None:
    """Of one seed: every candidate on `valid`, then the test sets with as many steps as the dearest candidate.

    None where the scale has no seconds per pass of this base. Scoring and the loading of data are not counted.
    """
    experiment = plan.experiments[name]
    per_pass = scale.figures.seconds_per_pass.get(experiment.base)
    if per_pass is None:
        return None
    tried = [_passes(experiment, w, steps) for w in experiment.guidance_scale for steps in plan.steps[name]]
    passes = count_items(plan, scale, VALID)[0] * sum(tried) * CHECKPOINTS_OF_CHOICE
    passes += sum(count_items(plan, scale, one)[0] for one in plan.sets_of(name)) * max(tried)
    return passes * scale.figures.item_seconds * per_pass / 3600


def _passes(experiment: Experiment, guidance_scale: float, steps: int) -> int:
    """Network passes per item."""
    return _evaluations(experiment.base, steps) * (1 if guidance_scale in (0, 1) else 2)


def _evaluations(base: str, steps: int) -> int:
    """Of the network per item; SGMSE+'s sampler asks for a predictor and a corrector in each step."""
    return steps * (2 if base == "sgmse_plus" else 1)


def disk_bytes(plan: Plan, scale: Scale) -> int:
    """What the checkpoints, test sets and enhanced files of a plan take, at most."""
    checkpoints = sum(checkpoint_bytes(training) for training in plan.trainings.values()) * len(plan.seeds)
    built = sum(count_items(plan, scale, name)[0] for name in (*plan.sets, VALID)) * FILES_PER_ITEM
    tested = [count_items(plan, scale, one)[0] for name in plan.experiments for one in plan.sets_of(name)]
    item = scale.figures.item_seconds * BYTES_PER_SECOND
    return checkpoints + int(item * (built + sum(tested) * len(plan.seeds)))


def checkpoint_bytes(training: Training) -> int:
    """Of all checkpoints that one training keeps: last, the best by PESQ and by SI-SDR, and one every so many steps."""
    values = training.values
    kept = 1 + 2 * (values["num_eval_files"] > 0) + values["max_steps"] // values["save_every_n_steps"]
    return int(kept * count_parameters(training) * BYTES_PER_PARAMETER)


def count_parameters(training: Training) -> int:
    """Trained parameters of a model, without those of a frozen encoder. Nothing is allocated."""
    values = training.values
    tower = 0
    if values["encoder"] in pretrained_encoders():
        if not values["freeze_encoder"]:
            tower = int(1e6 * float(ENCODERS[values["encoder"]].card.parameters.split()[0]))
        values |= {"encoder": "sequence"}  # stands for it: what is around the pretrained network is about as large
    with torch.device("meta"):
        train = cli.take(TrainConfig, values)
        model = NoiseCondScoreModel(cli.take(ModelConfig, values), cli.take(SamplerSettings, values), train)
    return sum(p.numel() for p in model.parameters()) + tower


def free_bytes(out: Path) -> int:
    """What the disk has free on which a folder lies, or would."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def format_bytes(count: float) -> str:
    """A number of bytes to read, e.g. 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
