"""What is to be done: which trainings, which of them serve which experiments, where the audio lies; RUN_DIR/plan.json.

The plan of a RUN_DIR may gain experiments and seeds, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure, write_text
from sgmse.common.lock import hold
from sgmse.experiments.catalogue import CHOICE_SETS, VOICEBANK, Experiment
from sgmse.experiments.scales import (
    PRETRAINED,
    Scale,
    check_baselines,
    default_settings,
    resolve_settings,
    with_defaults,
)
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig

PLAN = "plan.json"
RANDOM = "random"  # --encoder_checkpoint of untrained weights
_BEFORE_PLAN = ("state", "logs", "slurm")  # what may be in the folder before the plan is
_DECIDE_NOTHING = frozenset(
    """seed num_workers compile device log_dir logger wandb_name wandb_group wandb_tags nolog ckpt run_dir
    save_every_n_steps base_dir speech_dir noise_dir""".split()
)
"""Settings that leave the numbers of a run as they are, and the folders, which `Data` stands for."""


@dataclass(frozen=True)
class Data:
    """Where audio lies: prepared corpora, or folders of speech and noise; with neither, it is the embedded corpus"""

    data_dir: str | None = None
    """folder of corpora prepared by `scripts/prepare.py NAME --out DIR/NAME`"""
    speech_dir: list[str] = field(default_factory=list)
    """speech, with train/ and valid/"""
    noise_dir: list[str] = field(default_factory=list)
    """noise, with train/ and valid/"""
    ood_noise_dir: str | None = None
    """noise that training never hears, for the test"""
    test_sets: str | None = None
    """ready-made DIR/SET/{noisy,clean,ref,manifest.csv}"""

    def settings(self, corpora: Sequence[str], speech: Path) -> dict[str, Any]:
        """The data settings of train.py. `speech`: what `training.write_speech` made, for more corpora than pairs."""
        if self.data_dir is None:
            return {"speech_dir": self.speech_dir, "noise_dir": self.noise_dir} if self.speech_dir else {}
        folder = Path(self.data_dir)
        if list(corpora) == [VOICEBANK]:
            return {"base_dir": str(folder / VOICEBANK)}
        noise = [str(folder / corpus) for corpus in corpora if corpus != VOICEBANK]
        return {"speech_dir": [str(speech)], "noise_dir": noise}

    def identity(self, corpora: Sequence[str]) -> list[str]:
        """What stands for the training data in a hash: prepared corpora may move."""
        return list(corpora) if self.data_dir else [*self.speech_dir, *self.noise_dir] or ["embedded"]


@dataclass(frozen=True)
class Training:
    """One training, whatever the seed; experiments with equal settings share it.

    Attributes:
        settings: of train.py, to be laid over its defaults, without seed and folders. corpora: empty unless prepared
            corpora are used.
    """

    name: str
    settings: Mapping[str, Any]
    corpora: list[str]

    @property
    def values(self) -> dict[str, Any]:
        """Every setting, those with their defaults too."""
        return with_defaults(self.settings)

    @property
    def is_conditioned(self) -> bool:
        """Whether the model takes a reference."""
        return bool(self.values["encoder"] != "none")

    @property
    def smoke(self) -> bool:
        """Whether the encoder has random weights instead of its published ones, so that results say nothing."""
        return bool(self.values["encoder_checkpoint"] == RANDOM)


@dataclass(frozen=True)
class Plan:
    """Experiments at a scale, with the trainings they need.

    Attributes:
        training_of: the name of the training of each experiment. set_names: test set of an experiment and the one that
            stands for it at this scale. items: how many items each built set holds, validation too. steps: N of
            the sampler to choose among, for each experiment.
    """

    scale: str
    seeds: list[int]
    experiments: dict[str, Experiment]
    trainings: dict[str, Training]
    training_of: dict[str, str]
    data: Data
    set_names: dict[str, str]
    items: dict[str, int]
    steps: dict[str, list[int]]

    def training(self, experiment_id: str) -> Training:
        """The training of an experiment."""
        return self.trainings[self.training_of[experiment_id]]

    def experiments_of(self, training: str) -> list[str]:
        """The experiments that share a training."""
        return [id for id, name in self.training_of.items() if name == training]

    def sets_of(self, experiment_id: str) -> list[str]:
        """The test sets of an experiment at this scale, each once."""
        return list(dict.fromkeys(self.set_names[name] for name in self.experiments[experiment_id].sets))

    @property
    def sets(self) -> list[str]:
        """All test sets of the plan."""
        return list(dict.fromkeys(name for one in self.experiments for name in self.sets_of(one)))

    @property
    def choice_sets(self) -> list[str]:
        """The validation sets of the plan."""
        return list(dict.fromkeys(experiment.choice_set for experiment in self.experiments.values()))

    def opponents(self, experiment_id: str) -> list[str]:
        """The experiments of the plan that this one is compared with, its baseline first; none that is the same."""
        own, needs = self.config_hash(experiment_id), dict.fromkeys(self.experiments[experiment_id].needs)
        return [name for name in needs if name in self.experiments and self.config_hash(name) != own]

    def config_hash(self, experiment_id: str) -> str:
        """Of everything that decides the numbers of an experiment on a set, without the seed."""
        experiment, training = self.experiments[experiment_id], self.training(experiment_id)
        choice = [experiment.guidance_scale, self.steps[experiment_id], experiment.reference]
        return _digest([_decisive_settings(training.settings, self.data.identity(training.corpora)), choice])


def make_plan(
    experiments: Mapping[str, Experiment],
    scale: Scale,
    data: Data,
    seeds: Sequence[int],
    encoder_checkpoint: str | None = None,
) -> Plan:
    """The plan for `experiments` (see `select_experiments`); those with equal settings share a training.

    `encoder_checkpoint`: "random" for untrained weights of CLAP and PANNs, which makes their results `smoke`.
    Raises `UserError` for settings that cannot work at this scale or with these data.
    """
    check_baselines(experiments)
    trainings: dict[str, Training] = {}
    training_of, steps = {}, {}
    for id, experiment in experiments.items():
        settings = resolve_settings(experiment, scale)
        if encoder_checkpoint is not None and with_defaults(settings)["encoder"] in PRETRAINED:
            settings["encoder_checkpoint"] = encoder_checkpoint
        corpora = sorted(experiment.corpora, key=lambda c: (c != VOICEBANK, c)) if data.data_dir else []
        values = with_defaults(settings) | data.settings(corpora, Path("speech"))
        try:
            check_data(cli.take(DataConfig, values), cli.take(ModelConfig, values))
        except UserError as error:
            raise UserError(f"{id}: {error}") from None
        training_of[id] = _training_name(experiment.base, settings, data.identity(corpora))
        trainings.setdefault(training_of[id], Training(training_of[id], settings, corpora))
        steps[id] = [1] if values["objective"] == "predictive" else list(scale.steps[experiment.base])
    sets = {name: scale.sets[name] for experiment in experiments.values() for name in experiment.sets}
    plan = Plan(
        scale.name, list(seeds), dict(experiments), trainings, training_of, data, sets, dict(scale.items), steps
    )
    for missing in sorted({*plan.sets, *plan.choice_sets} - scale.items.keys()):
        raise UserError(f"scale {scale.name}: items: {missing} is missing; add `{missing}: NUMBER`")
    for id in experiments:
        if plan.training(id).values["max_steps"] < 1:
            raise UserError(f"scale {scale.name}: nothing ends the training of {id}; give max_steps below `train`")
    return plan


def complete_data(scale: Scale, data: Data) -> Data:
    """`data`; without any folder, those where the scale expects them. Raises `UserError` for half of it."""
    if bool(data.speech_dir) != bool(data.noise_dir):
        raise UserError("folders of speech and noise go together: give both --speech_dir and --noise_dir, or neither")
    if data.speech_dir and data.data_dir is not None:
        raise UserError("--data_dir holds prepared corpora, --speech_dir and --noise_dir replace them; give one kind")
    if data.ood_noise_dir is not None and not data.speech_dir:
        raise UserError("--ood_noise_dir goes with --speech_dir and --noise_dir; add them or leave it out")
    known = dict.fromkeys((*scale.sets.values(), *CHOICE_SETS))
    if data.test_sets is not None and not any((Path(data.test_sets) / name).is_dir() for name in known):
        raise UserError(f"--test_sets {data.test_sets}: holds none of the folders {', '.join(known)}; check the path")
    return data if data.speech_dir or data.data_dir is not None else replace(data, data_dir=scale.data_dir)


def read_plan(folder: Path) -> Plan | None:
    """The plan of a RUN_DIR, if there is one. Raises `UserError` where it cannot be understood."""
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for training in content["trainings"].values():
            training.pop("experiments", None)  # older plans list them here, too
        content["experiments"] = {name: Experiment(**e) for name, e in content["experiments"].items()}
        content["trainings"] = {name: Training(**t) for name, t in content["trainings"].items()}
        plan = Plan(**content | {"data": Data(**content["data"]), "seeds": [int(seed) for seed in content["seeds"]]})
        for name in plan.experiments:  # raises for one of which something is missing
            plan.config_hash(name)
        if not set(plan.sets) <= plan.items.keys():
            raise KeyError("items")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error!r}); use another --out") from None
    return plan


def join_plan(folder: Path, plan: Plan) -> Plan:
    """Merge `plan` into that of the folder, write the whole and return it.

    Raises `UserError` where the two would give one experiment different numbers. Array tasks may call it at once.
    """
    merge_plans(folder, plan)  # refuses before anything is written
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / "state" / "plan.lease"):
        whole = merge_plans(folder, plan)
        if whole != read_plan(folder):
            write_text(folder / PLAN, json.dumps(asdict(whole), indent=1, ensure_ascii=False))
    return whole


def merge_plans(folder: Path, plan: Plan) -> Plan:
    """What `join_plan` would write."""
    before = read_plan(folder)
    if before is None:
        strangers = [path for path in folder.glob("*") if path.name not in _BEFORE_PLAN] if folder.is_dir() else []
        if strangers:
            raise UserError(
                f"{folder}: holds {strangers[0].name} and is no folder of experiments; choose another --out"
            )
        return plan
    facts: dict[str, tuple[object, object]] = {"scale": (before.scale, plan.scale)}
    facts |= {name: (old, vars(plan.data)[name]) for name, old in vars(before.data).items()}
    facts |= {f"size of {name}": (before.items[name], plan.items[name]) for name in before.items.keys() & plan.items}
    for name in before.experiments.keys() & plan.experiments:
        facts[f"config hash of the settings of {name}"] = (before.config_hash(name), plan.config_hash(name))
    for name, (old, new) in facts.items():
        if old != new:
            raise UserError(f"{folder}: holds results with another {name} ({old}, not {new}); choose another --out")
    grown = {name: old | getattr(plan, name) for name, old in vars(before).items() if isinstance(old, dict)}
    return replace(plan, seeds=sorted({*before.seeds, *plan.seeds}), **grown)


def _training_name(base: str, settings: Mapping[str, Any], data: list[str]) -> str:
    """Readable and unique, e.g. bridge_cnn_p0.1_3f2a91c0."""
    values = with_defaults(settings)
    parts = [base, *(["predictive"] if values["objective"] == "predictive" else []), values["encoder"]]
    if values["encoder"] != "none":
        parts += ["attention"] if values["cross_attention_resolutions"] else []
        parts += [f"p{values['cond_drop_prob']:g}"]
    return "_".join([*parts, _digest(_decisive_settings(settings, data))[:8]])


def _decisive_settings(settings: Mapping[str, Any], data: list[str]) -> dict[str, Any]:
    """What decides the numbers of a training: the settings that differ from their defaults, and the data.

    A setting that the code gains later changes nothing here as long as it keeps its default.
    """
    defaults = default_settings()
    kept = {n: v for n, v in settings.items() if n not in _DECIDE_NOTHING and v != defaults.get(n)}
    if kept.get("encoder_checkpoint") != RANDOM:
        kept.pop("encoder_checkpoint", None)  # a path; the run itself checks the hash of the file
    return {"settings": kept, "data": data}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
