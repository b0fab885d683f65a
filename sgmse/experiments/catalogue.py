"""Experiments as data: one short file per ID in configs/experiments/, opening with its hypothesis."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from sgmse.common.errors import UserError
from sgmse.settings import cli
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, EnhanceConfig

EXPERIMENTS = CONFIGS / "experiments"
NOT_EXPERIMENTS = ("criteria",)
DEFAULT_SETS = ("id", "esc50", "urbansound8k", "nonstationary")
SETS = (*DEFAULT_SETS, "stationary", "talkers", "swap", "dense", "dense_long")
VALID, VALID_SWAP = CHOICE_SETS = ("valid", "valid_swap")  # on which guidance, steps and checkpoint are chosen
VOICEBANK = "voicebank"  # clean speech, and its pairs with noise where nothing else is trained on
CORPORA = (VOICEBANK, "demand", "wham", "audioset", "urbansound8k")
NOISE_OF_SET = {"esc50": "esc50", "urbansound8k": "urbansound8k", "stationary": "demand", "nonstationary": "demand"}
NOISE_OF_SET |= dict.fromkeys(("ood", "dense", "dense_long"), "esc50")  # ood: what a small scale tests in their place
"""The corpus that each set takes its noise from, where corpora are prepared; `id` is VoiceBank-DEMAND's own test."""
_SET_BY_RUNNER = ("seed", "base_dir", "speech_dir", "noise_dir", "ckpt", "run_dir", "log_dir")
_Reference = typing.get_type_hints(EnhanceConfig)["reference"]
Declared = TypeVar("Declared")


@dataclass(frozen=True, kw_only=True)
class ExperimentFile:
    """Settings of an experiment beside those of its training"""

    like: str | None = None
    """ID of the experiment whose file is laid below this one"""
    base: Literal["bridge", "sgmse_plus"] = "bridge"
    """file in configs/ with the objective and its usual sizes"""
    guidance_scale: list[float] = field(default_factory=lambda: [1.0])
    """one number, or several among which the validation set chooses"""
    sets: list[str] = field(default_factory=lambda: list(DEFAULT_SETS))
    """test sets"""
    corpora: list[str] = field(default_factory=lambda: [VOICEBANK])
    """training corpora; VoiceBank-DEMAND alone serves as pairs, else its speech is mixed with the others' noise"""
    baseline: str | None = None
    """ID of the separately trained model without reference; none for such a model itself"""
    versus: list[str] = field(default_factory=list)
    """IDs of further experiments to compare with"""
    reference: _Reference = "disjoint"  # type: ignore[valid-type]
    """protocol of the references of the test sets"""


@dataclass(frozen=True, kw_only=True)
class Experiment(ExperimentFile):
    """What one ID asks, trains and tests. train: settings of train.py, laid over configs/BASE.yaml."""

    id: str
    hypothesis: str
    train: Mapping[str, Any]

    @property
    def needs(self) -> list[str]:
        """The experiments it is compared with."""
        return [*([self.baseline] if self.baseline else []), *self.versus]

    @property
    def choice_set(self) -> str:
        """The validation set that asks what its test sets ask."""
        return VALID_SWAP if self.sets == ["swap"] else VALID


@cache
def train_parser() -> cli.Parser:
    """Knows the names and types of the settings of train.py."""
    return cli.make_parser(TRAIN_GROUPS, "")


@cache
def _file_parser() -> cli.Parser:
    return cli.make_parser([ExperimentFile], "")


