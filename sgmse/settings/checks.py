"""Which settings cannot work, alone or together. Each check raises `UserError` with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError
from sgmse.data.mixing import LARGEST_SNR_DB
from sgmse.data.noise import augment
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.diffusion.losses import OBJECTIVES, PESQ_S
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, sampler_name
from sgmse.diffusion.sde import PROCESSES
from sgmse.encoders import ENCODERS
from sgmse.networks import BACKBONES
from sgmse.settings.config import DataConfig, EnhanceConfig, ModelConfig, TrainConfig

LOWEST_RATE = 4000  # in Hz; catches rates given in kHz


def check_model(config: ModelConfig, sampler: SamplerSettings) -> None:
    """Raise `UserError` for values that cannot work together, whoever set them."""
    check_bounds(config)
    objective = config.resolved_objective()
    process = PROCESSES[config.sde]
    check_sampler(sampler, objective)
    sampler_name(sampler, process())
    if OBJECTIVES[objective].process is not process:
        fitting = " or ".join(name for name, other in OBJECTIVES.items() if other.process is process)
        raise UserError(f"--objective {objective} does not fit --sde {config.sde}; use {fitting}, or --objective auto")
    for name in ("film", "reference_statistics", "reference_prepend"):
        if getattr(config, name) and config.encoder == "none":
            raise UserError(f"--{name} uses a reference, and --encoder none takes none; leave one of them out")
    if config.sigma_min >= config.sigma_max:
        raise UserError(f"--sigma_min {config.sigma_min} must be less than --sigma_max {config.sigma_max}; change one")
    if BACKBONES[config.backbone].fixed_scaling:
        if objective != "score_matching":
            raise UserError(
                f"--backbone {config.backbone} predicts a score only; use --backbone ncsnpp_v2 or light for {objective}"
            )
        scaled = (config.network_scaling, config.c_in, config.c_out, config.c_skip)
        if scaled != ("auto", "1", "1", "0") and scaled != ("none", "1", "1", "0"):
            raise UserError(
                f"--backbone {config.backbone} has a fixed scaling; use ncsnpp_v2 or light to choose another"
            )
    elif config.sde == "sbve":
        _check_bridge_scaling(config)
    if config.resolved_output() == "mask":
        plain = config.resolved_scaling() == "none" and (config.c_out, config.c_skip) == ("1", "0")
        if OBJECTIVES[objective].predicts != "clean" or not plain:
            raise UserError(
                "--output mask estimates clean speech; use it with --objective data_prediction or predictive and no "
                "other scaling, or use --output direct"
            )
    if config.sample_rate < LOWEST_RATE:
        raise UserError(f"--sample_rate {config.sample_rate} is too low for speech; use {LOWEST_RATE} Hz or more")
    gives_tokens = [name for name, encoder in ENCODERS.items() if encoder.card.gives_tokens]
    if config.cross_attention_resolutions and config.encoder not in gives_tokens:
        raise UserError(
            f"--cross_attention_resolutions attends to the tokens of a reference, and --encoder {config.encoder} gives "
            f"none; use --encoder {' or '.join(gives_tokens)}, or add a --config file with the line "
            "`cross_attention_resolutions: []`"
        )
    for name in ("attention_band_bias", "attention_temperature"):
        if getattr(config, name) and not config.cross_attention_resolutions:
            raise UserError(f"--{name} is of cross-attention; add --cross_attention_resolutions, e.g. 64 32 16")
    if config.film and config.backbone == "light":
        raise UserError(
            "--film is for the backbones of NCSN++; light scales and shifts after the norm always: leave it out"
        )
    if config.attention_band_bias and (config.encoder != "sequence" or config.token_bands < 2):
        raise UserError("--attention_band_bias needs tokens by band; use --encoder sequence --token_bands 4")
    if config.hop_length > config.n_fft // 2:
        raise UserError(f"--hop_length {config.hop_length} leaves gaps; use n_fft / 2 = {config.n_fft // 2} or less")
    bins, multiple = config.n_fft // 2 + 1, config.frequency_fold * 2 ** (len(config.ch_mult) - 1)
    if bins % multiple:
        nearest = 2 * (max(1, round(bins / multiple)) * multiple - 1)
        raise UserError(
            f"--n_fft {config.n_fft} gives {bins} bins, but the network needs a multiple of {multiple} "
            f"(frequency_fold · 2^levels); use --n_fft {nearest}"
        )


def _check_bridge_scaling(config: ModelConfig) -> None:
    """Raise `UserError` where the output of a bridge's network vanishes or explodes at t = 1, its first step."""
    # at t = 1 the bridge is at y and its σ is 0; c_out is then as σ to this power, and so is the network scaling
    power = {"sigma": 1, "edm": 1, "1/sigma": -1}.get(config.c_out, 0)
    power -= config.resolved_scaling() == "1/sigma"
    if power:
        fate = "vanishes" if power > 0 else "explodes"
        raise UserError(
            f"--c_out {config.c_out} with --network_scaling {config.resolved_scaling()}: the output of the network "
            f"{fate} at t = 1, where a bridge starts and its sigma is 0; use --c_out 1 and --network_scaling none"
        )


