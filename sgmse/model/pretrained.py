"""Models in folders: those that come with the code, those of `scripts/export_model.py`, Hugging Face repositories.

A folder holds config.json (what rebuilds the model), model.safetensors (averaged weights) and README.md (the card).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sgmse.common.errors import UserError
from sgmse.common.files import whole_folder, write_json, write_text
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders.weights import identity
from sgmse.model.checkpoints import Checkpoint, pick_settings
from sgmse.settings.config import ModelConfig

DEFAULT_MODEL = "small"  # what enhances where nothing was trained
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_FAMILIARITY = "familiarity."  # prefix of its tensors among the weights
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def released_models() -> dict[str, Path]:
    """The folders of the models that come with the code, by name."""
    root = Path(str(files("sgmse"))) / "model" / "released"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CONFIG}"))}


def find_model(name: str | Path) -> Path:
    """A checkpoint file or a model folder.

    Args:
        name: a path; the name of a model that comes with the code; or OWNER/NAME of a Hugging Face repository, whose
            files are kept in the cache of huggingface_hub.

    Raises:
        UserError: there is no such model.
    """
    path, released = Path(name), released_models()
    if path.is_file() or (path / CONFIG).is_file():
        return path
    if str(name) in released:
        return released[str(name)]
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder without {CONFIG}; name a checkpoint in it, such as checkpoints/last.ckpt, or a "
            "folder made by scripts/export_model.py"
        )
    if _REPOSITORY.fullmatch(str(name)) and not path.suffix:
        return _download(str(name))
    known = ", ".join(released) or "none"
    raise UserError(f"{name}: no such checkpoint; check the path, or name a model that comes along ({known})")


def read_folder(folder: Path) -> Checkpoint:
    """The model in a folder. Raises `UserError` for one that is incomplete or damaged."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: holds no {name}; export the model again with scripts/export_model.py")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{folder}: cannot be read ({reason}); export or download the model again") from None
    try:
        model, sampler = pick_settings(ModelConfig, config["model"]), pick_settings(SamplerSettings, config["sampler"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / CONFIG}: does not describe a model ({error}); export the model again") from None
    familiarity = {name.removeprefix(_FAMILIARITY): t for name, t in tensors.items() if name.startswith(_FAMILIARITY)}
    return Checkpoint(
        model,
        sampler,
        {name: tensor for name, tensor in tensors.items() if not name.startswith(_FAMILIARITY)},
        averaged=bool(config.get("averaged", True)),
        published=False,
        sha256=identity(folder / WEIGHTS),
        encoder_identity=config.get("encoder_identity"),
        familiarity=familiarity or None,
    )


def run_folder(found: Path) -> Path:
    """The folder of the run that left a checkpoint, as `find_model` found it; a model folder is its own."""
    return found if found.is_dir() else found.parent.parent


def folder_facts(folder: Path) -> dict[str, Any]:
    """What config.json of a model folder says."""
    facts: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return facts


def write_folder(folder: Path, checkpoint: Checkpoint, card: str, facts: dict[str, Any]) -> None:
    """Write a model folder, whole or not at all; an older one there is replaced, anything else is a `UserError`.

    Args:
        checkpoint: one of ours.
        card: the text of README.md.
        facts: what else config.json says, e.g. the commit of the training.
    """
    is_model = all((folder / name).is_file() for name in (CONFIG, WEIGHTS))
    if folder.exists() and not is_model and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is no exported model; choose another OUT")
    tensors = dict(checkpoint.weights)
    tensors |= {_FAMILIARITY + name: tensor for name, tensor in (checkpoint.familiarity or {}).items()}
    config = {
        "model": asdict(checkpoint.config),
        "sampler": asdict(checkpoint.sampler),
        "averaged": checkpoint.averaged,
        "encoder_identity": checkpoint.encoder_identity,
        **facts,
    }
    with whole_folder(folder) as part:
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        (part / WEIGHTS).write_bytes(content)  # a full disk is an error of Python's here
        write_json(part / CONFIG, config)
        write_text(part / CARD, card)


def _download(repository: str) -> Path:
    """The folder of a Hugging Face repository, from the cache or from the hub."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{repository}: needs huggingface_hub; run `pip install huggingface_hub`") from None
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except Exception as error:  # the many ways in which a download can fail
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{repository}: no such file here, and the Hugging Face repository of this name cannot be had "
            f"({type(error).__name__}: {reason}); check the name and the connection"
        ) from None
