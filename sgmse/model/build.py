"""From settings to objects: the only place where a name becomes a class."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from torch import nn

from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.data.dataset import ItemSettings, KeyedDataset, Paired, ValidationSet
from sgmse.data.loaders import NoiseCondDataModule
from sgmse.data.mixtures import DynamicMixing, Variation
from sgmse.data.noise import augment
from sgmse.diffusion.conditioning import LearnedNull, ZeroNull
from sgmse.diffusion.losses import Objective
from sgmse.diffusion.precondition import Preconditioner
from sgmse.diffusion.samplers import SamplerSettings, sampler_name
from sgmse.diffusion.sde import OUVE, SBVE, SDE
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders import encoder_class
from sgmse.encoders import levels as statistics
from sgmse.encoders.base import NoiseEncoder
from sgmse.model.auxiliary import AuxiliaryLosses
from sgmse.model.optimisation import Optimisation
from sgmse.model.score_model import NoiseCondScoreModel, Parts
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp
from sgmse.settings.checks import check_model
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig


def build_model(
    config: ModelConfig, sampler: SamplerSettings, train: TrainConfig | None = None, from_checkpoint: bool = False
) -> NoiseCondScoreModel:
    """The model; trainable when `train` is given. Raises `UserError` for values that do not work together.

    `from_checkpoint`: a checkpoint is loaded into it next, so that weights which that holds are read from nowhere else.
    """
    check_model(config, sampler)
    sde: SDE = (
        OUVE(config.theta, config.sigma_min, config.sigma_max) if config.sde == "ouve" else SBVE(config.k, config.c)
    )
    try:
        sampler_name(sampler, sde)
        parts = _build_parts(config, sde, load_pretrained=config.freeze_encoder or not from_checkpoint)
    except ValueError as error:
        raise UserError(f"{error}") from None
    try:
        return NoiseCondScoreModel(
            parts,
            settings=asdict(config) | asdict(sampler),
            sampler=sampler,
            t_eps=config.t_eps,
            cond_drop_prob=0.0 if config.encoder == "none" else config.cond_drop_prob,
            optimisation=None if train is None else _optimisation(train),
        )
    except ImportError as error:
        raise UserError(f"--pesq_weight needs torch-pesq ({error}); run `pip install torch-pesq`") from None


def _build_parts(config: ModelConfig, sde: SDE, load_pretrained: bool) -> Parts:
    transform = SpectrogramTransform(config.n_fft, config.hop_length, config.spec_factor, config.spec_abs_exponent)
    conditioned = config.encoder != "none"
    weights = (config.infonce_weight, config.band_level_weight) if conditioned else (0.0, 0.0)
    fixed_scaling = config.backbone != "ncsnpp_v2"  # SGMSE+'s own networks predict −score
    return Parts(
        transform=transform,
        sde=sde,
        preconditioner=Preconditioner(
            sde,
            scaling=config.resolved_scaling(),
            c_in=config.c_in,
            c_out="-1" if fixed_scaling else config.c_out,
            c_skip=config.c_skip,
            sigma_data=config.sigma_data,
        ),
        objective=Objective(
            config.resolved_objective(), config.loss_weighting, config.sigma_data, config.l1_weight, config.pesq_weight
        ),
        backbone=NCSNpp(
            VARIANTS[config.backbone],
            config.nf,
            tuple(config.ch_mult),
            config.num_res_blocks,
            config.frequency_fold,
            config.cond_dim if conditioned else None,
            tuple(config.cross_attention_resolutions),
            statistics.CHANNELS if config.reference_statistics else 0,
        ),
        encoder=_encoder(config, transform, load_pretrained) if conditioned else None,
        null=_null(config) if conditioned else None,
        auxiliary=AuxiliaryLosses(config.cond_dim, config.sample_rate, *weights) if any(weights) else None,
        pad_mode="zero" if config.backbone == "ncsnpp" else "reflect",
    )


def _null(config: ModelConfig) -> nn.Module:
    return ZeroNull() if config.null_condition == "zero" else LearnedNull(config.cond_dim)


def _encoder(config: ModelConfig, transform: SpectrogramTransform, load_pretrained: bool) -> NoiseEncoder:
    return encoder_class(config.encoder).from_settings(asdict(config), transform, load_pretrained)


def _optimisation(train: TrainConfig) -> Optimisation:
    if train.lr_decay == "cosine" and train.max_steps < 1:
        raise UserError("--lr_decay cosine ends at max_steps; give --max_steps")
    return Optimisation(
        lr=train.lr,
        encoder_lr_factor=train.encoder_lr_factor,
        warmup_steps=train.warmup_steps,
        decay_steps=train.max_steps if train.lr_decay == "cosine" else 0,
        ema_decay=train.ema_decay,
        seed=train.seed,
    )


def build_datamodule(data: DataConfig, model: ModelConfig, seed: int) -> NoiseCondDataModule:
    """Training and validation data: a paired corpus, dynamic mixing, or the embedded corpus when nothing is named."""
    settings = ItemSettings(
        sample_rate=model.sample_rate,
        crop_length=(data.num_frames - 1) * model.hop_length,
        seed=seed,
        with_reference=model.encoder != "none",
        reference_min_s=data.reference_s[0],
        reference_max_s=data.reference_s[1],
    )
    train = _dataset("train", data, settings)
    valid = _dataset("valid", data, replace(settings, seed=0))  # the same files whatever the seed of the run
    return NoiseCondDataModule(
        train,
        valid,
        ValidationSet(valid, data.num_eval_files),
        batch_size=data.batch_size,
        num_valid_items=data.num_valid_items,
        num_workers=data.num_workers,
    )


def _dataset(split: str, data: DataConfig, settings: ItemSettings) -> KeyedDataset:
    if data.base_dir is not None:
        return Paired(corpora.paired_files(data.base_dir, split), settings)
    embedded: dict[str, Any] = {kind: [str(corpora.embedded_dir() / kind)] for kind in ("speech", "noise")}
    speech = corpora.split_files(data.speech_dir or embedded["speech"], split, "speech")
    noise = corpora.split_files(data.noise_dir or embedded["noise"], split, "noise")
    low, high = data.mix_snr_db
    return DynamicMixing(speech, noise, settings, low, high, _variation(data) if split == "train" else None)


def _variation(data: DataConfig) -> Variation:
    """What is for training only: validation stays with plain mixtures, so that options can be compared by it."""
    return Variation(
        augmentation=augment.parse(data.noise_augment),
        synthetic_share=data.synthetic_share,
        babble_share=data.babble_share,
        talker_share=data.talker_share,
        mismatched_share=data.mismatched_share,
        reference_gain_db=data.reference_gain_db,
        rirs=tuple(corpora.split_files(data.rir_dir, "train", "room impulse response")) if data.rir_dir else (),
        rir_share=data.rir_share,
    )
