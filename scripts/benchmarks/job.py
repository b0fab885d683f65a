"""What one process of the benchmark measures, the process itself, and the rows it prints."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from sgmse.common.bounds import Bounds, Interval
from sgmse.common.errors import UserError
from sgmse.settings.config import Count

if TYPE_CHECKING:
    from benchmarks.measure import Row

Result = TypeVar("Result")
MIN_SECONDS = 0.3  # shorter calls are repeated until a measurement lasts about that long


Part = Literal[
    "forward", "train", "attention", "encoders", "preset", "sample", "loader", "enhance", "quality", "startup"
]


@dataclass(frozen=True)
class Settings:
    """What to measure"""

    parts: list[Part] = field(default_factory=lambda: ["forward", "train", "preset", "loader"])
    """what to measure"""
    nf: Annotated[list[int], Bounds(1)] = field(default_factory=lambda: [128, 32])
    """widths of the network"""
    num_frames: Count = 256
    """STFT frames of a crop"""
    batch_size: Count | None = None
    """crops per pass or step. Default: 1, on CUDA 8"""
    threads: Count | None = None
    """threads of torch. Default: torch's own choice"""
    rounds: Count = 5
    """measurements of each thing"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs"""
    published: Path | None = None
    """checkout of sp-uhh/sgmse to compare with"""
    speech_dir: list[str] = field(default_factory=list)
    """speech for the loader and for quality, as for train.py"""
    noise_dir: list[str] = field(default_factory=list)
    """noise for the loader and for quality, as for train.py"""
    ckpt: Path | None = None
    """checkpoint for enhance"""
    against: Path | None = None
    """OUVE checkpoint for the published sampler"""
    test_dir: Path | None = None
    """folder with noisy/, clean/ and ref/ for enhance"""
    max_files: Count | None = None
    """so many files, spread over --test_dir. Default: all"""
    steps: Count | None = None
    """steps of --ckpt. Default: as stored in it"""
    guidance_scale: float = 3.0
    """w when guided"""
    interval: Annotated[list[float], Interval(0, 1)] = field(default_factory=lambda: [0.3, 0.7])
    """diffusion times between which guidance acts"""
    train_s: Annotated[float, Bounds(0, excluded=(0,))] = 600.0
    """processor seconds of training of each way of quality"""
    compile: bool = False
    """compile the networks of forward, train, sample and enhance"""
    quick: bool = False
    """nf 8, 64 frames, one round: does it run? No speed"""


@dataclass(frozen=True)
class Job(Settings):
    """What one process measures: the settings as resolved, and the one thing of many.

    Args:
        width: of the network, one of nf.
        resolutions: nominal resolutions with cross-attention.
        encoder: one of `encoders.variants`.
        way: to enhance, the one whose memory is measured; or to train, one of `quality.WAYS`.
    """

    batch_size: int = 1
    threads: int = 1
    part: str = ""
    width: int = 0
    precision: str = "32"
    resolutions: tuple[int, ...] = ()
    encoder: str = ""
    way: str = ""


def show(label: str, rows: list[Row]) -> None:
    for row in rows:
        numbers = "".join(f"{value:10.4g}" for value in (median(row.values), min(row.values), max(row.values)))
        print(f"{label:36}{row.quantity:30}{numbers}  {row.note}".rstrip(), flush=True)


def measure_alone(part: Callable[[Job], Result], job: Job) -> Result:
    """Measure in a process of its own, so that peaks of memory stay apart."""
    import torch

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(part, job).result()
        except (torch.OutOfMemoryError, BrokenProcessPool):
            remedy = "a smaller --batch_size or --nf" if job.part != "enhance" else "shorter files or --max_files"
            raise UserError(f"{job.part}, nf {job.width}: out of memory; use {remedy}") from None
        except UserError as error:  # without the traceback of the process that met it
            raise UserError(
                str(error).strip().splitlines()[-1].removeprefix("sgmse.common.errors.UserError: ")
            ) from None
