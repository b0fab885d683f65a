"""A model with its seeds and baselines, enhanced and scored under every reference protocol that a test set allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import read_table, write_csv
from sgmse.diagnostics.differences import BASELINE
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, sampler_name
from sgmse.enhancement.engine import Engine, enhance_and_score, score_noisy
from sgmse.enhancement.lookup import check_inputs, open_all_protocols
from sgmse.enhancement.protocols import PROTOCOLS
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.test_set import TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation.results import NOISY, Results
from sgmse.evaluation.scores import Score
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.model.pretrained import find_model, folder_facts, run_folder
from sgmse.settings.checks import check_sampler
from sgmse.settings.config import CONDITIONING, DataConfig, ModelConfig, TrainConfig
from sgmse.settings.yaml_files import read_yaml
from sgmse.training.resumption import CURVES, SETTINGS, read_validations

KEY = ["checkpoint", "system"]
COLUMNS = [*KEY, "seed", "file", "kind", "source", "snr_db", *metrics.MAIN, "reason"]
COLUMNS += ["leak", "leak_shared", "nfe", "passes", "guidance_scale", "N"]
_TYPES = dict.fromkeys(("snr_db", *metrics.MAIN, "leak", "guidance_scale"), "float")
_TYPES |= {"seed": "Int64", "leak_shared": "boolean", "nfe": "int", "passes": "int", "N": "int"}
# scores.csv has called two of the protocols so from the start; readers of older and of newer ones find the same words
FILE_WORDS = {"disjoint": "matched", "none": "null"}
STEP_TOLERANCE = 0.05  # trainings by the clock never end at the same step
_WITHOUT_EFFECT = {"num_workers", "num_eval_files", "num_valid_items", "val_every_n_steps", "save_every_n_steps"}
_WITHOUT_EFFECT |= {"device", "compile", "seed", "ckpt", "run_dir", "log_dir", "nolog", "logger"}  # on the weights
_WITHOUT_EFFECT |= {"wandb_name", "wandb_group", "wandb_tags", "encoder_checkpoint"}
COMPARED = {f.name for cls in (ModelConfig, DataConfig, TrainConfig) for f in fields(cls)} - _WITHOUT_EFFECT


@dataclass(frozen=True)
class Subject:
    """A checkpoint with what is known of its training.

    Args:
        seed: of the training; its place among the others where that is not known.
        settings: of the run, from config.yaml beside the checkpoint; of the model alone where there is none.
        has_run: whether config.yaml was there.
        steps: of the training as a whole, None if not known.
    """

    path: Path
    model: Enhancer
    seed: int
    settings: Mapping[str, Any]
    has_run: bool
    steps: int | None


Plan = list[tuple[Subject, list[Setting]]]  # under which settings each checkpoint enhances the test set


def load_subjects(paths: Sequence[Path], encoder_checkpoint: str | None) -> list[Subject]:
    """Checkpoints of one model that was trained with several seeds, on the CPU.

    Raises `UserError` where they differ in more than the seed, or not even in that.
    """
    found: list[Subject] = []
    for place, path in enumerate(paths):
        origin = find_model(path)
        model, config = Enhancer.from_checkpoint(origin, "cpu", encoder_checkpoint), run_folder(origin) / SETTINGS
        run = read_yaml(config) if config.is_file() else {}
        seed = run.get("seed", place)
        if not isinstance(seed, int):
            raise UserError(f"{config}: seed {seed} is no whole number; restore it, or move it away")
        if run:  # each seed may have begun with weights of its own
            run["init_ckpt"] = "none" if run.get("init_ckpt") is None else "given"
        one = Subject(path, model, seed, model.settings | run, bool(run), _read_steps(origin))
        differing = compare_settings(found[0], one, COMPARED) if found else []
        if differing:
            raise UserError(
                f"{path}: was not trained as {found[0].path}, which is to differ in its seed alone "
                f"({', '.join(differing)}); examine the two one by one"
            )
        found.append(one)
    seeds = [subject.seed for subject in found]
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"{', '.join(map(str, paths))}: are trainings with the seeds {', '.join(map(str, seeds))}; give one "
            "checkpoint of each seed"
        )
    if len({subject.model.checkpoint_sha256 for subject in found}) < len(found):
        raise UserError(f"{', '.join(map(str, paths))}: hold one training twice; give one checkpoint of each seed")
    return found


def load_baselines(paths: Sequence[Path], ckpt: Path) -> list[Subject]:
    """The checkpoints of the model without reference, which that of `ckpt` is held against.

    Raises `UserError` where it takes a reference, or is the same.
    """
    if ckpt in paths:
        raise UserError(f"{ckpt}: is model and baseline at once; name another --baseline")
    found = load_subjects(paths, None)
    for baseline in found:
        if baseline.model.encoder is not None:
            raise UserError(
                f"{baseline.path}: takes a noise reference, but the baseline is a model trained without one; train it "
                "with --encoder none"
            )
    return found


def compare_settings(one: Subject, other: Subject, names: set[str]) -> list[str]:
    """`name VALUE of other, not VALUE of one` for each of the settings that both name and that differ."""
    both = sorted(names & one.settings.keys() & other.settings.keys())
    return [
        f"{name} {other.settings[name]}, not {one.settings[name]}"
        for name in both
        if one.settings[name] != other.settings[name]
    ]


def compare_training(subject: Subject, baseline: Subject, num_steps: int | None) -> list[str]:
    """In what, beside the reference, the baseline was trained or is sampled otherwise: its value, then the model's.

    num_steps: of the sampler of both; None: each its own.
    """
    found = compare_settings(subject, baseline, COMPARED - CONDITIONING)
    if subject.steps is not None and baseline.steps is not None:
        longer = max(subject.steps, baseline.steps)
        if abs(subject.steps - baseline.steps) > STEP_TOLERANCE * longer:
            found.append(f"{baseline.steps} steps of training, not {subject.steps}")
    if {subject.settings.get("init_ckpt"), baseline.settings.get("init_ckpt")} == {"given"}:
        found.append("the weights with which each began, which may differ")
    own, other = subject.model.sampler, baseline.model.sampler
    if num_steps is None and own.N != other.N:
        found.append(f"{other.N} sampling steps, not {own.N} (equal ones with --N)")
    name, its = (sampler_name(one.model.sampler, one.model.sde) for one in (subject, baseline))
    if its != name:
        return [*found, f"sampler {its}, not {name}"]
    both = [(field, getattr(other, field), getattr(own, field)) for field in sorted(SAMPLERS[name].settings - {"N"})]
    return found + [f"{field} {theirs}, not {ours}" for field, theirs, ours in both if theirs != ours]


def describe_training(models: Sequence[Subject], baselines: Sequence[Subject], unlike: Sequence[str]) -> list[str]:
    """Sentences on how model and baseline were trained; `unlike`: in what they differ beside the reference."""
    several = [one for group in (models, baselines) for one in group if len(group) > 1 and not one.has_run]
    lines = [
        f"{one.path}: no config.yaml of its run, so it counts as a training of its own, of a seed that is not known"
        for one in several
    ]
    if not baselines:
        return lines
    pair = {"baseline": baselines[0], "this model": models[0]}
    steps = [f"{name} {one.steps} steps" for name, one in pair.items() if one.steps is not None]
    lines += [f"training: {', '.join(steps)}"] if steps else []
    if unlike:
        lines.append(f"the baseline differs in more than the reference: {'; '.join(unlike)}")
    if min(len(models), len(baselines)) == 1:
        lines.append("one of the two was trained once: intervals speak of these trainings alone, not of other seeds")
    unknown = [one.path for one in pair.values() if not one.has_run]
    return lines + [
        f"{path}: no config.yaml of its run, so whether both were trained alike is not known" for path in unknown
    ]


def _read_steps(ckpt: Path) -> int | None:
    """How many steps the run behind a checkpoint was trained: a best checkpoint may be an early one."""
    with suppress(UserError):
        rows = read_validations(run_folder(ckpt) / CURVES)
        if rows:
            return max(int(row["step"]) for row in rows)
    step = folder_facts(ckpt).get("steps") if ckpt.is_dir() else checkpoints.read(ckpt).get("global_step")
    return int(step) if isinstance(step, int) else None


def open_set(folder: Path, model: Enhancer, max_files: int | None) -> TestSet:
    """A test set with the references of all protocols that can run on it with a model, all files checked."""
    if not (folder / "noisy").is_dir() or not (folder / "clean").is_dir():
        raise UserError(f"{folder}: holds no noisy/ and clean/ to enhance and score; name a test set")
    test_set = open_all_protocols(folder, max_files)
    for protocol in (name for name in PROTOCOLS if name == "none" or name in test_set.paths):
        check_inputs(test_set, test_set.items, protocol, model.settings["n_fft"], model.settings["sample_rate"])
    for item in test_set.items:
        item.facts  # noqa: B018, refuses what the manifest cannot mean before any work
    if model.cond_drop_prob == 0:
        reason = "the model was trained without dropping references, so it knows no null"
        test_set = replace(test_set, refused=test_set.refused | {"none": reason})
    return test_set


def plan_settings(
    subject: Subject, test_set: TestSet, num_steps: int | None, guidance_scale: float, seed: int
) -> list[Setting]:
    """A setting per protocol that can run; for a model that takes no reference the one without.

    num_steps: of the sampler; None: as stored. Raises `UserError` where the sampler cannot take so many.
    """
    model = subject.model
    sampler = model.sampler if num_steps is None else replace(model.sampler, N=num_steps)
    check_sampler(sampler, model.objective.name)
    if model.encoder is None:
        return [Setting(sampler, protocol="none", seed=seed)]
    scales = {protocol: 0.0 if protocol == "none" else guidance_scale for protocol in test_set.runnable}
    return [
        Setting(sampler, GuidanceSettings(guidance_scale=scale), protocol, seed) for protocol, scale in scales.items()
    ]


def describe_refused(test_set: TestSet, has_baseline: bool) -> list[str]:
    """Which protocols do not run, or not for every file, and why."""
    lines = [f"{FILE_WORDS.get(name, name)} does not run: {reason}" for name, reason in test_set.refused.items()]
    for name, paths in test_set.paths.items():
        found, count = sum(paths[item.name] is not None for item in test_set.items), len(test_set.items)
        if found < count:
            lines.append(f"{FILE_WORDS.get(name, name)} runs for {found} of {count} files, the others have no match")
    return lines if has_baseline else [*lines, "no baseline runs: name one with --baseline"]


def score_leaks(test_set: TestSet, results: Results, rate: int, seed: int, jobs: int) -> None:
    """Add how much each reference shares with the noise of its mixture, for protocols that have no such rows yet."""
    for protocol in test_set.runnable:
        key = f"leak {protocol}"
        if not results.files("", key):
            leaks = test_set.leaks(protocol, rate, seed, jobs)
            results.add(
                {"checkpoint": "", "setting": key, "protocol": protocol, "file": name}
                | {"leak": round(leak.peak, 4), "leak_shared": leak.shared}
                for name, leak in leaks.items()
            )


def score_plan(plan: Plan, test_set: TestSet, batch_size: int, device: str, results: Results, score: Score) -> None:
    """Enhance and score what is not there yet: the noisy files, models under each protocol, and baselines."""
    score_noisy(test_set, results, score, Engine(plan[0][0].model, batch_size))
    for subject, settings in plan:
        engine = Engine(subject.model.to(device), batch_size)
        enhance_and_score(engine, test_set, settings, results, score)
        subject.model.cpu()


def collect_scores(plan: Plan, results: Results) -> pd.DataFrame:
    """`COLUMNS`: the rows of the noisy files and of these checkpoints under these settings, in this order.

    The metrics that were asked for beside the main ones come last. Files that have no reference under a protocol, or a
    silent one, have no row there. system: the protocol, "baseline" or "noisy".
    """
    rows = results.frame()
    is_leak = rows["setting"].str.startswith("leak ")
    leaks = rows.loc[is_leak, ["protocol", "file", "leak", "leak_shared"]].rename(columns={"protocol": "system"})
    keys: list[tuple[str, str, str, int | None]] = [("", NOISY, NOISY, None)]
    for subject, settings in plan:
        sha, is_baseline = subject.model.checkpoint_sha256, subject.model.encoder is None
        keys += [(sha, one.key, BASELINE if is_baseline else one.protocol, subject.seed) for one in settings]
    wanted = pd.DataFrame(keys, columns=["checkpoint", "setting", "system", "seed"])
    rows = wanted.merge(rows.drop(columns=["leak", "leak_shared"]), on=["checkpoint", "setting"])
    needs_reference = ~rows["system"].isin([NOISY, BASELINE, "none"])
    rows = rows[~(needs_reference & rows["is_null"].astype(bool))].merge(leaks, "left", on=["system", "file"])
    asked = [name for name in metrics.names_in(rows.columns) if name not in COLUMNS]
    return rows[[*COLUMNS, *asked]].astype(_TYPES | dict.fromkeys(asked, "float"))


def write_scores(frame: pd.DataFrame, path: Path) -> None:
    write_csv(frame.assign(system=frame["system"].replace(FILE_WORDS)), path)


def read_scores(path: Path) -> pd.DataFrame:
    """The table that `write_scores` wrote. Raises `UserError` for any other one."""
    types = dict.fromkeys(COLUMNS, "str") | _TYPES
    remedy, empty = "let scripts/reference_use.py write it anew", {name: [""] for name in _TYPES}
    frame = read_table(path, [], remedy, dtype=types, keep_default_na=False, na_values=empty)
    asked = list(frame.columns[len(COLUMNS) :])
    if list(frame.columns[: len(COLUMNS)]) != COLUMNS or asked != metrics.names_in(asked):
        raise UserError(f"{path}: has other columns than scripts/reference_use.py writes; {remedy}")
    if frame.duplicated([*KEY, "file"]).any():
        raise UserError(f"{path}: holds a file twice; {remedy}")
    return frame.assign(system=frame["system"].replace({word: name for name, word in FILE_WORDS.items()}))
