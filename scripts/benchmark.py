"""Measure speed as ratios, so that different machines, or one noisy machine at different times, can be compared.

forward  the published 7-level network `ncsnpp`, one pass without gradient. Its rate (operations, counted by
         torch.utils.flop_counter, over seconds) is divided by that of a bare 3×3 convolution of 128 channels on the
         same batch and image size, in channels_last and the same precision. The two take turns, round by round.
train    forward, backward, Adam and averaged weights of that network: three times the operations of its forward pass,
         by convention, over the same bare convolution (its forward pass). STFT, loading and Lightning are left out.
attention  (not by default) cross-attention to a reference of 16 tokens at each nominal resolution in turn: seconds of a
         pass and of a training step over those of the same conditioned network without it, taking turns, and the memory
         that a training step takes more.
encoders (not by default) parameters of every noise encoder, its forward pass for a batch of 8 references of 1 s, and
         the share that its forward and backward pass take of a training step of the preset that fits the device.
loader   seconds of audio that one loader process prepares per second: speech and noise mixed, references cut; plain,
         and with every augmentation, computed noise and other talkers switched on.

--published DIR, a checkout of sp-uhh/sgmse, has its backbone take turns with ours, in 32 bit: same input, same weights,
same optimiser and averaging; above 1, ours is faster. On CUDA its resampling is the compiled extension if that builds.
Memory is the peak of a process, libraries (about 0.8 GB) included; 32 bit on CUDA means TF32 in convolutions.

examples:
  python scripts/benchmark.py
  python scripts/benchmark.py --parts forward train --nf 32 --threads 1 --published ../published/sgmse
  python scripts/benchmark.py --parts attention --nf 128 --num_frames 256 --batch_size 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from scripts import measure, measure_encoders, published_network  # noqa: E402
from scripts.measure import Row  # noqa: E402
from sgmse import runs  # noqa: E402
from sgmse.backbone import published  # noqa: E402
from sgmse.backbone.layers import check_nf  # noqa: E402
from sgmse.backbone.ncsnpp import nominal_resolutions  # noqa: E402
from sgmse.build import build_datamodule, build_model  # noqa: E402
from sgmse.config import DataConfig, ModelConfig  # noqa: E402
from sgmse.data.loaders import collate  # noqa: E402
from sgmse.errors import UserError, run  # noqa: E402
from sgmse.sampling import SamplerSettings  # noqa: E402

PARTS = ("forward", "train", "attention", "encoders", "loader")
DEFAULT_PARTS = ("forward", "train", "loader")
TRAINING_FACTOR = 3  # operations of a training step, in forward passes
WARM_UP_BATCHES, BATCHES_PER_ROUND = 4, 8  # of the loader, which starts and decodes the noise files at first
VARIATION: dict[str, Any] = {
    "noise_augment": ["mix=0.5", "stretch=0.3", "pitch=0.3", "concatenate=0.3", "equalise=0.5", "gain=0.5"],
    **dict.fromkeys(("synthetic_share", "babble_share", "talker_share", "mismatched_share"), 0.2),
    "reference_gain_db": 3.0,
}
ENCODED = 8  # references in a batch
MIN_SECONDS = 0.3  # shorter calls are repeated until a measurement lasts about that long


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Args:
        frames: STFT frames of a crop.
        published: the checkout to compare with, if any.
        resolutions: nominal resolutions with cross-attention.
        encoder: one of `measure_encoders.variants`.
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


def main() -> None:
    arguments = parse_arguments()
    job, *_ = planned = list(jobs(arguments))
    name = torch.cuda.get_device_name() if job.device == "cuda" else "cpu"
    print(f"{name}, {job.threads} threads, torch {torch.__version__}; input of the network complex", end=" ")
    print(f"{job.batch_size}×1×{measure.BINS}×{job.frames}\n\n{'':66}{'median':>10}{'min':>10}{'max':>10}", flush=True)
    for job in planned:
        if job.part == "loader":
            show("loader", alone(loader, job))
            continue
        if job.part == "encoders":
            for encoder in measure_encoders.variants():
                show(encoder, alone(encoders, replace(job, encoder=encoder)))
            continue
        label = f"{job.part} nf {job.nf}" + (f" {job.precision}" if job.device == "cuda" else "")
        if job.part == "attention":
            show_attention(label, job)
            continue
        show(label, alone(speed, job))
        if job.published is not None:
            show(label, alone(published_memory, job))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=DEFAULT_PARTS, help="what to measure")
    parser.add_argument("--nf", nargs="+", type=int, default=[128, 32], metavar="N", help="widths (default: 128 32)")
    parser.add_argument("--num_frames", type=int, default=256, metavar="N", help="STFT frames of a crop (%(default)s)")
    parser.add_argument("--batch_size", type=int, metavar="N", help="crops per pass or step (default: 1; CUDA: 8)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch (default: torch's own choice)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each thing (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--published", type=Path, metavar="DIR", help="checkout of sp-uhh/sgmse to compare with")
    parser.add_argument("--speech_dir", nargs="+", default=[], metavar="DIR", help="for the loader, as for train.py")
    parser.add_argument("--noise_dir", nargs="+", default=[], metavar="DIR", help="for the loader, as for train.py")
    parser.add_argument("--quick", action="store_true", help="nf 8, 64 frames, one round: does it run? No speed.")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.nf, arguments.num_frames, arguments.rounds = [8], 64, 1
    for flag in ("num_frames", "batch_size", "threads", "rounds"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(f"--{flag} {getattr(arguments, flag)}: needs at least 1")
    if arguments.num_frames % 64:
        raise UserError(f"--num_frames {arguments.num_frames}: the network halves time six times; use a multiple of 64")
    if bool(arguments.speech_dir) != bool(arguments.noise_dir):
        raise UserError("dynamic mixing needs both --speech_dir and --noise_dir; add the missing one")
    try:
        for nf in arguments.nf:
            check_nf(nf, tuple(ModelConfig().ch_mult))
    except ValueError as error:
        raise UserError(f"--nf: {error}") from None
    if arguments.published is not None:
        published_network.check(arguments.published)
    return arguments


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    device, threads = runs.device(arguments.device), arguments.threads or torch.get_num_threads()
    batch_size = arguments.batch_size or (8 if device == "cuda" else 1)
    job = Job("", 0, device, "32", batch_size, arguments.num_frames, threads, arguments.rounds)
    for part in arguments.parts:
        if part == "encoders":
            yield replace(job, part=part, batch_size=ENCODED if not arguments.quick else 2)
            continue
        if part == "loader":
            yield replace(job, part=part, speech_dir=(*arguments.speech_dir,), noise_dir=(*arguments.noise_dir,))
            continue
        for nf in arguments.nf:
            yield replace(job, part=part, nf=nf, published=arguments.published)
            if device == "cuda":  # the published network has no bf16: its complex output exists in 32 bit only
                yield replace(job, part=part, nf=nf, precision="bf16-mixed")


def show(label: str, rows: list[Row]) -> None:
    for row in rows:
        numbers = "".join(f"{value:10.4g}" for value in (median(row.values), min(row.values), max(row.values)))
        print(f"{label:36}{row.quantity:30}{numbers}  {row.note}".rstrip(), flush=True)


def alone(part: Callable[[Job], list[Row]], job: Job) -> list[Row]:
    """Measure in a process of its own, so that peaks of memory stay apart."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(part, job).result()
        except (torch.OutOfMemoryError, BrokenProcessPool):
            raise UserError(f"{job.part}, nf {job.nf}: out of memory; use a smaller --batch_size or --nf") from None
        except UserError as error:  # without the traceback of the process that met it
            raise UserError(str(error).strip().splitlines()[-1].removeprefix("sgmse.errors.UserError: ")) from None