def check_sampler(sampler: SamplerSettings, objective: str) -> None:
    """Raise `UserError` for values that no sampler can work with, or none of a model with this objective."""
    plug_in = SAMPLERS.find(sampler.sampler)
    if plug_in is not None and (unknown := sorted(plug_in.settings - vars(sampler).keys())):
        raise UserError(f"--sampler {sampler.sampler}: reads {unknown[0]}, which SamplerSettings does not have")
    if sampler.N < 1 or sampler.corrector_steps < 1:
        raise UserError("--N and --corrector_steps count steps; use 1 or more (--corrector none for no corrector)")
    if not sampler.snr > 0:
        raise UserError(f"--snr {sampler.snr} is out of range; use more than 0 (--corrector none for no corrector)")
    if OBJECTIVES[objective].one_step and (sampler.N != 1 or sampler.published_bridge):
        wrong = "--published_bridge" if sampler.published_bridge else f"--N {sampler.N}"
        raise UserError(
            f"{wrong} does not fit the objective {objective}, which knows one step from noisy to clean, at t = 1; use "
            "--N 1 without --published_bridge"
        )


def check_data(data: DataConfig, model: ModelConfig) -> None:
    """Raise `UserError` for data settings that cannot work, alone or with the model."""
    check_bounds(data)
    if bool(data.speech_dir) != bool(data.noise_dir):
        raise UserError("dynamic mixing needs both --speech_dir and --noise_dir; add the missing one")
    _check_variation(data)
    if max(map(abs, data.mix_snr_db)) > LARGEST_SNR_DB:
        shown = " ".join(f"{snr_db:g}" for snr_db in data.mix_snr_db)
        raise UserError(f"--mix_snr_db {shown}: one of the two would be inaudible; stay within ±{LARGEST_SNR_DB} dB")
    if model.encoder != "none" and model.infonce_weight > 0 and data.batch_size < 2:
        raise UserError("--infonce_weight tells the references of a batch apart; use a --batch_size of 2 or more")
    shortest = model.n_fft // 2 // model.hop_length + 2
    if data.num_frames < shortest:
        raise UserError(f"--num_frames {data.num_frames} is shorter than one STFT window; use {shortest} or more")
    for_pesq = math.ceil(PESQ_S * model.sample_rate / model.hop_length) + 1
    if has_pesq_loss(model) and data.num_frames < for_pesq:
        raise UserError(
            f"--num_frames {data.num_frames}: crops are too short for the PESQ loss; use {for_pesq} or more, or "
            "--pesq_weight 0"
        )


def has_pesq_loss(model: ModelConfig) -> bool:
    """Whether a differentiable PESQ is part of the loss."""
    return model.pesq_weight > 0 and "pesq_weight" in OBJECTIVES[model.resolved_objective()].settings


