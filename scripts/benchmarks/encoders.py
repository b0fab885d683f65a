"""What the benchmark measures of noise encoders: their size, their forward pass, and their share of a training step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.job import Job
from benchmarks.measure import Call, Row, clock, interleaved, ratios
from torch import Tensor

from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders import ENCODERS
from sgmse.encoders.weights import RANDOM
from sgmse.model.score_model import Batch, NoiseCondScoreModel
from sgmse.settings.config import CONFIGS, ModelConfig

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


def one(job: Job) -> list[Row]:
    """Of `job.encoder`, in the preset that fits the device."""
    torch.set_num_threads(job.threads)
    preset = CONFIGS / ("bridge.yaml" if job.device == "cuda" else "cpu.yaml")
    settings = variants()[job.encoder]
    return rows(settings, preset, job.batch_size, job.rounds, job.device)


def rows(settings: dict[str, Any], preset: Path, items: int, rounds: int, device: str) -> list[Row]:
    """Of one encoder in the model of a preset, for a batch of `items` references of 1 s."""
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    values = {
        name: value for name, value in yaml.safe_load(preset.read_text(encoding="utf-8")).items() if name in known
    }
    frames = yaml.safe_load(preset.read_text(encoding="utf-8"))["num_frames"]
    config = ModelConfig(**(values | settings))
    model = NoiseCondScoreModel(config, SamplerSettings()).to(device).train()
    batch = random_batch(items, (frames - 1) * config.hop_length, round(REFERENCE_S * config.sample_rate), device)
    calls = {"forward": forward(model, batch), "learning": learning(model, batch), "step": step(model, batch)}
    seconds = interleaved(calls, rounds, clock(device), min_seconds=0.0)
    assert model.encoder is not None
    parameters = list(model.encoder.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return [
        Row(
            "parameters, millions", [sum(p.numel() for p in parameters) / 1e6], f"{trained / 1e6:.2f} M of them trained"
        ),
        Row("forward, s", seconds["forward"], f"{items} references of {REFERENCE_S:g} s"),
        Row("share of a training step", ratios(seconds["learning"], seconds["step"]), f"of {preset.name}"),
    ]


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


def learning(model: NoiseCondScoreModel, batch: Batch) -> Call:
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
