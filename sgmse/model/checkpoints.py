"""Checkpoints: ours, which hold data and no code, and those that sp-uhh/sgmse publishes."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.diffusion.adaptive import Familiarity
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders.weights import identity, other_weights
from sgmse.model.build import build_model
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.networks.published import rename
from sgmse.settings.config import ModelConfig


@dataclass(frozen=True)
class Loaded:
    """A model for use, on the CPU, with the averaged weights in place.

    averaged: False when the checkpoint holds no average and the raw weights are used.
    published: the checkpoint is one of sp-uhh/sgmse. sha256: the first 16 digits of the file's hash.
    """

    model: NoiseCondScoreModel
    averaged: bool
    published: bool
    sha256: str


def load_model(path: Path, encoder_checkpoint: str | None = None) -> Loaded:
    """Rebuild the model of a checkpoint. Raises `UserError` for a file that is no checkpoint or does not fit.

    `encoder_checkpoint`: where the weights of a frozen encoder are, if neither where they were in training nor cached.
    """
    content = read(path)
    try:
        loaded = _load_ours(path, content, encoder_checkpoint) if is_ours(content) else _load_published(path, content)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).strip("'\"").split())[:200]
        raise UserError(
            f"{path}: does not fit the model its settings describe ({reason}); use another checkpoint"
        ) from None
    if not all(torch.isfinite(weight).all() for weight in loaded.model.state_dict().values()):
        raise UserError(f"{path}: holds weights that are no numbers, its training diverged; use an earlier checkpoint")
    return loaded


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint as plain data. Nothing from a pickle is run."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it, such as checkpoints/last.ckpt")
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_DataOnlyPickle)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; check the path") from None
    except Exception as error:  # the many ways in which a file can be no checkpoint
        raise UserError(f"{path}: is no checkpoint ({type(error).__name__}); name another") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: is no checkpoint of a model (it holds no state_dict); name another")
    return content


def is_ours(content: dict[str, Any]) -> bool:
    return "model_settings" in content


def stored_settings(content: dict[str, Any]) -> tuple[ModelConfig, SamplerSettings]:
    """The settings in a checkpoint of ours."""
    stored = content["model_settings"]
    return _pick(ModelConfig, stored), _pick(SamplerSettings, stored)


def _load_ours(path: Path, content: dict[str, Any], encoder_checkpoint: str | None) -> Loaded:
    config, sampler = stored_settings(content)
    stored = config.encoder_checkpoint
    if encoder_checkpoint is not None or (stored not in (None, "random") and not Path(str(stored)).exists()):
        config = dataclasses.replace(config, encoder_checkpoint=encoder_checkpoint)
    model = build_model(config, sampler, from_checkpoint=True)
    found = None if model.encoder is None else model.encoder.identity
    if config.freeze_encoder and found != content.get("encoder_identity"):
        raise other_weights(path, config.encoder, content.get("encoder_identity"), found)
    weights = dict(content["state_dict"])
    averaged = "average" in content
    if averaged:
        weights |= content["average"]["weights"]
    model.load_state_dict(weights)
    if "familiarity" in content:
        model.familiarity = Familiarity.from_state(content["familiarity"])
    return Loaded(model.eval(), averaged, False, identity(path))


def _load_published(path: Path, content: dict[str, Any]) -> Loaded:
    h = content.get("hyper_parameters")
    if not isinstance(h, dict) or "backbone" not in h or "sde" not in h:
        raise UserError(f"{path}: is a checkpoint of another model; use one made by train.py or by sp-uhh/sgmse")
    for name, value in (("window", "hann"), ("transform_type", "exponent")):
        if h.get(name, value) != value:
            raise UserError(f"{path}: was trained with {name} {h[name]}, but only {value} is supported; use another")
    bridge = h["sde"] == "sbve"
    values = {name: h[name] for name in _PUBLISHED if h.get(name) is not None}
    values |= {name: list(h[name]) for name in ("ch_mult",) if name in h}
    objective = h.get("loss_type", "score_matching")
    values["objective"] = "score_matching" if objective == "mse" else objective
    values["network_scaling"] = h.get("network_scaling") or "none"
    if h["backbone"] != "ncsnpp_v2":  # the published code ignores these for its older networks
        values |= {"c_in": "1", "c_out": "1", "c_skip": "0", "network_scaling": "none"}
    config = ModelConfig(**values, sample_rate=_rate(h), encoder="none", cond_drop_prob=0.0)
    sampler = SamplerSettings(N=h.get("N", 30), snr=0.5, published_bridge=bridge)
    model = build_model(config, sampler)
    names = [name for name in content["state_dict"] if name.startswith("dnn.")]
    weights = {name: content["state_dict"][name] for name in names}
    averaged = "ema" in content
    if averaged:  # a plain list in the order of the parameters
        weights = dict(zip(names, content["ema"]["shadow_params"], strict=True))
    weights = {name.removeprefix("dnn."): w for name, w in weights.items() if isinstance(w, Tensor)}
    model.backbone.load_state_dict(rename(model.backbone, weights))
    return Loaded(model.eval(), averaged, True, identity(path))


# settings that carry over as they are
_PUBLISHED = frozenset(
    {"backbone", "nf", "num_res_blocks", "n_fft", "hop_length", "spec_factor", "spec_abs_exponent"}
    | {"sde", "theta", "sigma_min", "sigma_max", "k", "c", "t_eps"}
    | {"loss_weighting", "c_in", "c_out", "c_skip", "sigma_data", "l1_weight"}
)


def _rate(hyper_parameters: dict[str, Any]) -> int:
    """Checkpoints from before the `sr` flag are told apart as the published enhancement script does."""
    return int(hyper_parameters.get("sr", 48000 if hyper_parameters["backbone"] == "ncsnpp_48k" else 16000))


def _pick(cls: type, stored: dict[str, Any]) -> Any:
    return cls(**{f.name: stored[f.name] for f in dataclasses.fields(cls) if f.name in stored})


# ---- reading a pickle without running it ----

_ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


class _Inert:
    """Stands for any class or function that a pickle names and that is not allowed: does nothing, builds nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _DataOnlyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _ALLOWED else _Inert


class _DataOnlyPickle:
    """What `torch.load` needs of a pickle module."""

    Unpickler = _DataOnlyUnpickler

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _DataOnlyUnpickler(file, **kwargs).load()
