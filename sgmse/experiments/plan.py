"""What is to be done: which trainings, which of them serve which experiments, where the audio lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.experiments.catalogue import VOICEBANK, Experiment
from sgmse.experiments.resolve import check_baselines, differs, resolved, with_defaults
from sgmse.experiments.scales import VALID, Scale, pretrained
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig

RANDOM = "random"  # --encoder_checkpoint of untrained weights
_DECIDE_NOTHING = frozenset(
    """seed num_workers compile device log_dir logger wandb_name wandb_group wandb_tags nolog ckpt run_dir
    save_every_n_steps base_dir speech_dir noise_dir""".split()
)
"""settings that leave the numbers of a run as they are, and the folders, which `Data` stands for"""


@dataclass(frozen=True)
class Data:
    """Where audio lies: prepared corpora below data_dir; or folders of speech and noise; or, with neither, embedded.

    test_sets: folder of ready-made test sets, used instead of building them.
    """

    data_dir: str | None = None
    speech_dir: tuple[str, ...] = ()
    noise_dir: tuple[str, ...] = ()
    ood_noise_dir: str | None = None
    test_sets: str | None = None

    @property
    def is_corpora(self) -> bool:
        """Whether prepared corpora are used."""
        return self.data_dir is not None

    def settings(self, corpora: Sequence[str], speech: Path) -> dict[str, Any]:
        """The data settings of train.py. `speech`: what `training.write_speech` made, for more corpora than pairs."""
        if self.data_dir is None:
            return {"speech_dir": list(self.speech_dir), "noise_dir": list(self.noise_dir)} if self.speech_dir else {}
        folder = Path(self.data_dir)
        if tuple(corpora) == (VOICEBANK,):
            return {"base_dir": str(folder / VOICEBANK)}
        return {
            "speech_dir": [str(speech)],
            "noise_dir": [str(folder / corpus) for corpus in corpora if corpus != VOICEBANK],
        }

    def identity(self, corpora: Sequence[str]) -> list[str]:
        """What stands for the training data in a hash."""
        return list(corpora) if self.is_corpora else [*self.speech_dir, *self.noise_dir] or ["embedded"]


@dataclass(frozen=True)
class Training:
    """One training, whatever the seed; `experiments` with equal settings share it.

    Attributes:
        settings: of train.py, to be laid over its defaults, without seed and folders. corpora: empty unless prepared
            corpora are used.
    """

    name: str
    settings: Mapping[str, Any]
    corpora: tuple[str, ...]
    experiments: tuple[str, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Every setting, those with their defaults too."""
        return with_defaults(self.settings)

    @property
    def smoke(self) -> bool:
        """Whether the encoder has random weights instead of its published ones, so that results say nothing."""
        return self.values["encoder_checkpoint"] == RANDOM


@dataclass(frozen=True)
class Plan:
    """Experiments at a scale, with the trainings they need.

    Attributes:
        set_names: test set of an experiment → the one that stands for it at this scale. items: how many items each
            built set holds, `valid` among them. steps: N of the sampler to choose among, for each experiment.
    """

    scale: str
    seeds: tuple[int, ...]
    experiments: Mapping[str, Experiment]
    trainings: Mapping[str, Training]
    training_of: Mapping[str, str]
    data: Data
    set_names: Mapping[str, str]
    items: Mapping[str, int]
    steps: Mapping[str, tuple[int, ...]]

    def sets_of(self, experiment_id: str) -> tuple[str, ...]:
        """The test sets of an experiment at this scale, each once."""
        return tuple(dict.fromkeys(self.set_names[name] for name in self.experiments[experiment_id].sets))

    @property
    def sets(self) -> tuple[str, ...]:
        """All test sets of the plan."""
        return tuple(dict.fromkeys(name for one in self.experiments for name in self.sets_of(one)))

    def compared_with(self, experiment_id: str) -> tuple[str, ...]:
        """The experiments of the plan that this one is compared with, its baseline first."""
        return tuple(dict.fromkeys(name for name in self.experiments[experiment_id].needs if name in self.experiments))

    def config_hash(self, experiment_id: str) -> str:
        """Of everything that decides the numbers of an experiment on a set, without the seed."""
        experiment, training = self.experiments[experiment_id], self.trainings[self.training_of[experiment_id]]
        choice = [list(experiment.guidance_scale), list(self.steps[experiment_id]), experiment.reference]
        return _digest([_decisive(training.settings, self.data.identity(training.corpora)), choice])

    def as_json(self) -> str:
        """For RUN_DIR/plan.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `as_json` wrote. Raises `ValueError` for another text."""
        try:
            content = json.loads(text)
            content["experiments"] = {name: Experiment(**_tuples(e)) for name, e in content["experiments"].items()}
            content["trainings"] = {name: Training(**_tuples(t)) for name, t in content["trainings"].items()}
            content["data"] = Data(**_tuples(content["data"]))
            content["steps"] = _tuples(content["steps"])
            plan = cls(**content | {"seeds": tuple(map(int, content["seeds"]))})
            for name in plan.experiments:  # raises for one of which something is missing
                plan.config_hash(name)
            if not set(plan.sets) <= plan.items.keys():
                raise KeyError("items")
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        return plan


