"""What the benchmark measures of noise encoders: their size, their forward pass, and their share of a training step."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.job import Job
from benchmarks.measure import Call, Row, clock, ratios, time_in_turns
from torch import Tensor

from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS
from sgmse.encoders.weights import RANDOM
from sgmse.model.score_model import Batch, NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, ModelConfig, TrainConfig

REFERENCE_S = 1.0


def variants() -> dict[str, dict[str, Any]]:
    """Every encoder by name, the pretrained ones frozen and trained along; their weights are random: speed is equal."""
    found: dict[str, dict[str, Any]] = {}
    for name in ENCODERS:
        if not ENCODERS[name].card.pretrained:
            found[name] = {"encoder": name}
            continue
        for fate, frozen in (("frozen", True), ("trained", False)):
            found[f"{name}, {fate}"] = {"encoder": name, "freeze_encoder": frozen, "encoder_checkpoint": RANDOM}
    return found


def measure_encoder(job: Job) -> list[Row]:
    """Of `job.encoder` in the model of the preset that fits the device, for a batch of references of 1 s."""
    torch.set_num_threads(job.threads)
    name, values = preset_values(job.device)
    config = cli.take(ModelConfig, values | variants()[job.encoder])
    model = NoiseCondScoreModel(config, SamplerSettings(), TrainConfig()).to(job.device).train()
    samples, reference = (values["num_frames"] - 1) * config.hop_length, round(REFERENCE_S * config.sample_rate)
    batch = random_batch(job.batch_size, samples, reference, job.device)
    calls = {"forward": forward(model, batch), "encoder": encoder_step(model, batch), "step": step(model, batch)}
    seconds = time_in_turns(calls, job.rounds, clock(job.device), min_seconds=0.0)
    assert model.encoder is not None
    parameters = list(model.encoder.parameters())
    millions = sum(p.numel() for p in parameters) / 1e6
    trained = sum(p.numel() for p in parameters if p.requires_grad) / 1e6
    return [
        Row("parameters, millions", [millions], f"{trained:.2f} M of them trained"),
        Row("forward, s", seconds["forward"], f"{job.batch_size} references of {REFERENCE_S:g} s"),
        Row("share of a training step", ratios(seconds["encoder"], seconds["step"]), f"of {name}"),
    ]


def preset_values(device: str) -> tuple[str, dict[str, Any]]:
    """The preset that fits a device, and its settings."""
    preset = CONFIGS / ("bridge.yaml" if device == "cuda" else "cpu.yaml")
    return preset.name, cli.parse(cli.make_parser(TRAIN_GROUPS, ""), [], preset)[-1].values


def random_batch(items: int, samples: int, reference: int, device: str) -> Batch:
    clean, noise = 0.1 * torch.randn(2, items, samples, device=device)
    return {
        "clean": clean,
        "noisy": clean + noise,
        "reference": 0.1 * torch.randn(items, reference, device=device),
        "reference_length": torch.full((items,), reference, device=device),
    }


def forward(model: NoiseCondScoreModel, batch: Batch) -> Call:
    @torch.no_grad()
    def call() -> None:
        model.encode(batch["reference"], batch["reference_length"])

    return call


def encoder_step(model: NoiseCondScoreModel, batch: Batch) -> Call:
    """The encoder's part of a step: forward and backward."""

    def call() -> None:
        condition = model.encode(batch["reference"], batch["reference_length"])
        assert condition is not None
        condition.vector.sum().backward()
        model.zero_grad()

    return call


def step(model: NoiseCondScoreModel, batch: Batch) -> Call:
    """Encoder and network, forward and backward, and Adam; no Lightning, no averaging."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    generator = torch.Generator(model.device).manual_seed(0)

    def call() -> None:
        condition = model.encode(batch["reference"], batch["reference_length"])
        loss: Tensor = model.loss(batch, condition, generator)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return call
