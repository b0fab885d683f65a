"""Scales: how big the networks, trainings and test sets of a plan are. Never what is varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sgmse import cli
from sgmse.encoders import ENCODERS, encoder_class
from sgmse.errors import UserError
from sgmse.experiments.catalogue import CONFIGS, EXPERIMENTS, SETS, nearest, train_parser

BASES = ("bridge", "sgmse_plus")
VALID = "valid"  # the set on which guidance, steps and checkpoint are chosen


@dataclass(frozen=True)
class Figures:
    """What was measured of a scale, for estimates; what nobody measured is absent.

    Attributes:
        measured: on what and how.
        seconds_per_step: of a training step, by base and kind of encoder.
        seconds_per_pass: a network pass over one second of audio, by base.
        item_seconds: mean length of a test item.
        sources: noise recordings in a set, where they are fewer than its items.
        spread: standard deviations of a paired PESQ difference: `seed`, `source` and `file`; spread_measured: where.
    """

    measured: str = ""
    seconds_per_step: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds_per_pass: Mapping[str, float] = field(default_factory=dict)
    item_seconds: float = 3.0
    sources: Mapping[str, int] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    spread_measured: str = ""


@dataclass(frozen=True)
class Scale:
    """configs/experiments/scales/NAME.yaml.

    Attributes:
        train: settings of train.py, laid over base and experiment; `bases` and `encoders` over these, for experiments
            of one base or one kind of encoder.
        sets: test set of an experiment → the one that stands for it here. items: how many items a built set holds.
        steps: N of the sampler to choose among, by base.
        data_dir: where prepared corpora lie unless something else is named; None: the embedded corpus.
    """

    name: str
    train: Mapping[str, Any]
    bases: Mapping[str, Mapping[str, Any]]
    encoders: Mapping[str, Mapping[str, Any]]
    sets: Mapping[str, str]
    items: Mapping[str, int]
    steps: Mapping[str, tuple[int, ...]]
    data_dir: str | None = None
    figures: Figures = field(default_factory=Figures)


def encoder_kind(values: Mapping[str, Any]) -> str:
    """The name of the encoder; `clap_trained` for a pretrained one that is trained along."""
    name: str = values["encoder"]
    return name if values["freeze_encoder"] or name not in pretrained() else trained(name)


def trained(name: str) -> str:
    """The kind of encoder that a pretrained one is when it is trained along."""
    return f"{name}_trained"


def pretrained() -> list[str]:
    return [name for name in ENCODERS if encoder_class(name).card.pretrained]


def load_scale(name: str, folder: Path = EXPERIMENTS / "scales") -> Scale:
    """The scale `name`, or that in the file NAME.yaml. Raises `UserError` for one that cannot be understood."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.yaml"))
        raise UserError(f"--scale {name}: no such scale{nearest(name, known)} (there are {', '.join(known)})")
    content = cli.read_yaml(path)
    allowed = {f.name for f in fields(Scale)} - {"name"} | {"sizes_from", "not_taken"}
    for key in content:
        if key not in allowed:
            raise UserError(f"{path}: no such setting: {key}{nearest(str(key), sorted(allowed))}")
    train = _sizes(path, content) | _settings(content.get("train"), path, "train")
    bases = _mapping(content, "bases", BASES, path)
    bases = {base: _settings(given, path, base) for base, given in bases.items()}
    encoders = _mapping(content, "encoders", ("none", *ENCODERS, *map(trained, pretrained())), path)
    encoders = {kind: _settings(given, path, kind) for kind, given in encoders.items()}
    sets = {known: known for known in SETS} | _mapping(content, "sets", SETS, path)
    items = _mapping(content, "items", (*sets.values(), VALID), path)
    steps = _mapping(content, "steps", BASES, path)
    steps = {base: tuple(_counts(path, "steps", tried)) for base, tried in steps.items()}
    for where, names, given in (("items", (*sets.values(), VALID), items), ("steps", BASES, steps)):
        for needed in names:
            if needed not in given:
                raise UserError(f"{path}: {where}: {needed} is missing; add `{needed}: NUMBER`")
    _counts(path, "items", list(items.values()))
    figures = Figures(**_figures(content, path))
    return Scale(path.stem, train, bases, encoders, sets, items, steps, content.get("data_dir"), figures)


def _figures(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Text for what says how they were measured, numbers for the others, one or one per name."""
    figures = _mapping(content, "figures", [f.name for f in fields(Figures)], path)
    for name, value in figures.items():
        wanted = str if name in ("measured", "spread_measured") else (int, float)
        values = [value]
        while any(isinstance(one, dict) for one in values):
            values = [inner for one in values for inner in (one.values() if isinstance(one, dict) else [one])]
        if not all(isinstance(one, wanted) for one in values):
            raise UserError(f"{path}: figures: {name} {value}: {'text' if wanted is str else 'numbers'} needed")
    return figures


def _sizes(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of another config file that this scale takes: all but `not_taken`."""
    if "sizes_from" not in content:
        return {}
    source = CONFIGS / str(content["sizes_from"])
    if not source.is_file():
        raise UserError(f"{path}: sizes_from {content['sizes_from']}: no such file below {CONFIGS.name}/")
    taken = _settings(cli.read_yaml(source), source, "")
    for name in content.get("not_taken") or []:
        if taken.pop(name, None) is None:
            raise UserError(f"{path}: not_taken: {source.name} has no {name}; leave it out")
    return taken


def _settings(value: Any, path: Path, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {where} {value}: settings of train.py are needed, e.g. `{where}: {{nf: 24}}`")
    return cli.checked(value or {}, train_parser(), path)


def _mapping(content: Mapping[str, Any], key: str, known: Any, path: Path) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} {value}: lines such as `NAME: VALUE` are needed")
    for name in value:
        if name not in known:
            raise UserError(f"{path}: {key}: {name}: unknown{nearest(str(name), list(known))}")
    return value


def _counts(path: Path, where: str, values: Any) -> list[int]:
    if not isinstance(values, list) or not values or any(not isinstance(n, int) or n < 1 for n in values):
        raise UserError(f"{path}: {where} {values}: whole numbers from 1 on are needed")
    return values
