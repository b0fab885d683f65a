"""What one process of the benchmark measures, the process itself, and the rows it prints."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from benchmarks.measure import Row

from sgmse.common.errors import UserError

Result = TypeVar("Result")
MIN_SECONDS = 0.3  # shorter calls are repeated until a measurement lasts about that long


@dataclass(frozen=True)
class Enhancement:
    """Settings of the part `enhance`.

    Args:
        against: checkpoint of the OUVE process that the published sampler runs on, if any.
        steps: of the sampler of `ckpt`; None: as stored.
        scale: w of guided enhancement. interval: diffusion times of guidance where it does not act everywhere.
        max_files: None for all of the test set.
        compile: compile the networks.
        way: the one whose memory is measured.
    """

    ckpt: Path
    test_dir: Path
    against: Path | None
    steps: int | None
    scale: float
    interval: tuple[float, float]
    max_files: int | None
    compile: bool
    way: str = ""


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Args:
        frames: STFT frames of a crop.
        published: the checkout to compare with, if any.
        resolutions: nominal resolutions with cross-attention.
        encoder: one of `encoders.variants`.
        enhancement: what the part `enhance` compares.
    """

    part: str
    nf: int
    device: str
    precision: str
    batch_size: int
    frames: int
    threads: int
    rounds: int
    published: Path | None = None
    resolutions: tuple[int, ...] = ()
    encoder: str = ""
    speech_dir: tuple[str, ...] = ()
    noise_dir: tuple[str, ...] = ()
    enhancement: Enhancement | None = None


def show(label: str, rows: list[Row]) -> None:
    for row in rows:
        numbers = "".join(f"{value:10.4g}" for value in (median(row.values), min(row.values), max(row.values)))
        print(f"{label:36}{row.quantity:30}{numbers}  {row.note}".rstrip(), flush=True)


def alone(part: Callable[[Job], Result], job: Job) -> Result:
    """Measure in a process of its own, so that peaks of memory stay apart."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(part, job).result()
        except (torch.OutOfMemoryError, BrokenProcessPool):
            remedy = "a smaller --batch_size or --nf" if job.enhancement is None else "shorter files or --max_files"
            raise UserError(f"{job.part}, nf {job.nf}: out of memory; use {remedy}") from None
        except UserError as error:  # without the traceback of the process that met it
            raise UserError(
                str(error).strip().splitlines()[-1].removeprefix("sgmse.common.errors.UserError: ")
            ) from None
