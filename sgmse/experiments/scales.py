"""Scales: how big networks, trainings and test sets are, never what is varied; and an experiment's settings at one."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS
from sgmse.experiments.catalogue import (
    CHOICE_SETS,
    CONFIGS,
    EXPERIMENTS,
    SETS,
    VALID_SWAP,
    Experiment,
    make_declared,
    read_train_settings,
    require,
    train_parser,
)
from sgmse.settings import cli
from sgmse.settings.checks import DYNAMIC_MIXING, check_model, check_typed
from sgmse.settings.config import CONDITIONING, ModelConfig, TrainConfig

FULL_RESOLUTION = 256  # nominal, at the first level of the network
PRETRAINED = [name for name, encoder in ENCODERS.items() if encoder.card.pretrained]
_Base = Literal["bridge", "sgmse_plus"]
_Level = Literal["seed", "source", "file"]


@dataclass(frozen=True)
class Figures:
    """What was measured of a scale, for forecasts; what nobody measured is absent"""

    measured: str = ""
    """on what and how"""
    seconds_per_step: dict[_Base, dict[str, float]] = field(default_factory=dict)
    """of a training step, by base and kind of encoder"""
    seconds_per_pass: dict[_Base, float] = field(default_factory=dict)
    """of a network pass over one second of audio, by base"""
    item_seconds: float = 3.0
    """mean length of a test item"""
    sources: dict[str, int] = field(default_factory=dict)
    """noise recordings in a set, where they are fewer than its items"""
    spread: dict[_Level, float] = field(default_factory=dict)
    """standard deviations of a paired PESQ difference: of seeds, of sources and of files"""
    spread_measured: str = ""
    """where the spread was measured"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """configs/experiments/scales/NAME.yaml. Settings of `bases` and `encoders` are laid over those of `train`."""

    items: dict[str, int]
    """number of items by test set, for those that are built"""
    steps: dict[_Base, list[int]]
    """N of the sampler to choose among, by base"""
    name: str = ""
    preset: str | None = None
    """NAME of configs/NAME.yaml, over whose settings `train` is laid, but for the process, its steps and the mixing"""
    train: dict[str, Any] = field(default_factory=dict)
    """settings of train.py, laid over base and experiment"""
    bases: dict[_Base, dict[str, Any]] = field(default_factory=dict)
    """settings of train.py for experiments of one base"""
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    """settings of train.py for experiments with one kind of encoder"""
    sets: dict[str, str] = field(default_factory=dict)
    """test set of an experiment and the one that stands for it here"""
    data_dir: str | None = None
    """where prepared corpora lie unless something else is named; without it the embedded corpus serves"""
    figures: Figures = field(default_factory=Figures)


def encoder_kind(values: Mapping[str, Any]) -> str:
    """The name of the encoder; `clap_trained` for a pretrained one that is trained along."""
    name: str = values["encoder"]
    return f"{name}_trained" if name in PRETRAINED and not values["freeze_encoder"] else name


def load_scale(name: str, folder: Path = EXPERIMENTS / "scales") -> Scale:
    """The scale `name`, or that in the file NAME.yaml. Raises `UserError` for one that cannot be understood."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.yaml"))
        require([name], known, "--scale ", "scale", f" (there are {', '.join(known)})")
    content = cli.read_yaml(path) | {"name": path.stem}
    figures = make_declared(Figures, content.pop("figures", {}), path, "figures: ")
    scale = make_declared(Scale, content, path)
    if figures.spread and len(figures.spread) < 3:
        raise UserError(f"{path}: figures: spread {figures.spread}: seed, source, file are needed")
    sets = {one: one for one in SETS} | scale.sets
    bases = typing.get_args(_Base)
    require(scale.bases, bases, f"{path}: bases: ", "base")
    require(scale.sets, SETS, f"{path}: sets: ", "test set")
    require(scale.items, (*sets.values(), *CHOICE_SETS), f"{path}: items: ", "test set")
    kinds = ("none", *ENCODERS, *(f"{one}_trained" for one in PRETRAINED))
    require(scale.encoders, kinds, f"{path}: encoders: ", "kind of encoder")
    for missing in sorted({*bases} - scale.steps.keys()):
        raise UserError(f"{path}: steps: {missing} is missing; add `{missing}: [NUMBERS]`")
    if min([*scale.items.values(), *(n for tried in scale.steps.values() for n in tried or [0])]) < 1:
        raise UserError(f"{path}: items and steps: whole numbers from 1 on are needed")
    for one in ("swap", VALID_SWAP):
        if scale.items.get(one, 0) % 2:
            raise UserError(f"{path}: items: {one}: a swap is two items of one mixture; give an even number")

    preset = {}
    if scale.preset is not None:
        require([scale.preset], (file.stem for file in CONFIGS.glob("*.yaml")), f"{path}: preset: ", "preset")
        preset = _preset_settings(scale.preset)
    sizes = {name: value for name, value in preset.items() if name not in {*DYNAMIC_MIXING, "sde", "N"}}
    laid: dict[str, Any] = {"train": sizes | read_train_settings(scale.train, path)}
    for part in ("bases", "encoders"):
        given = getattr(scale, part).items()
        laid[part] = {one: read_train_settings(settings, path, f"{part}: {one}") for one, settings in given}
    return replace(scale, sets=sets, figures=figures, **laid)