def _check_variation(data: DataConfig) -> None:
    """Raise `UserError` for settings of dynamic mixing that cannot work, or that a corpus of pairs has no use for."""
    augment.parse(data.noise_augment)
    if data.base_dir is not None:
        for name in DYNAMIC_MIXING:
            if getattr(data, name) != getattr(DataConfig(), name):
                raise UserError(f"--{name} is for dynamic mixing, but --base_dir is a corpus of pairs; leave one out")
    shares = {name: getattr(data, name) for name in ("synthetic_share", "babble_share", "talker_share")}
    if sum(shares.values()) > 1 + 1e-9:
        given = ", ".join(f"--{name} {share:g}" for name, share in shares.items() if share)
        raise UserError(
            f"{given} (those of a preset included) add up to {sum(shares.values()):g}; they must not exceed 1, so "
            "give smaller ones"
        )
    if bool(data.rir_dir) != bool(data.rir_share):
        raise UserError("reverberant speech needs both --rir_dir and a --rir_share above 0; add the missing one")


DYNAMIC_MIXING = ["mix_snr_db", "noise_augment", "synthetic_share", "babble_share", "talker_share", "voice_speed"]
DYNAMIC_MIXING += ["mismatched_share", "reference_gain_db", "rir_dir", "rir_share"]
_NEEDS_ENCODER = {"cond_drop_prob", "null_condition", "cond_dim", "infonce_weight", "band_level_weight"}
_NEEDS_ENCODER |= {"film", "reference_statistics", "reference_prepend", "mismatched_share", "reference_gain_db"}
_OF_WANDB = ("wandb_name", "wandb_group", "wandb_tags")


def _settings_read() -> dict[str, Mapping[str, AbstractSet[str]]]:
    """What each choice reads; a setting that others read and the chosen one does not has no meaning."""
    return {
        "sde": {name: {f.name for f in fields(process)} for name, process in PROCESSES.items()},
        "objective": {name: objective.settings for name, objective in OBJECTIVES.items()},
        "encoder": {"none": set(), **{name: encoder.settings for name, encoder in ENCODERS.items()}},
        "sampler": {name: sampler.settings for name, sampler in SAMPLERS.items()},
    }


def check_typed(typed: set[str], model: ModelConfig, sampler: SamplerSettings, train: TrainConfig) -> None:
    """Raise `UserError` for settings given together that contradict each other. Defaults never conflict."""
    if model.encoder == "none" and "encoder" in typed:
        for name in typed.intersection(_NEEDS_ENCODER):
            raise UserError(f"--encoder none takes no reference, so --{name} has no meaning; leave one of them out")
    asked = {name for name in typed if getattr(model, name, None) != []}  # an empty list asks for nothing
    chosen = {"sde": model.sde, "objective": model.resolved_objective(), "encoder": model.encoder}
    chosen["sampler"] = sampler_name(sampler, PROCESSES[model.sde]())
    for choice, reads in _settings_read().items():
        others = set().union(*reads.values()) - reads[chosen[choice]]
        for name in sorted(asked & others):
            fitting = " or ".join(other for other in reads if name in reads[other])
            raise UserError(f"--{name} belongs to --{choice} {fitting}, but it is {chosen[choice]} here; leave it out")
    if "encoder_lr_factor" in typed and model.freeze_encoder:
        raise UserError("--encoder_lr_factor has no meaning for a frozen encoder; add --no-freeze_encoder")
    readers = ("c_in", "c_out", "c_skip", "loss_weighting")
    if "sigma_data" in typed and "edm" not in (getattr(model, name) for name in readers):
        raise UserError(f"--sigma_data has no meaning unless one of --{', --'.join(readers)} is edm; leave it out")
    if "base_dir" in typed and typed & {"speech_dir", "noise_dir"}:
        raise UserError("--base_dir is a corpus of pairs, --speech_dir and --noise_dir mix on the fly; give one kind")
    _check_places(typed, train)


