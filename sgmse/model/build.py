"""From settings to the parts of a model: the only place where a name becomes an object."""

from __future__ import annotations

from dataclasses import asdict, fields

from torch import nn

from sgmse.diffusion.conditioning import LearnedNull, ZeroNull
from sgmse.diffusion.losses import OBJECTIVES
from sgmse.diffusion.precondition import Preconditioner
from sgmse.diffusion.sde import PROCESSES, SDE
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders import ENCODERS
from sgmse.encoders.base import NoiseEncoder
from sgmse.encoders.levels import CHANNELS
from sgmse.model.auxiliary import AuxiliaryLosses
from sgmse.networks import BACKBONES
from sgmse.networks.layers import Network
from sgmse.settings.config import ModelConfig


def make_transform(config: ModelConfig) -> SpectrogramTransform:
    return SpectrogramTransform(config.n_fft, config.hop_length, config.spec_factor, config.spec_abs_exponent)


def make_sde(config: ModelConfig) -> SDE:
    process = PROCESSES[config.sde]
    return process(**{f.name: getattr(config, f.name) for f in fields(process)})


def make_preconditioner(config: ModelConfig, sde: SDE) -> Preconditioner:
    return Preconditioner(
        sde,
        scaling=config.resolved_scaling(),
        c_in=config.c_in,
        c_out="-1" if BACKBONES[config.backbone].fixed_scaling else config.c_out,
        c_skip=config.c_skip,
        sigma_data=config.sigma_data,
    )


def make_backbone(config: ModelConfig) -> Network:
    return BACKBONES[config.backbone].make(
        bins=config.n_fft // 2 + 1,
        nf=config.nf,
        ch_mult=tuple(config.ch_mult),
        num_res_blocks=config.num_res_blocks,
        frequency_fold=config.frequency_fold,
        one_step=OBJECTIVES[config.resolved_objective()].one_step,
        condition_dim=None if config.encoder == "none" else config.cond_dim,
        cross_attention_resolutions=tuple(config.cross_attention_resolutions),
        attention_bands=config.token_bands if config.attention_band_bias else 0,
        attention_temperature=config.attention_temperature,
        film=config.film,
        statistics_channels=CHANNELS if config.reference_statistics else 0,
        output_channels=4 if config.resolved_output() == "mask" else 2,
    )


def make_encoder(config: ModelConfig, transform: SpectrogramTransform, load_pretrained: bool) -> NoiseEncoder | None:
    """The noise encoder, or None for a model without one. `load_pretrained` False: a checkpoint holds its weights."""
    if config.encoder == "none":
        return None
    # checkpoints leave out what is frozen, so that is always read from its own file
    load_pretrained = load_pretrained or config.freeze_encoder
    return ENCODERS[config.encoder].from_settings(asdict(config), transform, load_pretrained)


def make_null(config: ModelConfig) -> nn.Module | None:
    """Maps a condition to the null of its shape; None for a model without encoder."""
    if config.encoder == "none":
        return None
    return ZeroNull() if config.null_condition == "zero" else LearnedNull(config.cond_dim)


def make_auxiliary(config: ModelConfig) -> AuxiliaryLosses | None:
    weights = config.infonce_weight, config.band_level_weight
    if config.encoder == "none" or not any(weights):
        return None
    return AuxiliaryLosses(config.cond_dim, config.sample_rate, *weights)
