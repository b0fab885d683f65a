"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from sgmse.common.errors import UserError

if TYPE_CHECKING:  # a second to load, which most commands need not pay
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG that appears whole or not at all."""
    with temporary(path) as part:
        figure.savefig(part, format="png")
        os.replace(part, path)


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, removed at the end; what fails with it becomes one sentence about `path`."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: cannot be written ({failure_of(error)}); check the folder, its rights and the disk"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def failure_of(error: Exception) -> str:
    """The system's own words for `error`, without the path that our message names already."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return str(text).strip().rstrip(".")
