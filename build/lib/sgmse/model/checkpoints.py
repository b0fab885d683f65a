"""Checkpoints as plain data: ours, which hold no code, and those that sp-uhh/sgmse publishes."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmse.common.errors import UserError, is_of_machine
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders.weights import identity
from sgmse.settings.config import ModelConfig

_BEST = ("best_pesq.ckpt", "last.ckpt")  # which checkpoint of a run is used, in this order


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about a model for use.

    Args:
        config, sampler: the settings that rebuild it.
        weights: by parameter name, averaged where there is an average; those of a published one by its own names.
        averaged: False when the checkpoint holds no average and these are the raw weights.
        published: the checkpoint is one of sp-uhh/sgmse.
        sha256: the first 16 digits of the file's hash.
        encoder_identity: of a frozen encoder, whose weights are not in the checkpoint.
        familiarity: the statistics of the training references, if there are any.
    """

    config: ModelConfig
    sampler: SamplerSettings
    weights: dict[str, Tensor]
    averaged: bool
    published: bool
    sha256: str
    encoder_identity: str | None = None
    familiarity: dict[str, Tensor] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint says about a model. Raises `UserError` for a file that is no checkpoint of a model."""
    content = read(path)
    return _read_ours(path, content) if is_ours(content) else _read_published(path, content)


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
        if is_of_machine(error):  # it may be one
            raise
        raise UserError(f"{path}: is no checkpoint ({type(error).__name__}); name another") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: is no checkpoint of a model (it holds no state_dict); name another")
    return content


def is_ours(content: dict[str, Any]) -> bool:
    return "model_settings" in content


def stored_settings(content: dict[str, Any]) -> tuple[ModelConfig, SamplerSettings]:
    """The settings in a checkpoint of ours."""
    stored = content["model_settings"]
    return pick_settings(ModelConfig, stored), pick_settings(SamplerSettings, stored)


def _read_ours(path: Path, content: dict[str, Any]) -> Checkpoint:
    config, sampler = stored_settings(content)
    averaged = "average" in content
    weights = content["state_dict"] | (content["average"]["weights"] if averaged else {})
    # the heads of the auxiliary losses serve training only
    weights = {name: weight for name, weight in weights.items() if not name.startswith("auxiliary.")}
    return Checkpoint(
        config,
        sampler,
        weights,
        averaged,
        published=False,
        sha256=identity(path),
        encoder_identity=content.get("encoder_identity"),
        familiarity=content.get("familiarity"),
    )


def _read_published(path: Path, content: dict[str, Any]) -> Checkpoint:
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
    names = [name for name in content["state_dict"] if name.startswith("dnn.")]
    weights = {name: content["state_dict"][name] for name in names}
    averaged = "ema" in content
    if averaged:  # a plain list in the order of the parameters
        weights = dict(zip(names, content["ema"]["shadow_params"], strict=True))
    weights = {name.removeprefix("dnn."): w for name, w in weights.items() if isinstance(w, Tensor)}
    return Checkpoint(config, sampler, weights, averaged, published=True, sha256=identity(path))


# settings that carry over as they are
_PUBLISHED = frozenset(
    {"backbone", "nf", "num_res_blocks", "n_fft", "hop_length", "spec_factor", "spec_abs_exponent"}
    | {"sde", "theta", "sigma_min", "sigma_max", "k", "c", "t_eps"}
    | {"loss_weighting", "c_in", "c_out", "c_skip", "sigma_data", "l1_weight"}
)


def _rate(hyper_parameters: dict[str, Any]) -> int:
    """Checkpoints from before the `sr` flag are told apart as the published enhancement script does."""
    return int(hyper_parameters.get("sr", 48000 if hyper_parameters["backbone"] == "ncsnpp_48k" else 16000))


def pick_settings(cls: type, stored: dict[str, Any]) -> Any:
    """The settings of a class among stored ones; what was not stored yet has its default."""
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


def run_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint by which a run is used: best PESQ first, else the last; None where there is none."""
    return next((path for name in _BEST if (path := run_dir / "checkpoints" / name).is_file()), None)


def newest_checkpoint(log_dir: Path) -> Path | None:
    """The checkpoint of the newest run that has one; None where there is none."""
    runs = sorted(log_dir.iterdir(), reverse=True) if log_dir.is_dir() else []
    return next((path for run in runs if (path := run_checkpoint(run)) is not None), None)
