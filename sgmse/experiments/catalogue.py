"""Experiments as data: one short file per ID in configs/experiments/, opening with its hypothesis."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sgmse.common.errors import UserError
from sgmse.settings import cli
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, EnhanceConfig

EXPERIMENTS = CONFIGS / "experiments"
NOT_EXPERIMENTS = ("criteria",)
DEFAULT_SETS = ("id", "esc50", "urbansound8k", "nonstationary")
SETS = (*DEFAULT_SETS, "stationary", "talkers")
VOICEBANK = "voicebank"  # clean speech, and its pairs with noise where nothing else is trained on
CORPORA = (VOICEBANK, "demand", "wham", "audioset", "urbansound8k")
NOISE_OF_SET = {"esc50": "esc50", "urbansound8k": "urbansound8k", "stationary": "demand", "nonstationary": "demand"}
"""the corpus that each set takes its noise from, where corpora are prepared; `id` is VoiceBank-DEMAND's own test"""
"""settings that say how the reference enters; a baseline differs from its experiment in these alone"""


@dataclass(frozen=True)
class Experiment:
    """What one ID asks, trains and tests.

    Attributes:
        base: configs/BASE.yaml, over which `train` (settings of train.py) is laid.
        guidance_scale: one number, or several of which the validation set chooses.
        sets: test sets. corpora: what is trained on; VoiceBank-DEMAND alone serves as pairs, else its clean speech is
            mixed with the noise of the others.
        baseline: the separately trained model without reference; None for such a model itself.
        versus: further experiments to compare with. reference: protocol of the references at test time.
    """

    id: str
    hypothesis: str
    base: str
    train: Mapping[str, Any]
    guidance_scale: tuple[float, ...]
    sets: tuple[str, ...]
    corpora: tuple[str, ...]
    baseline: str | None
    versus: tuple[str, ...]
    reference: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments it is compared with."""
        return (*((self.baseline,) if self.baseline else ()), *self.versus)


_Reference = typing.get_type_hints(EnhanceConfig)["reference"]


@dataclass(frozen=True)
class ExperimentFile:
    """Settings of an experiment beside those of its training"""

    like: str | None = None
    """ID of the experiment whose file is laid below this one"""
    base: Literal["bridge", "sgmse_plus"] = "bridge"
    """file in configs/ with the objective and its usual sizes"""
    guidance_scale: list[float] = field(default_factory=lambda: [1.0])
    """guidance, or several values to choose among"""
    sets: list[str] = field(default_factory=lambda: list(DEFAULT_SETS))
    """test sets"""
    corpora: list[str] = field(default_factory=lambda: [VOICEBANK])
    """training corpora"""
    baseline: str | None = None
    """ID of the model without reference"""
    versus: list[str] = field(default_factory=list)
    """IDs of further comparisons"""
    reference: _Reference = "disjoint"  # type: ignore[valid-type]
    """protocol of the references of the test sets"""


@cache
def train_parser() -> cli.Parser:
    """What types and names the settings of train.py have."""
    return cli.make_parser(TRAIN_GROUPS, "")


@cache
def _file_parser() -> cli.Parser:
    return cli.make_parser([ExperimentFile], "")


def load(folder: Path = EXPERIMENTS) -> dict[str, Experiment]:
    """Every experiment below `folder`, by its ID, the name of its file.

    Raises `UserError` for a file that cannot be understood: a setting that does not exist or has another type, an
    unknown base, set, corpus or experiment, a circle of `like`, no hypothesis.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem not in NOT_EXPERIMENTS}
    if not paths:
        raise UserError(f"{folder}: holds no experiment; write ID.yaml files (docs/experiments.md)")
    raw = {name: _read(path) for name, path in paths.items()}
    found = {name: _experiment(name, paths[name], raw) for name in paths}
    for experiment in found.values():
        for other in experiment.needs:
            _require(other, found, paths[experiment.id], "experiment")
        if experiment.id in experiment.needs:
            raise UserError(f"{paths[experiment.id]}: is compared with itself; name another baseline or versus")
    return found


def chosen(catalogue: Mapping[str, Experiment], ids: Sequence[str]) -> dict[str, Experiment]:
    """The experiments `ids` (none: all) and, before each, those that it is compared with.

    Those that only *they* are compared with are left out, except for baselines. Raises `UserError` for an unknown ID,
    with the nearest that exists.
    """
    for name in ids:
        if name not in catalogue:
            near = nearest(name, catalogue)
            raise UserError(f"{name}: no such experiment{near} (run_experiments.py --list names all)")
    picked: dict[str, Experiment] = {}
    for name in ids or catalogue:
        for other in (*catalogue[name].needs, name):
            baseline = catalogue[other].baseline
            for one in (baseline, other) if baseline else (other,):
                picked.setdefault(one, catalogue[one])
    return picked


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """`; did you mean …?`, in whatever case `name` is written, or nothing."""
    lower = {str(other).lower(): str(other) for other in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]}?" if close else ""


def _read(path: Path) -> dict[str, Any]:
    """The file as it is written, its settings checked; `hypothesis` from its opening comment."""
    content = cli.read_yaml(path)
    train = content.pop("train", None) or {}
    if not isinstance(train, dict):
        raise UserError(f"{path}: train {train}: settings of train.py are needed, e.g. `train: {{encoder: cnn}}`")
    for name in ("seed", "base_dir", "speech_dir", "noise_dir", "ckpt", "run_dir", "log_dir"):
        if name in train:
            raise UserError(f"{path}: train: {name} is for the runner to set; leave it out")
    checked = cli.checked(content, _file_parser(), path)
    return checked | {"train": cli.checked(train, train_parser(), path), "hypothesis": _opening_comment(path)}


def _opening_comment(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    hypothesis = " ".join(lines).removeprefix("Hypothesis:").strip()
    if not hypothesis:
        raise UserError(f"{path}: does not open with its hypothesis; begin with a line `# Hypothesis: ...`")
    return hypothesis


def _lineage(name: str, path: Path, raw: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """`name`, what it is like, what that is like, …"""
    seen: list[str] = []
    current: str | None = name
    while current is not None:
        if current in seen:
            raise UserError(f"{path}: is like itself ({' → '.join([*seen, current])}); change one `like`")
        _require(current, raw, path, "experiment")
        seen.append(current)
        yield current
        current = raw[current].get("like")


def _experiment(name: str, path: Path, raw: Mapping[str, Mapping[str, Any]]) -> Experiment:
    values: dict[str, Any] = dataclasses.asdict(ExperimentFile())
    train: dict[str, Any] = {}
    for ancestor in reversed(list(_lineage(name, path, raw))):
        values |= raw[ancestor]
        train |= raw[ancestor]["train"]
    values |= {"train": train}
    for test_set in values["sets"]:
        _require(test_set, SETS, path, "test set")
    for corpus in values["corpora"]:
        _require(corpus, CORPORA, path, "corpus")
    if VOICEBANK not in values["corpora"]:
        raise UserError(f"{path}: corpora: {VOICEBANK} gives the speech; add it")
    for key in ("sets", "guidance_scale"):
        if not values[key]:
            raise UserError(f"{path}: {key} is empty; name one or leave it out")
    names = [f.name for f in dataclasses.fields(Experiment) if f.name != "id"]
    taken: dict[str, Any] = {key: tuple(values[key]) if isinstance(values[key], list) else values[key] for key in names}
    return Experiment(id=name, **taken)


def _require(name: str, known: Mapping[str, Any] | Sequence[str], path: Path, what: str) -> None:
    if name not in known:
        raise UserError(f"{path}: {name}: no such {what}{nearest(name, known)}")
