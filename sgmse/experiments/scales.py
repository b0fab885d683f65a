"""Scales: how big the networks, trainings and test sets of a plan are. Never what is varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.encoders import ENCODERS
from sgmse.evaluation.statistics import Spread
from sgmse.experiments.catalogue import CONFIGS, EXPERIMENTS, SETS, nearest, train_parser
from sgmse.settings import cli

BASES = ("bridge", "sgmse_plus")
VALID = "valid"  # the set on which guidance, steps and checkpoint are chosen
_DEPTHS = {"item_seconds": 0, "seconds_per_pass": 1, "sources": 1, "spread": 1, "seconds_per_step": 2}
"""how many mappings deep the numbers of a figure lie; the others are text"""


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
    return [name for name, encoder in ENCODERS.items() if encoder.card.pretrained]


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
    for name, other in sets.items():
        if not isinstance(other, str):
            raise UserError(f"{path}: sets: {name} {other}: the name of one set is needed")
    items = _mapping(content, "items", (*sets.values(), VALID), path)
    steps = _mapping(content, "steps", BASES, path)
    steps = {base: tuple(_counts(path, "steps", tried)) for base, tried in steps.items()}
    for where, names, given in (("items", (*sets.values(), VALID), items), ("steps", BASES, steps)):
        for needed in names:
            if needed not in given:
                raise UserError(f"{path}: {where}: {needed} is missing; add `{needed}: NUMBER`")
    _counts(path, "items", list(items.values()))
    data_dir = content.get("data_dir")
    if not isinstance(data_dir, str | None):
        raise UserError(f"{path}: data_dir {data_dir}: the name of a folder is needed")
    return Scale(path.stem, train, bases, encoders, sets, items, steps, data_dir, _figures(content, path))


def _figures(content: Mapping[str, Any], path: Path) -> Figures:
    """Text for what says how they were measured, numbers for the others, one or one per name."""
    figures = _mapping(content, "figures", [f.name for f in fields(Figures)], path)
    for name, value in figures.items():
        depth = _DEPTHS.get(name)
        if not (isinstance(value, str) if depth is None else _are_numbers(value, depth)):
            needed = "text" if depth is None else ("a number", "`NAME: NUMBER`", "`BASE: {ENCODER: NUMBER}`")[depth]
            raise UserError(f"{path}: figures: {name} {value}: {needed} is needed")
    levels = [f.name for f in fields(Spread)]
    if figures.get("spread") and figures["spread"].keys() != set(levels):
        raise UserError(f"{path}: figures: spread {figures['spread']}: {', '.join(levels)} are needed")
    return Figures(**figures)


def _are_numbers(value: Any, depth: int) -> bool:
    """Whether `value` is a number from 0 on, or so many mappings deep holds nothing else."""
    if depth == 0:
        return isinstance(value, int | float) and value >= 0
    return isinstance(value, dict) and all(_are_numbers(inner, depth - 1) for inner in value.values())


def _sizes(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of another config file that this scale takes: all but `not_taken`."""
    if "sizes_from" not in content:
        return {}
    source = CONFIGS / str(content["sizes_from"])
    if not source.is_file():
        raise UserError(f"{path}: sizes_from {content['sizes_from']}: no such file below {CONFIGS.name}/")
    taken = _settings(cli.read_yaml(source), source, "")
    left_out = content.get("not_taken") or []
    if not isinstance(left_out, list):
        raise UserError(f"{path}: not_taken {left_out}: a list of settings is needed, e.g. `[backbone]`")
    for name in left_out:
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