def speed(job: Job) -> list[Row]:
    """Rate of our network over that of the bare convolution; our speed over that of the published network."""
    torch.set_num_threads(job.threads)
    step = measure.STEPS[job.part]
    ours = build_model(ModelConfig(backbone="ncsnpp", nf=job.nf, encoder="none"), SamplerSettings()).backbone
    data = measure.network_inputs(job.batch_size, job.frames, job.device)
    calls = {"ours": step(ours.to(job.device), data, job.precision)}
    memory = measure.memory_rows(calls["ours"], "ours", job.device)  # first, before anything else takes memory
    forward = measure.forward_pass(ours, data, job.precision)
    flops = measure.operations(forward) * (TRAINING_FACTOR if job.part == "train" else 1)
    bare = measure.forward_pass(*measure.bare_convolution(job.batch_size, job.frames, job.device), job.precision)
    calls, note = {"bare": bare} | calls, ""
    if job.published is not None:
        theirs = published_network.PublishedNCSNpp(job.published, job.nf, job.device).to(job.device)
        ours.load_state_dict(published.rename(ours, theirs.network.state_dict()))
        expected = measure.forward_pass(theirs, data, job.precision)()
        difference = ((forward() - expected).norm() / expected.norm()).item()
        note = f"outputs differ by {difference:.0e}; published resampling: {theirs.resampling}"
        calls["published"] = step(theirs, data, job.precision)
    seconds = measure.interleaved(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
    return measure.speed_rows(seconds, flops, measure.operations(bare), job.batch_size, note) + memory


def published_memory(job: Job) -> list[Row]:
    assert job.published is not None
    torch.set_num_threads(job.threads)
    theirs = published_network.PublishedNCSNpp(job.published, job.nf, job.device).to(job.device)
    inputs = measure.network_inputs(job.batch_size, job.frames, job.device)
    return measure.memory_rows(measure.STEPS[job.part](theirs, inputs, job.precision), "published", job.device)


def show_attention(label: str, job: Job) -> None:
    """Time and memory of cross-attention, a line for each as soon as a resolution is measured."""
    without = alone(attention_memory, job)
    for resolution in nominal_resolutions(len(ModelConfig().ch_mult)):
        job = replace(job, resolutions=(resolution,))
        rows = alone(attention_speed, job) + measure.more(alone(attention_memory, job), without)
        show(f"{label} at {resolution}", rows)


def attention_speed(job: Job) -> list[Row]:
    """Seconds with cross-attention over seconds without it."""
    torch.set_num_threads(job.threads)
    data = measure.conditioned_inputs(job.batch_size, job.frames, job.device)
    calls = {}
    for name, resolutions in (("with", job.resolutions), ("without", ())):
        network = measure.conditioned_network(job.nf, resolutions).to(job.device)
        calls |= {f"{kind} {name}": step(network, data, job.precision) for kind, step in measure.STEPS.items()}
    seconds = measure.interleaved(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
    return [
        Row(f"{kind}, with / without", measure.ratios(seconds[f"{kind} with"], seconds[f"{kind} without"]))
        for kind in measure.STEPS
    ]


def attention_memory(job: Job) -> list[Row]:
    """Peaks of a training step, in a process that does nothing else."""
    torch.set_num_threads(job.threads)
    network = measure.conditioned_network(job.nf, job.resolutions).to(job.device)
    data = measure.conditioned_inputs(job.batch_size, job.frames, job.device)
    return measure.memory_rows(measure.training_step(network, data, job.precision), "train", job.device)


def encoders(job: Job) -> list[Row]:
    torch.set_num_threads(job.threads)
    preset = ROOT / "configs" / ("bridge.yaml" if job.device == "cuda" else "cpu.yaml")
    settings = measure_encoders.variants()[job.encoder]
    return measure_encoders.rows(settings, preset, job.batch_size, job.rounds, job.device)


def loader(job: Job) -> list[Row]:
    """Seconds of audio that one loader process prepares per second, plain and with every variation on; its memory."""
    plain = DataConfig(speech_dir=[*job.speech_dir], noise_dir=[*job.noise_dir], num_frames=job.frames)
    note = ", ".join(job.speech_dir + job.noise_dir) or "embedded corpus"
    rows = []
    for kind, data in (("plain", plain), ("all variation", replace(plain, **VARIATION))):
        rows += [
            Row(f"{kind}, audio s per s", loading_rates(data, job.rounds), note),
            Row(f"{kind}, peak memory, MiB", [measure.peak_mib(resource.RUSAGE_CHILDREN)]),
        ]
    return rows


def loading_rates(data: DataConfig, rounds: int) -> list[float]:
    train = build_datamodule(data, ModelConfig(), seed=0).train
    keys = range((WARM_UP_BATCHES + rounds * BATCHES_PER_ROUND) * data.batch_size)
    batches = DataLoader(train, data.batch_size, sampler=keys, num_workers=1, collate_fn=collate)
    arrivals = [time.perf_counter() for _ in batches]
    batch_s = data.batch_size * train.settings.crop_length / train.sample_rate
    return measure.audio_rates(arrivals[WARM_UP_BATCHES - 1 :], batch_s, BATCHES_PER_ROUND)


if __name__ == "__main__":
    run(main)
