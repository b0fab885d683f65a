"""What a plan costs before anything of it is done: steps, hours where they were measured, disk; and what is missing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from sgmse.common.errors import UserError
from sgmse.data.corpora.manifest import MANIFEST
from sgmse.data.corpora.noise import NOISE_CORPORA
from sgmse.data.testsets import build
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS
from sgmse.experiments import sets
from sgmse.experiments.catalogue import NOISE_OF_SET, VOICEBANK, Experiment
from sgmse.experiments.plan import Plan, Training
from sgmse.experiments.scales import VALID, Scale, encoder_kind, pretrained_encoders
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import ModelConfig, TrainConfig

BYTES_PER_PARAMETER = 16  # of a checkpoint: weight, two moments of Adam, averaged weight, each in 32 bit
CHECKPOINTS_OF_CHOICE = 2  # best_pesq.ckpt and last.ckpt are tried
FILES_PER_ITEM = 8  # of a test set: noisy, clean, noise and a reference under five protocols
BYTES_PER_SECOND = 32000  # 16-bit samples at 16 kHz; FLAC makes them fewer


@dataclass(frozen=True)
class Cost:
    """Of a plan. hours: None where no figure of the scale tells. disk: bytes."""

    training_hours: float | None
    evaluation_hours: float | None
    disk: int


def cost(plan: Plan, scale: Scale) -> Cost:
    """What all seeds of a plan take together; scoring and the loading of data are not counted."""
    per_training = [training_hours(plan, training, scale) for training in plan.trainings.values()]
    per_experiment = [evaluation_hours(plan, name, scale) for name in plan.experiments]
    return Cost(_total(per_training, len(plan.seeds)), _total(per_experiment, len(plan.seeds)), disk(plan, scale))


def training_hours(plan: Plan, training: Training, scale: Scale) -> float | None:
    """Of one seed with its validations; None where the scale has no seconds per step of this base and encoder."""
    values, figures = training.values, scale.figures
    base = plan.experiments[training.experiments[0]].base
    seconds = figures.seconds_per_step.get(base, {}).get(encoder_kind(values))
    if seconds is None:
        return None
    steps = values["max_steps"]
    heard = steps // values["val_every_n_steps"] * values["num_eval_files"] * figures.item_seconds
    ways = 1 if values["encoder"] == "none" else 2  # with the reference and without
    enhancing = heard * ways * _evaluations(base, values["N"]) * figures.seconds_per_pass.get(base, 0)
    return float(steps * seconds + enhancing) / 3600


def evaluation_hours(plan: Plan, name: str, scale: Scale) -> float | None:
    """Of one seed: every candidate on `valid`, then the test sets with as many steps as the dearest candidate."""
    experiment = plan.experiments[name]
    per_pass = scale.figures.seconds_per_pass.get(experiment.base)
    if per_pass is None:
        return None
    item = scale.figures.item_seconds * per_pass
    tried = sum(_passes(experiment, w, steps) for w in experiment.guidance_scale for steps in plan.steps[name])
    dearest = max(_passes(experiment, w, max(plan.steps[name])) for w in experiment.guidance_scale)
    chosen = files(plan, VALID) * tried * CHECKPOINTS_OF_CHOICE
    tested = sum(files(plan, one) for one in plan.sets_of(name)) * dearest
    return item * (chosen + tested) / 3600


def files(plan: Plan, name: str) -> int:
    """How many files a set of a plan holds, or will hold."""
    rows = _rows(plan, name)
    return plan.items[name] if rows is None else len(rows)


def sources(plan: Plan, scale: Scale, name: str) -> int:
    """How many noise recordings a set of a plan holds; of one that is not built yet, what the scale says."""
    rows = _rows(plan, name)
    if rows is None:
        return min(plan.items[name], scale.figures.sources.get(name, plan.items[name]))
    return len({row.get("source") or row.get("noise") or row["id"] for row in rows})


def _rows(plan: Plan, name: str) -> list[dict[str, str]] | None:
    """The manifest of a set that exists already, or None."""
    folder = sets.ready(name, plan.data)
    return build.read_rows(folder) if folder is not None and (folder / build.MANIFEST).is_file() else None


def _passes(experiment: Experiment, guidance_scale: float, steps: int) -> int:
    """Network passes per item."""
    return _evaluations(experiment.base, steps) * (1 if guidance_scale in (0, 1) else 2)


def _evaluations(base: str, steps: int) -> int:
    """Of the network per item; SGMSE+'s sampler asks for a predictor and a corrector in each step."""
    return steps * (2 if base == "sgmse_plus" else 1)


