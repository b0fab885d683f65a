"""What the benchmark measures of the network: forward pass, training step, preset, sampling, cross-attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from benchmarks import encoders, measure, published_network
from benchmarks.job import MIN_SECONDS, Job, measure_alone, show
from benchmarks.measure import Call, Row
from torch import Tensor

from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings, gaussian
from sgmse.enhancement.signals import Precision, autocast
from sgmse.model.build import make_backbone
from sgmse.model.score_model import Batch, NoiseCondScoreModel
from sgmse.networks import published
from sgmse.networks.attention import nominal_resolutions
from sgmse.settings import cli
from sgmse.settings.config import ModelConfig, TrainConfig

TRAINING_FACTOR = 3  # operations of a training step, in forward passes
SAMPLED_S = 4.0
YARDSTICKS: dict[str, Callable[..., Call]] = {"forward": measure.forward_pass, "train": measure.there_and_back}


def speed(job: Job) -> list[Row]:
    """Rate of our network over that of the bare convolution; our speed over that of the published network."""
    torch.set_num_threads(job.threads)
    measure.set_arithmetic(job.precision)
    step = measure.STEPS[job.part]
    config = ModelConfig(backbone="ncsnpp", nf=job.width, encoder="none")
    ours = make_backbone(config).to(job.device)
    data = measure.network_inputs(job.batch_size, job.num_frames, job.device)
    if job.compile:
        ours.compile()
    calls = {"ours": step(ours, data, job.precision)}
    memory = measure.memory_rows(calls["ours"], "ours", job.device)  # first, before anything else takes memory
    forward = measure.forward_pass(ours, data, job.precision)
    uncompiled = measure.forward_pass(make_backbone(config).to(job.device), data, job.precision)
    flops = measure.operations(uncompiled) * (TRAINING_FACTOR if job.part == "train" else 1)
    conditioned = measure.conditioned_network(job.width, ()).to(job.device)
    if job.compile:
        conditioned.compile()
    inputs = measure.conditioned_inputs(job.batch_size, job.num_frames, job.device)
    bare = YARDSTICKS[job.part](*measure.bare_convolution(job.batch_size, job.num_frames, job.device), job.precision)
    calls, note = {"bare": bare} | calls | {"conditioned": step(conditioned, inputs, job.precision)}, ""
    if job.published is not None:
        theirs = published_network.PublishedNCSNpp(job.published, job.width, job.device).to(job.device)
        ours.load_state_dict(published.rename(ours, theirs.network.state_dict()))
        expected = measure.forward_pass(theirs, data, job.precision)()
        difference = ((forward() - expected).norm() / expected.norm()).item()
        note = f"outputs differ by {difference:.0e}; published resampling: {theirs.resampling}"
        calls["published"] = step(theirs, data, job.precision)
    begin = time.perf_counter(), time.process_time()
    seconds = measure.time_in_turns(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
    wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    rows = measure.speed_rows(seconds, flops, measure.operations(bare), job.batch_size, note)
    rows += [Row("time of the clock / of the cores", [wall / cpu], "above 1 / threads: others were at work")]
    return rows + measure.busy_rows(calls["ours"], job.device) + memory


def preset(job: Job) -> list[Row]:
    """Seconds of the loss, and of it and its gradient, for a second of audio: of the preset that fits the device."""
    torch.set_num_threads(job.threads)
    name, values = encoders.preset_values(job.device)
    precision = values.get("precision", "32")
    measure.set_arithmetic(precision)
    rows = []
    for label, changes in {"without a reference": {"encoder": "none"}, "with one": {"encoder": "cnn"}}.items():
        config = cli.take(ModelConfig, values | changes)
        model = NoiseCondScoreModel(config, SamplerSettings(), TrainConfig()).to(job.device).train()  # all its losses
        if values.get("compile"):
            model.backbone.compile()
        samples = (values["num_frames"] - 1) * config.hop_length
        batch = encoders.random_batch(values["batch_size"], samples, config.sample_rate, job.device)
        loss = _loss(model, batch, precision)
        calls = {"forward": torch.no_grad()(loss), "and backward": _backward(loss)}
        seconds = measure.time_in_turns(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
        audio_s = values["batch_size"] * samples / config.sample_rate
        note = f"for a second of audio, {name}"
        rows += [Row(f"{label}, {what}, s", [s / audio_s for s in found], note) for what, found in seconds.items()]
    return rows


def _loss(model: NoiseCondScoreModel, batch: Batch, precision: Precision) -> Callable[[], Tensor]:
    generator = torch.Generator(model.device).manual_seed(0)

    def call() -> Tensor:
        with autocast(model.device, precision):
            condition = model.encode(batch["reference"], batch["reference_length"])
            return model.loss(batch, condition, generator)[0].mean()

    return call


def _backward(loss: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: loss().backward()


def sampling(job: Job) -> list[Row]:
    """Seconds for a second of audio of the preset that fits the device, with a reference, over a batch of files."""
    torch.set_num_threads(job.threads)
    measure.set_arithmetic(job.precision)
    name, values = encoders.preset_values(job.device)
    model = NoiseCondScoreModel(cli.take(ModelConfig, values | {"encoder": "cnn"}), SamplerSettings())
    model = model.eval().to(job.device)
    if job.compile:
        model.backbone.compile()
    rate = model.settings["sample_rate"]
    noisy, reference = 0.1 * torch.randn(2, job.batch_size, round(SAMPLED_S * rate), device=job.device)
    encoded = model.encode_reference(reference, noisy.abs().amax(dim=-1))
    noise = gaussian(torch.Generator(job.device).manual_seed(0))

    def enhance(steps: int, scale: float) -> Call:
        guidance, sampler = GuidanceSettings(guidance_scale=scale), SamplerSettings(N=steps)

        def call() -> None:
            with autocast(model.device, "32" if job.precision == "tf32" else job.precision):
                model.enhance_batch(noisy, encoded, noise, guidance, sampler)

        return call

    calls = {f"N = {steps}, w = {scale:g}": enhance(steps, scale) for steps in (5, 30) for scale in (1.0, 3.0)}
    seconds = measure.time_in_turns(calls, job.rounds, measure.clock(job.device), 0.0)
    audio_s = job.batch_size * SAMPLED_S
    note = f"for a second of audio, {job.batch_size} recordings of {SAMPLED_S:g} s, {name}"
    rows = [Row(f"{label}, s", [s / audio_s for s in found], note) for label, found in seconds.items()]
    guided = calls["N = 5, w = 3"]
    return rows + measure.busy_rows(guided, job.device) + measure.memory_rows(guided, "sampling", job.device)


def published_memory(job: Job) -> list[Row]:
    assert job.published is not None
    torch.set_num_threads(job.threads)
    theirs = published_network.PublishedNCSNpp(job.published, job.width, job.device).to(job.device)
    inputs = measure.network_inputs(job.batch_size, job.num_frames, job.device)
    return measure.memory_rows(measure.STEPS[job.part](theirs, inputs, job.precision), "published", job.device)


def show_attention(label: str, job: Job) -> None:
    """Time and memory of cross-attention, a line for each as soon as a resolution is measured."""
    without = measure_alone(attention_memory, job)
    for resolution in nominal_resolutions(len(ModelConfig().ch_mult)):
        job = replace(job, resolutions=(resolution,))
        rows = measure_alone(attention_speed, job) + measure.excess_rows(measure_alone(attention_memory, job), without)
        show(f"{label} at {resolution}", rows)


def attention_speed(job: Job) -> list[Row]:
    """Seconds with cross-attention over seconds without it."""
    torch.set_num_threads(job.threads)
    data = measure.conditioned_inputs(job.batch_size, job.num_frames, job.device)
    calls = {}
    for name, resolutions in (("with", job.resolutions), ("without", ())):
        network = measure.conditioned_network(job.width, resolutions).to(job.device)
        calls |= {f"{kind} {name}": step(network, data, job.precision) for kind, step in measure.STEPS.items()}
    seconds = measure.time_in_turns(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
    return [
        Row(f"{kind}, with / without", measure.ratios(seconds[f"{kind} with"], seconds[f"{kind} without"]))
        for kind in measure.STEPS
    ]


def attention_memory(job: Job) -> list[Row]:
    """Peaks of a training step, in a process that does nothing else."""
    torch.set_num_threads(job.threads)
    network = measure.conditioned_network(job.width, job.resolutions).to(job.device)
    data = measure.conditioned_inputs(job.batch_size, job.num_frames, job.device)
    return measure.memory_rows(measure.training_step(network, data, job.precision), "train", job.device)