def _check_places(typed: set[str], train: TrainConfig) -> None:
    """Raise `UserError` for places of curves and runs that contradict each other."""
    if "nolog" in typed and train.nolog and typed & {"logger", *_OF_WANDB}:
        raise UserError("--nolog turns logging off, so --logger and --wandb_… have no meaning; leave one out")
    for name in _OF_WANDB if train.logger != "wandb" else ():
        if name in typed:
            raise UserError(f"--{name} has no meaning for --logger {train.logger}; add --logger wandb or leave it out")
    if "ckpt" in typed and "run_dir" in typed:
        raise UserError("--run_dir finds the run's last checkpoint itself, so --ckpt has no meaning; leave one out")
    if "ckpt" in typed and "init_ckpt" in typed:
        raise UserError(
            "--ckpt resumes a run with its own weights, so --init_ckpt has no meaning; leave one of them out"
        )
    if "ckpt" in typed and "log_dir" in typed:
        raise UserError("--ckpt resumes a run in its own folder, so --log_dir has no meaning; leave one of them out")
    if "run_dir" in typed and "log_dir" in typed:
        raise UserError("--run_dir is the folder of the run itself, so --log_dir has no meaning; leave one of them out")


def check_guidance(guidance: GuidanceSettings) -> None:
    """Raise `UserError` for guidance that cannot work with any model, or would have no effect."""
    check_bounds(guidance)
    scale, adaptive = guidance.scale, guidance.is_adaptive
    if guidance.guidance == "auto" and guidance.weak_ckpt is None:
        raise UserError("--guidance auto needs a weaker model; give --weak_ckpt")
    if guidance.weak_ckpt is not None and guidance.guidance != "auto":
        raise UserError("--weak_ckpt serves --guidance auto only; leave it out or add --guidance auto")
    if adaptive and guidance.guidance != "cfg":
        raise UserError(
            f"--guidance_scale {ADAPTIVE} falls back to the null condition, which --guidance {guidance.guidance} does "
            "not use; give a number, or leave --guidance out"
        )
    for name in ("adaptive_full", "adaptive_near", "adaptive_far"):
        if not adaptive and getattr(guidance, name) != getattr(GuidanceSettings, name):
            raise UserError(f"--{name} serves --guidance_scale {ADAPTIVE} only; leave it out or add that")
    if guidance.adaptive_near >= guidance.adaptive_far:
        raise UserError(
            f"--adaptive_near {guidance.adaptive_near:g} must be less than --adaptive_far {guidance.adaptive_far:g}; "
            "change one"
        )
    if scale == 1 and not adaptive and guidance.guidance != "cfg":
        raise UserError("--guidance has no effect at w = 1; give another --guidance_scale, or leave it out")
    for name in ("guidance_interval", "guidance_rescale", "guidance_apg"):
        if getattr(guidance, name) and scale <= 1:
            flag = "adaptive_full" if adaptive else "guidance_scale"
            raise UserError(f"--{name} acts where w is above 1 only; give a larger --{flag}, or leave it out")


def check_enhancement(config: EnhanceConfig, guidance: GuidanceSettings) -> None:
    """Raise `UserError` for settings out of bounds, and for those that contradict each other."""
    check_bounds(config)
    names = ("reference", "noise_ref", "noise_ref_dir", "oracle_noise")
    given = [f"--{name}" for name in names if getattr(config, name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each choose the reference; give one of them")
    if config.oracle_noise and config.clean_dir is None:
        raise UserError("--oracle_noise needs the clean files; give --clean_dir")
    if config.clean_dir is not None and not config.oracle_noise:
        raise UserError("--clean_dir serves --oracle_noise only; leave it out or add --oracle_noise")
    if 0 < config.chunk_s <= config.overlap_s:
        raise UserError(
            f"--overlap_s {config.overlap_s:g} must be less than --chunk_s {config.chunk_s:g}, of which it is a part; "
            "change one"
        )
    check_guidance(guidance)