def make_plan(
    experiments: Mapping[str, Experiment],
    scale: Scale,
    data: Data,
    seeds: Sequence[int],
    encoder_checkpoint: str | None = None,
) -> Plan:
    """The plan for `experiments` (see `catalogue.chosen`); those with equal settings share a training.

    `encoder_checkpoint`: "random" for untrained weights of CLAP and PANNs, which makes their results `smoke`.
    Raises `UserError` for settings that cannot work at this scale or with these data.
    """
    check_baselines(experiments)
    trainings: dict[str, Training] = {}
    training_of: dict[str, str] = {}
    for experiment in experiments.values():
        settings = resolved(experiment, scale)
        if encoder_checkpoint is not None and with_defaults(settings)["encoder"] in pretrained():
            settings["encoder_checkpoint"] = encoder_checkpoint
        corpora = tuple(sorted(experiment.corpora, key=lambda c: (c != VOICEBANK, c))) if data.is_corpora else ()
        _check_data(experiment, settings, data, corpora)
        name = _name(experiment.base, settings, data.identity(corpora))
        before = trainings[name].experiments if name in trainings else ()
        trainings[name] = Training(name, settings, corpora, (*before, experiment.id))
        training_of[experiment.id] = name
    steps = {name: _steps(trainings[training_of[name]], scale.steps[e.base]) for name, e in experiments.items()}
    sets = {name: scale.sets[name] for e in experiments.values() for name in e.sets}
    items = dict(scale.items)
    return Plan(scale.name, tuple(seeds), dict(experiments), trainings, training_of, data, sets, items, steps)


def make_data(
    scale: Scale,
    data_dir: str | None = None,
    speech_dir: Sequence[str] = (),
    noise_dir: Sequence[str] = (),
    ood_noise_dir: str | None = None,
    test_sets: str | None = None,
) -> Data:
    """Where audio lies, from the flags; without any, where the scale expects it. Raises `UserError` for half of it."""
    if bool(speech_dir) != bool(noise_dir):
        raise UserError("folders of speech and noise go together: give both --speech_dir and --noise_dir, or neither")
    if speech_dir and data_dir is not None:
        raise UserError("--data_dir holds prepared corpora, --speech_dir and --noise_dir replace them; give one kind")
    if ood_noise_dir is not None and not speech_dir:
        raise UserError("--ood_noise_dir goes with --speech_dir and --noise_dir; add them or leave it out")
    known = dict.fromkeys((*scale.sets.values(), VALID))
    if test_sets is not None and not any((Path(test_sets) / name).is_dir() for name in known):
        raise UserError(f"--test_sets {test_sets}: holds none of the folders {', '.join(known)}; check the path")
    if not speech_dir and data_dir is None:
        data_dir = scale.data_dir
    return Data(data_dir, tuple(speech_dir), tuple(noise_dir), ood_noise_dir, test_sets)


def _check_data(experiment: Experiment, settings: Mapping[str, Any], data: Data, corpora: Sequence[str]) -> None:
    values = with_defaults(settings) | data.settings(corpora, Path("speech"))
    try:
        check_data(cli.take(DataConfig, values), cli.take(ModelConfig, values))
    except UserError as error:
        raise UserError(f"{experiment.id}: {error}") from None


def _steps(training: Training, tried: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) if training.values["objective"] == "predictive" else tried


def _name(base: str, settings: Mapping[str, Any], data: list[str]) -> str:
    """Readable and unique, e.g. bridge_cnn_p0.1_3f2a91c0."""
    values = with_defaults(settings)
    parts = [base, *(["predictive"] if values["objective"] == "predictive" else []), values["encoder"]]
    if values["encoder"] != "none":
        parts += ["attention"] if values["cross_attention_resolutions"] else []
        parts += [f"p{values['cond_drop_prob']:g}"]
    return "_".join([*parts, _digest(_decisive(settings, data))[:8]])


def _decisive(settings: Mapping[str, Any], data: list[str]) -> dict[str, Any]:
    """What decides the numbers of a training: the settings that differ from their defaults, and the data.

    A setting that the code gains later changes nothing here as long as it keeps its default.
    """
    kept = {name: value for name, value in settings.items() if name not in _DECIDE_NOTHING and differs(name, value)}
    if kept.get("encoder_checkpoint") != RANDOM:
        kept.pop("encoder_checkpoint", None)  # a path; the run itself checks the hash of the file
    return {"settings": kept, "data": data}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples, one level deep: settings of a training stay lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