def disk(plan: Plan, scale: Scale) -> int:
    """Bytes that the checkpoints, test sets and enhanced files of a plan take, at most."""
    checkpoints = sum(checkpoint_bytes(training) for training in plan.trainings.values()) * len(plan.seeds)
    item = scale.figures.item_seconds * BYTES_PER_SECOND
    built = sum(files(plan, name) for name in (*plan.sets, VALID)) * FILES_PER_ITEM
    enhanced = sum(files(plan, one) for name in plan.experiments for one in plan.sets_of(name)) * len(plan.seeds)
    return checkpoints + int(item * (built + enhanced))


def checkpoint_bytes(training: Training) -> int:
    """Of all checkpoints that one training keeps: last, the best by PESQ and by SI-SDR, and one every so many steps."""
    values = training.values
    kept = 1 + 2 * (values["num_eval_files"] > 0) + values["max_steps"] // values["save_every_n_steps"]
    return int(kept * parameters(training) * BYTES_PER_PARAMETER)


def parameters(training: Training) -> int:
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


def check_corpora(plan: Plan) -> None:
    """Raise `UserError`, with the commands to type, unless the corpora of a plan are prepared."""
    if plan.data.data_dir is None:
        return
    folder = Path(plan.data.data_dir)
    absent = [name for name in corpora(plan) if not (folder / name / MANIFEST).is_file()]
    if absent:
        commands = [f"`python scripts/prepare.py {name}{_source(name)} --out {folder / name}`" for name in absent]
        raise UserError(
            f"{folder}: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not prepared there; run "
            f"{', '.join(commands)}, or name another --data_dir"
        )


def corpora(plan: Plan) -> list[str]:
    """The corpora that trainings and test sets of a plan are made of."""
    ready = Path(plan.data.test_sets) if plan.data.test_sets else None
    built = [name for name in (*plan.sets, VALID) if ready is None or not (ready / name).is_dir()]
    noise = [NOISE_OF_SET[name] for name in built if name in NOISE_OF_SET]
    trained = [corpus for training in plan.trainings.values() for corpus in training.corpora]
    return list(dict.fromkeys([*([VOICEBANK] if built else []), *trained, *noise]))


def _source(corpus: str) -> str:
    """What prepare.py needs for a corpus that it cannot download."""
    return "" if corpus == VOICEBANK or NOISE_CORPORA[corpus].archives else " --source FOLDER_WITH_ITS_CLIPS"


def check_disk(plan: Plan, scale: Scale, out: Path) -> None:
    """Raise `UserError` when the disk that holds `out` has less space than what is still to be written there."""
    there = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and not path.is_symlink())
    needed, space = disk(plan, scale) - there, free(out)
    if needed > space:
        raise UserError(
            f"{out}: the plan takes {size(needed)} more and its disk has {size(space)} free; name another --out, or "
            "fewer experiments or seeds"
        )


def free(out: Path) -> int:
    """Bytes that the disk has free on which a folder lies, or would."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def size(count: float) -> str:
    """A number of bytes to read, e.g. 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _total(hours: list[float | None], seeds: int) -> float | None:
    known = [value for value in hours if value is not None]
    return None if len(known) < len(hours) else seeds * sum(known)
