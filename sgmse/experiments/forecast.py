"""A plan before anything of it is done: what it trains, costs and could show, and what would make it fail."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.data.corpora.manifest import MANIFEST
from sgmse.data.corpora.published import NOISE_CORPORA
from sgmse.data.testsets import build
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS, weights
from sgmse.evaluation import statistics
from sgmse.evaluation.statistics import Spread
from sgmse.evaluation.tables import NOTHING
from sgmse.experiments import sets
from sgmse.experiments.catalogue import NOISE_OF_SET, VOICEBANK, Experiment
from sgmse.experiments.comparisons import group_scores
from sgmse.experiments.plan import Plan, Training, merge_plans
from sgmse.experiments.results import RESULTS, read_results
from sgmse.experiments.scales import PRETRAINED, Scale, encoder_kind
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
    merge_plans(out, plan)
    check_corpora(plan)
    for folders, what in ((plan.data.speech_dir, "speech"), (plan.data.noise_dir, "noise")):
        for split in ("train", "valid") if folders else ():
            corpora.split_files(folders, split, what)
    for training in plan.trainings.values():
        values = training.values
        if values["encoder"] in weights.PUBLISHED and not training.smoke:
            weights.locate(weights.PUBLISHED[values["encoder"]], values["encoder_checkpoint"])
    left_out = sets.left_out((*plan.sets, *plan.choice_sets), plan.data)
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
            f"{folder}: lacks {', '.join(absent)}, prepared; run {', '.join(commands)}, or name another --data_dir"
        )


def list_corpora(plan: Plan) -> list[str]:
    """The corpora that trainings and test sets of a plan are made of."""
    ready = Path(plan.data.test_sets) if plan.data.test_sets else None
    built = [name for name in (*plan.sets, *plan.choice_sets) if ready is None or not (ready / name).is_dir()]
    noise = [NOISE_OF_SET[name] for name in built if name in NOISE_OF_SET]
    trained = [corpus for training in plan.trainings.values() for corpus in training.corpora]
    return list(dict.fromkeys([*([VOICEBANK] if built else []), *trained, *noise]))


def list_hypotheses(catalogue: Mapping[str, Experiment]) -> str:
    """IDs and hypotheses, for --list."""
    return tabulate([(name, experiment.hypothesis) for name, experiment in catalogue.items()], tablefmt="plain")


def describe_plan(plan: Plan, scale: Scale, out: Path) -> str:
    """The plan as it is printed. Scores in `out`/results.csv tell of the spread; else what the scale has measured."""
    seeds, ids, trained = " ".join(map(str, plan.seeds)), len(plan.experiments), len(plan.trainings)
    head = f"scale {plan.scale}, seeds {seeds}: {ids} experiments with {trained} trainings, each with every seed"
    trainings, evaluations = [], []
    for name, training in plan.trainings.items():
        names = " ".join(plan.experiments_of(name)) + (" (random weights: smoke)" if training.smoke else "")
        hours = _format_hours(training_hours(plan, training, scale))
        trainings.append((name, training.values["max_steps"], hours, names))
    for name, experiment in plan.experiments.items():
        w = " ".join(f"{value:g}" for value in experiment.guidance_scale)
        steps, tested = " ".join(map(str, plan.steps[name])), " ".join(plan.sets_of(name))
        evaluations.append((name, w, steps, experiment.baseline or NOTHING, tested))
    valid, files = (
        ", ".join(f"{name} {count_items(plan, scale, name)[0]}" for name in names)
        for names in (plan.choice_sets, plan.sets)
    )
    return "\n".join(
        [
            head,
            tabulate(trainings, ("training", "steps", "hours", "for"), "plain", disable_numparse=True),
            "",
            tabulate(evaluations, ("experiment", "w", "N", "baseline", "test sets"), "plain", disable_numparse=True),
            f"w, N and checkpoint are chosen on the files of {valid}; test files: {files}",
            "",
            *_list_remarks(plan),
            *_list_costs(plan, scale, out),
            *_list_differences(plan, scale, out),
        ]
    )


def _list_remarks(plan: Plan) -> Iterator[str]:
    """Where the scale makes an experiment another one than it is at full size."""
    for name, experiment in plan.experiments.items():
        values, baseline = plan.training(name).values, experiment.baseline
        theirs = values if baseline is None else plan.training(baseline).values
        if theirs["max_steps"] != values["max_steps"]:
            yield (
                f"note: {name} gets {values['max_steps']} steps and its baseline {baseline} {theirs['max_steps']}: "
                "unequal budgets decide no criterion"
            )
        wanted, there = experiment.train.get("cross_attention_resolutions"), values["cross_attention_resolutions"]
        if wanted and wanted != there:
            yield f"note: {name} attends at {there}, not {wanted}: the network has no more levels"
        if experiment.train.get("film") and not values["film"]:
            yield f"note: {name} changes nothing: the light network scales and shifts after the norm always"


def _list_costs(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    training = sum(training_hours(plan, one, scale) for one in plan.trainings.values()) * len(plan.seeds)
    enhancing = sum(evaluation_hours(plan, name, scale) for name in plan.experiments) * len(plan.seeds)
    yield f"hours: training {_format_hours(training)}, enhancing {_format_hours(enhancing)}"
    if math.isnan(training + enhancing):
        yield (
            "  unknown where nobody measured: the validation.csv of a run on your machine has steps and seconds; write "
            "seconds per step into the scale file"
        )
    if scale.figures.measured:
        yield f"  measured {scale.figures.measured}; scoring and loading come on top"
    yield f"disk: {format_bytes(disk_bytes(plan, scale))} at most, {format_bytes(free_bytes(out))} free"


def _list_differences(plan: Plan, scale: Scale, out: Path) -> Iterator[str]:
    """How small a difference the test sets can show."""
    spread, origin = _find_spread(plan, out)
    if spread is None and scale.figures.spread:
        spread, origin = Spread(**scale.figures.spread), scale.figures.spread_measured
    if spread is None:
        yield "smallest PESQ difference that the files can show: unknown, no spread is known before the first results"
        return
    shown = []
    for name in plan.sets:
        least = statistics.smallest_difference(spread, *count_items(plan, scale, name), len(plan.seeds))
        shown.append(f"{name} {'unknown' if math.isnan(least) else f'{least:.3f}'}")
    yield f"smallest PESQ difference that these files show with 80 % power: {', '.join(shown)} (spread {origin})"
    if len(plan.seeds) == 1:
        yield "  true of these trainings alone: one seed tells nothing of how much others would differ"


def _find_spread(plan: Plan, out: Path) -> tuple[Spread | None, str]:
    """The typical spread of PESQ differences to a baseline in the results that exist, and where it comes from."""
    path, found = out / RESULTS, []
    needed = ("experiment", "set", "seed", "source", "file", "pesq")
    scores = group_scores(read_results(path, needed, may_be_absent=True))
    for (name, test_set), rows in scores.items():
        baseline = plan.experiments[name].baseline if name in plan.experiments else None
        if baseline is not None and (baseline, test_set) in scores:
            found.append(statistics.spread(statistics.paired(rows, scores[baseline, test_set], "pesq")))
    if not found:
        return None, ""
    deviations = np.sqrt(np.mean(np.square([astuple(one) for one in found]), axis=0))  # variances are averaged
    return Spread(*map(float, deviations)), f"of {len(found)} comparisons in {path}"


def count_items(plan: Plan, scale: Scale, name: str) -> tuple[int, int]:
    """How many files and how many noise recordings a set of a plan holds, or will hold once it is built."""
    folder = sets.ready(name, plan.data)
    if folder is None or not (folder / build.MANIFEST).is_file():
        files = plan.items[name]
        return files, min(files, scale.figures.sources.get(name, files))
    rows = build.read_rows(folder)
    return len(rows), len({row.get("source") or row.get("noise") or row["id"] for row in rows})


def training_hours(plan: Plan, training: Training, scale: Scale) -> float:
    """Of one seed with its validations; NaN where the scale has no seconds per step of this base and encoder."""
    values, figures = training.values, scale.figures
    base = plan.experiments[plan.experiments_of(training.name)[0]].base
    steps, seconds = values["max_steps"], figures.seconds_per_step.get(base, {}).get(encoder_kind(values), math.nan)
    audio_s = steps // values["val_every_n_steps"] * values["num_eval_files"] * figures.item_seconds
    passes = _evaluations(base, values["N"]) * (2 if training.is_conditioned else 1)  # with the reference and without
    return float(steps * seconds + audio_s * passes * figures.seconds_per_pass.get(base, 0)) / 3600


def evaluation_hours(plan: Plan, name: str, scale: Scale) -> float:
    """Of one seed: every candidate on `valid`, then the test sets with as many steps as the dearest candidate.

    NaN where the scale has no seconds per pass of this base. Scoring and the loading of data are not counted.
    """
    experiment = plan.experiments[name]
    tried = [
        _evaluations(experiment.base, steps) * (1 if w in (0, 1) else 2)  # a guided one takes two passes
        for w in experiment.guidance_scale
        for steps in plan.steps[name]
    ]
    passes = count_items(plan, scale, experiment.choice_set)[0] * sum(tried) * CHECKPOINTS_OF_CHOICE
    passes += sum(count_items(plan, scale, one)[0] for one in plan.sets_of(name)) * max(tried)
    per_pass = scale.figures.seconds_per_pass.get(experiment.base, math.nan)
    return passes * scale.figures.item_seconds * per_pass / 3600


def _evaluations(base: str, steps: int) -> int:
    """Of the network per item; SGMSE+'s sampler asks for a predictor and a corrector in each step."""
    return steps * (2 if base == "sgmse_plus" else 1)


