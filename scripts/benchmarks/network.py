"""What the benchmark measures of the network: forward pass, training step, cross-attention."""

from __future__ import annotations

from dataclasses import replace

import torch
from benchmarks import measure, published_network
from benchmarks.job import MIN_SECONDS, Job, measure_alone, show
from benchmarks.measure import Row

from sgmse.model.build import make_backbone
from sgmse.networks import published
from sgmse.networks.attention import nominal_resolutions
from sgmse.settings.config import ModelConfig

TRAINING_FACTOR = 3  # operations of a training step, in forward passes


def speed(job: Job) -> list[Row]:
    """Rate of our network over that of the bare convolution; our speed over that of the published network."""
    torch.set_num_threads(job.threads)
    step = measure.STEPS[job.part]
    ours = make_backbone(ModelConfig(backbone="ncsnpp", nf=job.width, encoder="none"))
    data = measure.network_inputs(job.batch_size, job.num_frames, job.device)
    calls = {"ours": step(ours.to(job.device), data, job.precision)}
    memory = measure.memory_rows(calls["ours"], "ours", job.device)  # first, before anything else takes memory
    forward = measure.forward_pass(ours, data, job.precision)
    flops = measure.operations(forward) * (TRAINING_FACTOR if job.part == "train" else 1)
    bare = measure.forward_pass(*measure.bare_convolution(job.batch_size, job.num_frames, job.device), job.precision)
    calls, note = {"bare": bare} | calls, ""
    if job.published is not None:
        theirs = published_network.PublishedNCSNpp(job.published, job.width, job.device).to(job.device)
        ours.load_state_dict(published.rename(ours, theirs.network.state_dict()))
        expected = measure.forward_pass(theirs, data, job.precision)()
        difference = ((forward() - expected).norm() / expected.norm()).item()
        note = f"outputs differ by {difference:.0e}; published resampling: {theirs.resampling}"
        calls["published"] = step(theirs, data, job.precision)
    seconds = measure.time_in_turns(calls, job.rounds, measure.clock(job.device), MIN_SECONDS)
    return measure.speed_rows(seconds, flops, measure.operations(bare), job.batch_size, note) + memory


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
