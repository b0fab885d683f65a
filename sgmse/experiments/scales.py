"""Scales: how big the networks, trainings and test sets of a plan are. Never what is varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgmse.common.errors import UserError
from sgmse.encoders import ENCODERS
from sgmse.experiments.catalogue import CONFIGS, EXPERIMENTS, SETS, read_train_settings
from sgmse.experiments.records import make_record, require
from sgmse.settings import cli

BASES = ("bridge", "sgmse_plus")
VALID = "valid"  # the set on which guidance, steps and checkpoint are chosen
_Base = Literal["bridge", "sgmse_plus"]
_Level = Literal["seed", "source", "file"]


@dataclass(frozen=True)
class Figures:
    """What was measured of a scale, for forecasts; what nobody measured is absent."""

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


@dataclass(frozen=True)
class Scale:
    """configs/experiments/scales/NAME.yaml. Settings of `bases` and `encoders` are laid over those of `train`."""

    items: dict[str, int]
    """number of items by test set, for those that are built"""
    steps: dict[_Base, list[int]]
    """N of the sampler to choose among, by base"""
    name: str = ""
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
    sizes_from: str | None = None
    """a file of configs/ whose settings are laid below `train`"""
    not_taken: list[str] = field(default_factory=list)
    """settings of that file that are left out"""
    figures: Figures = field(default_factory=Figures)


def encoder_kind(values: Mapping[str, Any]) -> str:
    """The name of the encoder; `clap_trained` for a pretrained one that is trained along."""
    name: str = values["encoder"]
    return f"{name}_trained" if name in pretrained_encoders() and not values["freeze_encoder"] else name


def pretrained_encoders() -> list[str]:
    return [name for name, encoder in ENCODERS.items() if encoder.card.pretrained]


def load_scale(name: str, folder: Path = EXPERIMENTS / "scales") -> Scale:
    """The scale `name`, or that in the file NAME.yaml. Raises `UserError` for one that cannot be understood."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.yaml"))
        require([name], known, "--scale ", "scale", f" (there are {', '.join(known)})")
    content = cli.read_yaml(path) | {"name": path.stem}
    scale = make_record(Scale, content, path)
    figures = make_record(Figures, content.get("figures", {}), path, "figures: ")
    if figures.spread and len(figures.spread) < 3:
        raise UserError(f"{path}: figures: spread {figures.spread}: seed, source, file are needed")
    sets = {one: one for one in SETS} | scale.sets
    kinds = ("none", *ENCODERS, *(f"{one}_trained" for one in pretrained_encoders()))
    require(scale.sets, SETS, f"{path}: sets: ", "test set")
    require(scale.items, (*sets.values(), VALID), f"{path}: items: ", "test set")
    require(scale.encoders, kinds, f"{path}: encoders: ", "kind of encoder")
    for where, needed, given in (("items", {*sets.values(), VALID}, scale.items), ("steps", {*BASES}, scale.steps)):
        for missing in sorted(needed - given.keys()):
            raise UserError(f"{path}: {where}: {missing} is missing; add `{missing}: NUMBER`")
    if min([*scale.items.values(), *(n for tried in scale.steps.values() for n in tried or [0])]) < 1:
        raise UserError(f"{path}: items and steps: whole numbers from 1 on are needed")
    content |= {"train": _read_sizes(path, scale) | read_train_settings(scale.train, path)}
    for part in ("bases", "encoders"):
        given = getattr(scale, part).items()
        content[part] = {one: read_train_settings(settings, path, f"{part}: {one}") for one, settings in given}
    return Scale(**content | {"sets": sets, "figures": figures})


def _read_sizes(path: Path, scale: Scale) -> dict[str, Any]:
    """The settings of another config file that this scale takes: all but `not_taken`."""
    if scale.sizes_from is None:
        return {}
    source = CONFIGS / scale.sizes_from
    if not source.is_file():
        raise UserError(f"{path}: sizes_from {scale.sizes_from}: no such file below {CONFIGS.name}/")
    taken = read_train_settings(cli.read_yaml(source), source)
    for name in scale.not_taken:
        if taken.pop(name, None) is None:
            raise UserError(f"{path}: not_taken: {source.name} has no {name}; leave it out")
    return taken
