"""Measure speed as ratios, so that different machines, or one noisy machine at different times, can be compared.

Seconds are those of the processor's cores, which others at work on the machine hardly change; on CUDA, of the clock.

forward  the published 7-level network `ncsnpp`, one pass without gradient. Its rate (operations, counted by
         torch.utils.flop_counter, over seconds) is divided by that of a bare 3×3 convolution of 128 channels on the
         same batch and image size, in channels_last and the same precision. The two take turns, round by round.
train    forward, backward, Adam and averaged weights of that network: three times the operations of its forward pass,
         by convention, over the same bare convolution, forward and backward. STFT, loading and Lightning are left out.
preset   seconds of the loss, and of it and its gradient, for a second of audio: of the preset that fits the device,
         without a reference and with one (CNN).
sample   (not by default) seconds for a second of audio of that preset's network at N = 5 and 30, guided and not.
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

quality  (not by default) processor seconds of one-step training, loading included, until the averaged weights score so
         much above the unprocessed validation mixtures: the light bridge of configs/cpu.yaml, the same in bfloat16, the
         same network as a one-step predictor, and NCSN++ with four bins folded, one after the other on the same data.
startup  (not by default) CPU seconds until each command has printed its help, or refused a wrong path, and until one
         file is enhanced.

--published DIR, a checkout of sp-uhh/sgmse, has its backbone take turns with ours, in 32 bit: same input, same weights,
same optimiser and averaging; above 1, ours is faster. On CUDA its resampling is the compiled extension if that builds.
Memory is the peak of a process, libraries (about 0.8 GB) included.

examples:
  python scripts/benchmark.py
  python scripts/benchmark.py --parts forward train --nf 32 --threads 1 --published ../published/sgmse
  python scripts/benchmark.py --parts train sample --nf 128 --device cuda --published ../published/sgmse
  python scripts/benchmark.py --parts attention --nf 128 --num_frames 256 --batch_size 1
  python scripts/benchmark.py --parts enhance --ckpt BRIDGE.ckpt --against OUVE.ckpt --test_dir SET --rounds 3
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.job import Job, Settings, measure_alone, show

from sgmse.common.errors import UserError, run
from sgmse.common.machine import device as find_device
from sgmse.settings.cli import read_command_line
from sgmse.settings.config import ModelConfig

ENCODED = 8  # references in a batch


def main() -> None:
    asked = read_settings()
    # these take seconds to load, which --help and a mistake need not wait for
    import torch
    from benchmarks import measure

    job, *_ = planned = list(plan_jobs(asked))
    name = torch.cuda.get_device_name() if job.device == "cuda" else "cpu"
    print(f"{name}, {job.threads} threads, torch {torch.__version__}; input of the network complex", end=" ")
    print(
        f"{job.batch_size}×1×{measure.BINS}×{job.num_frames}\n\n{'':66}{'median':>10}{'min':>10}{'max':>10}", flush=True
    )
    for job in planned:
        measure_part(job)


def measure_part(job: Job) -> None:
    """Measure and print what one job asks for."""
    from benchmarks import encoders, enhance, loader, network, quality, startup

    label = job.part + (f" nf {job.width}" if job.width else "")
    if job.device == "cuda" and job.part != "preset":  # that has an arithmetic of its own
        label += f" {job.precision}" + (", compiled" if job.compile else "")
    if job.part == "loader":
        show("loader", measure_alone(loader.loader, job))
    elif job.part in ("preset", "sample"):
        show(label, measure_alone(network.preset if job.part == "preset" else network.sampling, job))
    elif job.part == "startup":
        startup.show_startup(job)
    elif job.part == "quality":
        quality.show_quality(job)
    elif job.part == "enhance":
        enhance.show_ways(job)
    elif job.part == "encoders":
        for encoder in encoders.variants():
            show(encoder, measure_alone(encoders.measure_encoder, replace(job, encoder=encoder)))
    elif job.part == "attention":
        network.show_attention(label, job)
    else:
        show(label, measure_alone(network.speed, job))
        if job.published is not None:
            show(label, measure_alone(network.published_memory, job))


def read_settings() -> Settings:
    """The command line; what cannot be measured is refused before anything is."""
    asked = read_command_line(Settings, __doc__)
    from benchmarks import published_network

    from sgmse.networks.layers import check_nf

    if asked.quick:
        asked = replace(asked, nf=[8], num_frames=64, rounds=1, train_s=1.0)
    if asked.num_frames % 64:
        raise UserError(f"--num_frames {asked.num_frames}: the network halves time six times; use a multiple of 64")
    if bool(asked.speech_dir) != bool(asked.noise_dir):
        raise UserError("dynamic mixing needs both --speech_dir and --noise_dir; add the missing one")
    try:
        for nf in asked.nf:
            check_nf(nf, tuple(ModelConfig().ch_mult))
    except ValueError as error:
        raise UserError(f"--nf: {error}") from None
    if asked.published is not None:
        published_network.check(asked.published)
    check_enhance(asked)
    return asked


def check_enhance(asked: Settings) -> None:
    """Raise `UserError` for flags of the part `enhance` that are missing or wrong."""
    if "enhance" not in asked.parts:
        return
    for flag in ("ckpt", "test_dir"):
        if getattr(asked, flag) is None:
            raise UserError(f"the part enhance needs a checkpoint and a test set; add --{flag}")
    if asked.guidance_scale in (0, 1):
        raise UserError(f"--guidance_scale {asked.guidance_scale:g}: guides nothing; give another number, e.g. 3")


def plan_jobs(asked: Settings) -> Iterator[Job]:
    """What is measured, one after the other; on CUDA also in TF32, in bfloat16, and compiled, where that can be."""
    import torch

    device = find_device(asked.device)
    values = vars(asked) | {"device": device, "threads": asked.threads or torch.get_num_threads()}
    values["batch_size"] = asked.batch_size or (8 if device == "cuda" else 1)
    job = Job(**values)
    for part in asked.parts:
        if part == "encoders":
            yield replace(job, part=part, batch_size=ENCODED if not asked.quick else 2)
            continue
        if part in ("loader", "preset", "quality", "startup"):
            yield replace(job, part=part)
            continue
        for width in [0] if part in ("enhance", "sample") else asked.nf:
            yield replace(job, part=part, width=width)
            if device == "cuda":  # the published network has no bf16: its complex output exists in 32 bit only
                half = replace(job, part=part, width=width, precision="bf16-mixed", published=None)
                yield half
                if part in ("forward", "train", "sample"):
                    yield replace(job, part=part, width=width, precision="tf32")
                    yield replace(half, compile=True)


if __name__ == "__main__":
    run(main)