def load_experiments(folder: Path = EXPERIMENTS) -> dict[str, Experiment]:
    """Every experiment below `folder`, by its ID, the name of its file.

    Raises `UserError` for a file that cannot be understood: a setting that does not exist or has another type, an
    unknown base, set, corpus or experiment, a circle of `like`, no hypothesis.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem not in NOT_EXPERIMENTS}
    if not paths:
        raise UserError(f"{folder}: holds no experiment; write ID.yaml files (docs/experiments.md)")
    contents = {name: _read_file(path) for name, path in paths.items()}
    found = {name: _make_experiment(name, paths[name], contents) for name in paths}
    for experiment in found.values():
        require(experiment.needs, found, f"{paths[experiment.id]}: ", "experiment")
        if experiment.id in experiment.needs:
            raise UserError(f"{paths[experiment.id]}: is compared with itself; name another baseline or versus")
    return found


def select_experiments(catalogue: Mapping[str, Experiment], ids: Sequence[str]) -> dict[str, Experiment]:
    """The experiments `ids` (none: all) and, before each, those that it is compared with.

    Those that only *they* are compared with are left out, except for baselines. Raises `UserError` for an unknown ID,
    with the nearest that exists.
    """
    require(ids, catalogue, "", "experiment", " (run_experiments.py --list names all)")
    selected: dict[str, Experiment] = {}
    for name in ids or catalogue:
        for other in (*catalogue[name].needs, name):
            baseline = catalogue[other].baseline
            for one in (baseline, other) if baseline else (other,):
                selected.setdefault(one, catalogue[one])
    return selected


def read_train_settings(value: Any, path: Path, where: str = "train") -> dict[str, Any]:
    """Settings of train.py that stand below `where` in a file. Raises `UserError` for what is none."""
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{path}: {where} {value}: settings of train.py are needed, e.g. `{where}: {{nf: 24}}`")
    return cli.checked(value or {}, train_parser(), path)


def _read_file(path: Path) -> dict[str, Any]:
    """The file as it is written, its settings checked; `hypothesis` from its opening comment."""
    content = cli.read_yaml(path)
    train = read_train_settings(content.pop("train", None), path)
    for name in _SET_BY_RUNNER:
        if name in train:
            raise UserError(f"{path}: train: {name} is for the runner to set; leave it out")
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# ").rstrip())
    hypothesis = " ".join(comment).removeprefix("Hypothesis:").strip()
    if not hypothesis:
        raise UserError(f"{path}: does not open with its hypothesis; begin with a line `# Hypothesis: ...`")
    return cli.checked(content, _file_parser(), path) | {"train": train, "hypothesis": hypothesis}


def _lay_over_ancestors(
    name: str, path: Path, contents: Mapping[str, dict[str, Any]], seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The content of the file `name`, laid over that of the file that it is like."""
    require([name], contents, f"{path}: ", "experiment")
    if name in seen:
        raise UserError(f"{path}: is like itself ({' → '.join([*seen, name])}); change one `like`")
    own = contents[name]
    if own.get("like") is None:
        return own
    below = _lay_over_ancestors(own["like"], path, contents, (*seen, name))
    return below | own | {"train": below["train"] | own["train"]}


def _make_experiment(name: str, path: Path, contents: Mapping[str, dict[str, Any]]) -> Experiment:
    values = dataclasses.asdict(ExperimentFile()) | _lay_over_ancestors(name, path, contents)
    require(values["sets"], SETS, f"{path}: ", "test set")
    require(values["corpora"], CORPORA, f"{path}: ", "corpus")
    if VOICEBANK not in values["corpora"]:
        raise UserError(f"{path}: corpora: {VOICEBANK} gives the speech; add it")
    for key in ("sets", "guidance_scale"):
        if not values[key]:
            raise UserError(f"{path}: {key} is empty; name one or leave it out")
    return Experiment(**values | {"id": name})


def require(names: Iterable[str], known: Iterable[str], where: str, kind: str, hint: str = "") -> None:
    """Raise `UserError` for the first of `names` that is not in `known`, with the nearest that is, in any case."""
    lower = {str(other).lower(): str(other) for other in known}
    for name in names:
        if name not in lower.values():
            close = difflib.get_close_matches(str(name).lower(), lower, n=1)
            near = f"; did you mean {lower[close[0]]}?" if close else ""
            raise UserError(f"{where}{name}: no such {kind}{near}{hint}")


def make_declared(cls: type[Declared], content: Any, path: Path, where: str = "") -> Declared:
    """A dataclass from what a YAML file holds below `where`.

    Raises `UserError`, naming the setting, for one that does not exist, is missing, or has another type.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: {where}{content}: lines such as `NAME: VALUE` are needed")
    try:
        return cls(**cli.checked(content, cli.make_parser([cls], "", with_files=False)))
    except UserError as error:
        raise UserError(f"{path}: {where}{error}") from None
