"""Embeddings of fixed references, kept on disk: a frozen network need not see the same noise twice."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.common.files import whole_file

_VERSION = 1  # of what happens between a reference and its embedding; raise it when that changes


class EmbeddingCache:
    """One file per reference. What cannot be read is a miss; where nothing can be written nothing is kept.

    Args:
        folder: of one encoder with one set of weights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under a key, or None."""
        try:
            return load(self._path(key).read_bytes())
        except (OSError, SafetensorError, ValueError):
            return None

    def store(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors under a key; other processes see all of them or nothing."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        with suppress(UserError), whole_file(self._path(key)) as part:  # a cache that cannot be written is only slower
            part.write_bytes(content)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def audio_key(waveform: Tensor, sample_rate: int) -> str:
    """A name for the content of a recording [N] with its peak at 1: equal to 16 bits is equal."""
    samples = (waveform.detach().cpu() * 32767).round().to(torch.int16).numpy()
    return hashlib.sha256(f"{_VERSION} {sample_rate} ".encode() + samples.tobytes()).hexdigest()


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """16 hexadecimal digits that tell weights apart which come from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
