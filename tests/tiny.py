"""A model small enough for tests, and a batch for it."""

import torch

from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import Noise, SamplerSettings
from sgmse.model.enhancer import Enhanced, Enhancer
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings.config import ModelConfig, TrainConfig

SIZE = {"backbone": "ncsnpp_v2", "nf": 4, "ch_mult": [1, 1], "num_res_blocks": 1, "frequency_fold": 8}
SIZE |= {"cond_dim": 16, "encoder_channels": 2, "sde": "sbve"}


def tiny(train: TrainConfig | None = None, sampler: SamplerSettings | None = None, **settings) -> NoiseCondScoreModel:
    """A model with random weights everywhere: a fresh one starts at zero and would hide mistakes."""
    config = ModelConfig(**{**SIZE, **settings})
    model = NoiseCondScoreModel(config, sampler or SamplerSettings(N=2), train)
    generator = torch.Generator().manual_seed(0)
    for p in model.backbone.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.1, generator=generator)
    return model


def batch(size: int = 2, samples: int = 2048, reference: int = 6000) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, size, samples, generator=generator) * 0.1
    return {
        "clean": clean,
        "noisy": clean + noise,
        "reference": torch.randn(size, reference, generator=generator) * 0.1,
        "reference_length": torch.full((size,), reference),
    }


def enhanced(
    model: Enhancer,
    noisy: torch.Tensor,
    reference: torch.Tensor | None,
    noise: Noise,
    scale: float | str = 1.0,
    **options,
) -> Enhanced:
    """Waveforms [B, N] with their references [B, M], each as long as the batch."""
    encoded = model.encode_reference(reference, noisy.abs().amax(dim=-1))
    return model.enhance_batch(noisy, encoded, noise, GuidanceSettings(guidance_scale=scale), **options)