def disk_bytes(plan: Plan, scale: Scale) -> int:
    """What the checkpoints, test sets and enhanced files of a plan take, at most."""
    checkpoints = sum(checkpoint_bytes(training) for training in plan.trainings.values()) * len(plan.seeds)
    built = sum(count_items(plan, scale, name)[0] for name in (*plan.sets, *plan.choice_sets)) * FILES_PER_ITEM
    tested = sum(count_items(plan, scale, one)[0] for name in plan.experiments for one in plan.sets_of(name))
    return checkpoints + int(scale.figures.item_seconds * BYTES_PER_SECOND * (built + tested * len(plan.seeds)))


def checkpoint_bytes(training: Training) -> int:
    """Of all checkpoints that one training keeps: last, the best by PESQ and by SI-SDR, and one every so many steps."""
    values = training.values
    kept = 1 + 2 * (values["num_eval_files"] > 0) + values["max_steps"] // values["save_every_n_steps"]
    return int(kept * count_parameters(training) * BYTES_PER_PARAMETER)


def count_parameters(training: Training) -> int:
    """Trained parameters of a model, without those of a frozen encoder. Nothing is allocated."""
    values = training.values
    tower = 0
    if values["encoder"] in PRETRAINED:
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
    """A number of bytes to read, e.g. 1.50GB."""
    return tqdm.format_sizeof(count, "B")


def _format_hours(hours: float) -> str:
    if math.isnan(hours):
        return "unknown"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
