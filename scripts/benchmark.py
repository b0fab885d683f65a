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
enhance  (not by default) enhancing the files of --test_dir with --ckpt, one at a time: real-time factor, evaluations,
         passes, PESQ and memory for w = 1, for --guidance_scale, and for that inside --interval only; with --against
         also for the published sampler (30 steps of predictor and corrector, 60 evaluations) on that OUVE checkpoint.
         The ways take turns, set by set. The columns of scores are mean, low and high (95 % interval over files).
loader   seconds of audio that one loader process prepares per second: speech and noise mixed, references cut; plain,
         and with every augmentation, computed noise and other talkers switched on.

--published DIR, a checkout of sp-uhh/sgmse, has its backbone take turns with ours, in 32 bit: same input, same weights,
same optimiser and averaging; above 1, ours is faster. On CUDA its resampling is the compiled extension if that builds.
Memory is the peak of a process, libraries (about 0.8 GB) included; 32 bit on CUDA means TF32 in convolutions.

examples:
  python scripts/benchmark.py
  python scripts/benchmark.py --parts forward train --nf 32 --threads 1 --published ../published/sgmse
  python scripts/benchmark.py --parts attention --nf 128 --num_frames 256 --batch_size 1
  python scripts/benchmark.py --parts enhance --ckpt BRIDGE.ckpt --against OUVE.ckpt --test_dir SET --rounds 3
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks import encoders, enhance, loader, measure, network, published_network
from benchmarks.job import Enhancement, Job, alone, show

from sgmse.common.errors import UserError, run
from sgmse.networks.layers import check_nf
from sgmse.settings.config import ModelConfig
from sgmse.training import run as runs

PARTS = ("forward", "train", "attention", "encoders", "loader", "enhance")
DEFAULT_PARTS = ("forward", "train", "loader")
ENCODED = 8  # references in a batch


def main() -> None:
    arguments = parse_arguments()
    job, *_ = planned = list(jobs(arguments))
    name = torch.cuda.get_device_name() if job.device == "cuda" else "cpu"
    print(f"{name}, {job.threads} threads, torch {torch.__version__}; input of the network complex", end=" ")
    print(f"{job.batch_size}×1×{measure.BINS}×{job.frames}\n\n{'':66}{'median':>10}{'min':>10}{'max':>10}", flush=True)
    for job in planned:
        measured(job)


def measured(job: Job) -> None:
    """Measure and print what one job asks for."""
    label = f"{job.part} nf {job.nf}" + (f" {job.precision}" if job.device == "cuda" else "")
    if job.part == "loader":
        show("loader", alone(loader.loader, job))
    elif job.part == "enhance":
        enhance.show_ways(job)
    elif job.part == "encoders":
        for encoder in encoders.variants():
            show(encoder, alone(encoders.one, replace(job, encoder=encoder)))
    elif job.part == "attention":
        network.show_attention(label, job)
    else:
        show(label, alone(network.speed, job))
        if job.published is not None:
            show(label, alone(network.published_memory, job))


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
    parser.add_argument("--ckpt", type=Path, metavar="FILE", help="checkpoint for enhance")
    parser.add_argument("--against", type=Path, metavar="FILE", help="OUVE checkpoint for the published sampler")
    parser.add_argument("--test_dir", type=Path, metavar="SET", help="folder with noisy/, clean/, ref/ for enhance")
    parser.add_argument("--max_files", type=int, metavar="N", help="so many files, spread over SET (default: all)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of --ckpt (default: as stored in it)")
    parser.add_argument("--guidance_scale", type=float, default=3.0, metavar="W", help="when guided (%(default)s)")
    interval = "diffusion times between which guidance acts (0.3 0.7)"
    parser.add_argument("--interval", nargs=2, type=float, default=[0.3, 0.7], metavar=("LO", "HI"), help=interval)
    parser.add_argument("--compile", action="store_true", help="compile the networks of enhance")
    parser.add_argument("--quick", action="store_true", help="nf 8, 64 frames, one round: does it run? No speed.")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.nf, arguments.num_frames, arguments.rounds = [8], 64, 1
    for flag in ("num_frames", "batch_size", "threads", "rounds", "max_files", "steps"):
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
    check_enhance(arguments)
    return arguments


def check_enhance(arguments: argparse.Namespace) -> None:
    """Raise `UserError` for flags of the part `enhance` that are missing or wrong."""
    if "enhance" not in arguments.parts:
        return
    for flag in ("ckpt", "test_dir"):
        if getattr(arguments, flag) is None:
            raise UserError(f"the part enhance needs a checkpoint and a test set; add --{flag}")
    low, high = arguments.interval
    if not 0 <= low < high <= 1:
        raise UserError(f"--interval {low:g} {high:g}: give two diffusion times from 0 to 1, the lower one first")
    if not math.isfinite(arguments.guidance_scale) or arguments.guidance_scale in (0, 1):
        raise UserError(f"--guidance_scale {arguments.guidance_scale:g}: guides nothing; give another number, e.g. 3")


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
        if part == "enhance":
            yield from enhance_jobs(arguments, replace(job, part=part))
            continue
        for nf in arguments.nf:
            yield replace(job, part=part, nf=nf, published=arguments.published)
            if device == "cuda":  # the published network has no bf16: its complex output exists in 32 bit only
                yield replace(job, part=part, nf=nf, precision="bf16-mixed")


def enhance_jobs(arguments: argparse.Namespace, job: Job) -> Iterator[Job]:
    """The part `enhance` in 32 bit and, on CUDA, in bfloat16."""
    low, high = arguments.interval
    asked = Enhancement(
        arguments.ckpt,
        arguments.test_dir,
        arguments.against,
        arguments.steps,
        arguments.guidance_scale,
        (low, high),
        arguments.max_files,
        arguments.compile,
    )
    yield replace(job, enhancement=asked)
    if job.device == "cuda":
        yield replace(job, enhancement=asked, precision="bf16-mixed")


if __name__ == "__main__":
    run(main)
