"""Which settings cannot work, alone or together. Each check raises `UserError` with what to do about it."""

from __future__ import annotations

from sgmse.bounds import check_bounds
from sgmse.config import DataConfig, ModelConfig, TrainConfig
from sgmse.data.noise import augment
from sgmse.encoders import ENCODERS, encoder_class
from sgmse.errors import UserError
from sgmse.sampling import SETTINGS_OF, SamplerSettings


def check_model(config: ModelConfig, sampler: SamplerSettings) -> None:
    """Raise `UserError` for values that cannot work together, whoever set them."""
    check_bounds(config)
    check_sampler(sampler)
    objective = config.resolved_objective()
    if (objective == "data_prediction") != (config.sde == "sbve"):
        fitting = "data_prediction" if config.sde == "sbve" else "score_matching or denoiser"
        raise UserError(f"--objective {objective} does not fit --sde {config.sde}; use {fitting}, or --objective auto")
    if config.sigma_min >= config.sigma_max:
        raise UserError(f"--sigma_min {config.sigma_min} must be less than --sigma_max {config.sigma_max}; change one")
    if config.backbone != "ncsnpp_v2":
        if objective != "score_matching":
            raise UserError(
                f"--backbone {config.backbone} predicts a score only; use --backbone ncsnpp_v2 for {objective}"
            )
        scaled = (config.network_scaling, config.c_in, config.c_out, config.c_skip)
        if scaled != ("auto", "1", "1", "0") and scaled != ("none", "1", "1", "0"):
            raise UserError(f"--backbone {config.backbone} has a fixed scaling; use ncsnpp_v2 to choose another")
    if config.cross_attention_resolutions and config.encoder not in _GIVE_TOKENS:
        raise UserError(
            f"--cross_attention_resolutions attends to the tokens of a reference, and --encoder {config.encoder} gives "
            f"none; use --encoder {' or '.join(_GIVE_TOKENS)}"
        )
    if config.hop_length > config.n_fft // 2:
        raise UserError(f"--hop_length {config.hop_length} leaves gaps; use n_fft / 2 = {config.n_fft // 2} or less")
    bins, multiple = config.n_fft // 2 + 1, config.frequency_fold * 2 ** (len(config.ch_mult) - 1)
    if bins % multiple:
        nearest = 2 * (max(1, round(bins / multiple)) * multiple - 1)
        raise UserError(
            f"--n_fft {config.n_fft} gives {bins} bins, but the network needs a multiple of {multiple} "
            f"(frequency_fold · 2^levels); use --n_fft {nearest}"
        )


def check_sampler(sampler: SamplerSettings) -> None:
    """Raise `UserError` for values that no sampler can work with."""
    if sampler.N < 1 or sampler.corrector_steps < 1:
        raise UserError("--N and --corrector_steps count steps; use 1 or more (--corrector none for no corrector)")
    if not sampler.snr > 0:
        raise UserError(f"--snr {sampler.snr} is out of range; use more than 0 (--corrector none for no corrector)")


def check_data(data: DataConfig, model: ModelConfig) -> None:
    """Raise `UserError` for data settings that cannot work, alone or with the model."""
    check_bounds(data)
    if bool(data.speech_dir) != bool(data.noise_dir):
        raise UserError("dynamic mixing needs both --speech_dir and --noise_dir; add the missing one")
    _check_variation(data)
    shortest = model.n_fft // 2 // model.hop_length + 2
    if data.num_frames < shortest:
        raise UserError(f"--num_frames {data.num_frames} is shorter than one STFT window; use {shortest} or more")


def _check_variation(data: DataConfig) -> None:
    """Raise `UserError` for settings of dynamic mixing that cannot work, or that a corpus of pairs has no use for."""
    augment.parse(data.noise_augment)
    if data.base_dir is not None:
        for name in _DYNAMIC_MIXING:
            if getattr(data, name):
                raise UserError(f"--{name} is for dynamic mixing, but --base_dir is a corpus of pairs; leave one out")
    shares = data.synthetic_share + data.babble_share + data.talker_share
    if shares > 1 + 1e-9:
        raise UserError(
            f"--synthetic_share, --babble_share and --talker_share add up to {shares:g}; they must not exceed 1"
        )
    if bool(data.rir_dir) != bool(data.rir_share):
        raise UserError("reverberant speech needs both --rir_dir and a --rir_share above 0; add the missing one")


