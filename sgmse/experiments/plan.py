"""What is to be done: which trainings, which of them serve which experiments, where the audio lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.experiments.catalogue import VOICEBANK, Experiment
from sgmse.experiments.resolve import check_baselines, default_settings, resolve_settings, with_defaults
from sgmse.experiments.scales import VALID, Scale, pretrained_encoders
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import DataConfig, ModelConfig

RANDOM = "random"  # --encoder_checkpoint of untrained weights
_DECIDE_NOTHING = frozenset(
    """seed num_workers compile device log_dir logger wandb_name wandb_group wandb_tags nolog ckpt run_dir
    save_every_n_steps base_dir speech_dir noise_dir""".split()
)
"""Settings that leave the numbers of a run as they are, and the folders, which `Data` stands for."""


@dataclass(frozen=True)
class Data:
    """Where audio lies: prepared corpora below data_dir; or folders of speech and noise; or, with neither, embedded.

    test_sets: folder of ready-made test sets, used instead of building them.
    """

    data_dir: str | None = None
    speech_dir: list[str] = field(default_factory=list)
    noise_dir: list[str] = field(default_factory=list)
    ood_noise_dir: str | None = None
    test_sets: str | None = None

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
    """One training, whatever the seed; `experiments` with equal settings share it.

    Attributes:
        settings: of train.py, to be laid over its defaults, without seed and folders. corpora: empty unless prepared
            corpora are used.
    """

    name: str
    settings: Mapping[str, Any]
    corpora: list[str]
    experiments: list[str]

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
        training_of: the name of the training of each experiment. set_names: test set of an experiment and the one that
            stands for it at this scale. items: how many items each built set holds, `valid` among them. steps: N of
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

    def sets_of(self, experiment_id: str) -> list[str]:
        """The test sets of an experiment at this scale, each once."""
        return list(dict.fromkeys(self.set_names[name] for name in self.experiments[experiment_id].sets))

    @property
    def sets(self) -> list[str]:
        """All test sets of the plan."""
        return list(dict.fromkeys(name for one in self.experiments for name in self.sets_of(one)))

    def opponents(self, experiment_id: str) -> list[str]:
        """The experiments of the plan that this one is compared with, its baseline first."""
        return list(dict.fromkeys(name for name in self.experiments[experiment_id].needs if name in self.experiments))

    def config_hash(self, experiment_id: str) -> str:
        """Of everything that decides the numbers of an experiment on a set, without the seed."""
        experiment, training = self.experiments[experiment_id], self.trainings[self.training_of[experiment_id]]
        choice = [experiment.guidance_scale, self.steps[experiment_id], experiment.reference]
        return _digest([_decisive_settings(training.settings, self.data.identity(training.corpora)), choice])

    def to_json(self) -> str:
        """For RUN_DIR/plan.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote. Raises `ValueError` for another text."""
        try:
            content = json.loads(text)
            content["experiments"] = {name: Experiment(**e) for name, e in content["experiments"].items()}
            content["trainings"] = {name: Training(**t) for name, t in content["trainings"].items()}
            content |= {"data": Data(**content["data"]), "seeds": [int(seed) for seed in content["seeds"]]}
            plan = cls(**content)
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
    """The plan for `experiments` (see `select_experiments`); those with equal settings share a training.

    `encoder_checkpoint`: "random" for untrained weights of CLAP and PANNs, which makes their results `smoke`.
    Raises `UserError` for settings that cannot work at this scale or with these data.
    """
    check_baselines(experiments)
    trainings: dict[str, Training] = {}
    training_of, steps = {}, {}
    for id, experiment in experiments.items():
        settings = resolve_settings(experiment, scale)
        if encoder_checkpoint is not None and with_defaults(settings)["encoder"] in pretrained_encoders():
            settings["encoder_checkpoint"] = encoder_checkpoint
        corpora = sorted(experiment.corpora, key=lambda c: (c != VOICEBANK, c)) if data.data_dir else []
        values = with_defaults(settings) | data.settings(corpora, Path("speech"))
        try:
            check_data(cli.take(DataConfig, values), cli.take(ModelConfig, values))
        except UserError as error:
            raise UserError(f"{id}: {error}") from None
        name = _training_name(experiment.base, settings, data.identity(corpora))
        trainings.setdefault(name, Training(name, settings, corpora, [])).experiments.append(id)
        training_of[id] = name
        steps[id] = [1] if values["objective"] == "predictive" else list(scale.steps[experiment.base])
    sets = {name: scale.sets[name] for experiment in experiments.values() for name in experiment.sets}
    return Plan(
        scale.name, list(seeds), dict(experiments), trainings, training_of, data, sets, dict(scale.items), steps
    )


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
    return Data(data_dir, list(speech_dir), list(noise_dir), ood_noise_dir, test_sets)


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