@cache
def default_settings() -> dict[str, Any]:
    """Every setting of train.py as it is by default."""
    values = vars(train_parser().get_defaults())
    values.pop("config")
    return values


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of train.py: those given, the others as they are by default."""
    return {**default_settings(), **settings}


@cache
def _preset_settings(name: str) -> dict[str, Any]:
    path = CONFIGS / f"{name}.yaml"
    return read_train_settings(cli.read_yaml(path), path)


def resolve_settings(experiment: Experiment, scale: Scale | None = None) -> dict[str, Any]:
    """The settings of the training, ready to be written as a config file: base < experiment < scale.

    Raises `UserError`, naming the experiment, for settings that cannot work together or that the scale would change.
    """
    typed = _preset_settings(experiment.base) | dict(experiment.train)
    if scale is not None:
        typed = _scale_settings(experiment, typed, scale)
    model, sampler, train = _take_parts(typed)
    try:
        check_bounds(train)
        check_model(model, sampler)
        check_typed(set(typed), model, sampler, train)
    except UserError as error:
        raise UserError(f"{experiment.id}: {error}") from None
    guided = any(w != 1 for w in experiment.guidance_scale)
    if guided and (model.encoder == "none" or model.cond_drop_prob == 0):
        what = "has no encoder" if model.encoder == "none" else "drops no reference in training"
        raise UserError(f"{experiment.id}: {what}, so guidance_scale must be 1; change one of the two")
    return typed


def _scale_settings(experiment: Experiment, typed: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    kind = encoder_kind(with_defaults(typed))
    sizes = {**scale.train, **scale.bases.get(experiment.base, {}), **scale.encoders.get(kind, {})}
    values = dict(typed)
    for name, value in sizes.items():
        if name in experiment.train and experiment.train[name] != value:
            raise UserError(
                f"{experiment.id}: {name} is {experiment.train[name]}, but the scale {scale.name} makes it {value}; a "
                "scale must not change what an experiment varies, so take it out of one of them"
            )
        try:  # a size that belongs to another encoder or process is left out
            check_typed({name, *values}, *_take_parts(values))
            values[name] = value
        except UserError:
            continue
    if values.get("film") and with_defaults(values)["backbone"] == "light":
        del values["film"]  # it scales and shifts after the norm always
    wanted = values.get("cross_attention_resolutions")
    if wanted:
        levels = [FULL_RESOLUTION >> level for level in range(len(with_defaults(values)["ch_mult"]))]
        values["cross_attention_resolutions"] = [resolution for resolution in wanted if resolution in levels]
        if not values["cross_attention_resolutions"]:
            raise UserError(
                f"{experiment.id}: attends at {wanted}, and the network of the scale {scale.name} has {levels}; name "
                "one of these too"
            )
    return values


def _take_parts(typed: Mapping[str, Any]) -> tuple[ModelConfig, SamplerSettings, TrainConfig]:
    values = with_defaults(typed)
    return cli.take(ModelConfig, values), cli.take(SamplerSettings, values), cli.take(TrainConfig, values)


def check_baselines(catalogue: Mapping[str, Experiment]) -> None:
    """Raise `UserError` unless every baseline has no encoder and differs from its experiment in conditioning alone."""
    resolved = {name: with_defaults(resolve_settings(experiment)) for name, experiment in catalogue.items()}
    for name, experiment in catalogue.items():
        values, other = resolved[name], experiment.baseline
        if other is None:
            if values["encoder"] != "none":
                raise UserError(f"{name}: has an encoder but no baseline; name the model to compare it with")
            continue
        theirs = resolved[other]
        if theirs["encoder"] != "none":
            raise UserError(f"{name}: its baseline {other} has the encoder {theirs['encoder']}, not none")
        pairs = [(setting, values[setting], theirs[setting]) for setting in values.keys() - CONDITIONING]
        corpora = [sorted(one.corpora) for one in (experiment, catalogue[other])]
        for setting, own, its in [("corpora", *corpora), *pairs]:
            if own != its:
                raise UserError(
                    f"{name}: has {setting} {own}, its baseline {other} {its}; a baseline may differ in conditioning "
                    "settings only, so use another one"
                )