_DYNAMIC_MIXING = ["noise_augment", "synthetic_share", "babble_share", "talker_share", "mismatched_share"]
_DYNAMIC_MIXING += ["reference_gain_db", "rir_dir", "rir_share"]
_BY_SDE = {"ouve": {"theta", "sigma_min", "sigma_max"}, "sbve": {"k", "c"}}
_BY_OBJECTIVE = {"data_prediction": {"l1_weight", "pesq_weight"}, "denoiser": {"loss_weighting"}}
_NEEDS_ENCODER = ("cond_drop_prob", "null_condition", "cond_dim", "infonce_weight", "band_level_weight")
_PRETRAINED = tuple(name for name in ENCODERS if encoder_class(name).card.pretrained)
_GIVE_TOKENS = tuple(name for name in ENCODERS if encoder_class(name).card.gives_tokens)
_OF_SOME_ENCODERS = {
    "encoder_channels": ("cnn", "sequence"),
    "num_tokens": ("sequence",),
    "token_bands": ("sequence",),
    "encoder_checkpoint": _PRETRAINED,
    "freeze_encoder": _PRETRAINED,
    "encoder_lr_factor": _PRETRAINED,
    "cross_attention_resolutions": _GIVE_TOKENS,
}


def check_typed(typed: set[str], model: ModelConfig, sampler: SamplerSettings, train: TrainConfig) -> None:
    """Raise `UserError` for settings given together that contradict each other. Defaults never conflict."""
    if model.encoder == "none" and "encoder" in typed:
        for name in typed.intersection(_NEEDS_ENCODER):
            raise UserError(f"--encoder none takes no reference, so --{name} has no meaning; leave one of them out")
    for name, encoders in _OF_SOME_ENCODERS.items():
        if name in typed and model.encoder not in encoders:
            fitting = " or ".join(encoders)
            raise UserError(f"--{name} belongs to --encoder {fitting}, but it is {model.encoder} here; leave it out")
    if "encoder_lr_factor" in typed and model.freeze_encoder:
        raise UserError("--encoder_lr_factor has no meaning for a frozen encoder; add --no-freeze_encoder")
    choices = (("sde", model.sde, _BY_SDE), ("objective", model.resolved_objective(), _BY_OBJECTIVE))
    for choice, chosen, settings in choices:
        for other, names in settings.items():
            for name in typed.intersection(names) if other != chosen else ():
                raise UserError(f"--{name} belongs to --{choice} {other}, but it is {chosen} here; leave it out")
    method = sampler.sampler if sampler.sampler != "auto" else ("bridge_ode" if model.sde == "sbve" else "pc")
    fits = method.startswith("bridge") == (model.sde == "sbve")  # `build_model` tells where it does not
    for name in typed.intersection(set().union(*SETTINGS_OF.values()) - SETTINGS_OF[method]) if fits else ():
        raise UserError(f"--{name} has no meaning for the sampler {method}; leave it out or choose another --sampler")
    if "base_dir" in typed and typed & {"speech_dir", "noise_dir"}:
        raise UserError("--base_dir is a corpus of pairs, --speech_dir and --noise_dir mix on the fly; give one kind")
    if "nolog" in typed and train.nolog and typed & {"logger", "wandb_name"}:
        raise UserError("--nolog turns logging off, so --logger and --wandb_name have no meaning; leave one out")
    if "wandb_name" in typed and train.logger != "wandb":
        raise UserError(f"--wandb_name has no meaning for --logger {train.logger}; add --logger wandb or leave it out")
    if "ckpt" in typed and "log_dir" in typed:
        raise UserError("--ckpt resumes a run in its own folder, so --log_dir has no meaning; leave one of them out")
