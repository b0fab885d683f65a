"""From an experiment and a scale to the settings of its training: defaults < base < experiment < scale."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.experiments.catalogue import CONFIGS, Experiment, read_train_settings, train_parser
from sgmse.experiments.scales import Scale, encoder_kind
from sgmse.settings import cli
from sgmse.settings.checks import check_model, check_typed
from sgmse.settings.config import CONDITIONING, ModelConfig, TrainConfig

FULL_RESOLUTION = 256  # nominal, at the first level of the network


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
def _base_settings(name: str) -> dict[str, Any]:
    path = CONFIGS / f"{name}.yaml"
    return read_train_settings(cli.read_yaml(path), path)


def resolve_settings(experiment: Experiment, scale: Scale | None = None) -> dict[str, Any]:
    """The settings of the training that differ from or replace the defaults, ready to be written as a config file.

    Raises `UserError`, naming the experiment, for settings that cannot work together or that the scale would change.
    """
    typed = _base_settings(experiment.base) | dict(experiment.train)
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
    for experiment in catalogue.values():
        values = with_defaults(resolve_settings(experiment))
        if experiment.baseline is None:
            if values["encoder"] != "none":
                raise UserError(f"{experiment.id}: has an encoder but no baseline; name the model to compare it with")
            continue
        baseline = catalogue[experiment.baseline]
        theirs = with_defaults(resolve_settings(baseline))
        if theirs["encoder"] != "none":
            raise UserError(
                f"{experiment.id}: its baseline {baseline.id} has the encoder {theirs['encoder']}, not none"
            )
        pairs = [(name, values[name], theirs[name]) for name in values.keys() - CONDITIONING]
        for name, own, other in [("corpora", sorted(experiment.corpora), sorted(baseline.corpora)), *pairs]:
            if own != other:
                raise UserError(
                    f"{experiment.id}: has {name} {own}, its baseline {baseline.id} {other}; a baseline may differ in "
                    "conditioning settings only, so use another one"
                )
