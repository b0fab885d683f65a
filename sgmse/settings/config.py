"""Every setting, declared once: name, type, default, meaning. Command-line flags and YAML keys are made from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from sgmse.common.bounds import (
    Bounds,
    Count,
    CountOrZero,
    FileName,
    Interval,
    Limit,
    NotNegative,
    OneOf,
    Positive,
    Seed,
    Share,
    Text,
    ValueName,
)
from sgmse.diffusion.losses import OBJECTIVES, LossWeighting
from sgmse.diffusion.precondition import InputScaling, OutputScaling, SkipScaling
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.sde import OUVE, PROCESSES, SBVE
from sgmse.encoders import ENCODERS
from sgmse.networks import BACKBONES


@dataclass(frozen=True)
class ModelConfig:
    """The model"""

    backbone: Annotated[str, OneOf(tuple(BACKBONES), BACKBONES)] = "ncsnpp"
    """NCSN++ variant: ncsnpp is SGMSE+ and divides its output by t; ncsnpp_v2 leaves scaling to the preconditioner;
    ncsnpp_48k has no pyramids and attends in the middle only. light: a small U-Net with a recurrent network over time,
    for a tenth of the arithmetic"""
    nf: Count = 128
    """channels of the network at full resolution"""
    ch_mult: Annotated[list[int], Bounds(1)] = field(default_factory=lambda: [1, 1, 2, 2, 2, 2, 2])
    """channels at each level, in units of nf; each level halves frequency and time"""
    num_res_blocks: Count = 2
    """residual blocks per level"""
    frequency_fold: Count = 1
    """neighbouring frequency bins folded into channels before the network; 4 makes it about four times cheaper"""

    sample_rate: Count = 16000
    """sampling rate of the model in Hz; every file is resampled to it"""
    n_fft: Count = 510
    """window length of the STFT in samples; n_fft / 2 + 1 bins"""
    hop_length: Count = 128
    """hop of the STFT in samples"""
    spec_factor: Positive = 0.15
    """factor applied to the compressed spectrogram"""
    spec_abs_exponent: Annotated[float, Bounds(0, 1, excluded=(0,))] = 0.5
    """exponent that compresses the magnitudes"""

    sde: Annotated[str, OneOf(tuple(PROCESSES))] = "ouve"
    """diffusion process: Ornstein–Uhlenbeck (SGMSE+) or Schrödinger bridge, both variance exploding"""
    theta: NotNegative = OUVE.theta
    """stiffness of the ouve process"""
    sigma_min: Positive = OUVE.sigma_min
    """smallest noise scale of the ouve process"""
    sigma_max: Positive = OUVE.sigma_max
    """largest noise scale of the ouve process"""
    k: Annotated[float, Bounds(1, excluded=(1,))] = SBVE.k
    """growth of the diffusion of the sbve process"""
    c: Positive = SBVE.c
    """scale of the diffusion of the sbve process"""
    t_eps: Annotated[float, Bounds(0, 1, excluded=(0, 1))] = 0.03
    """smallest diffusion time of training, and of sampling with ouve"""

    objective: Annotated[str, OneOf(("auto", *OBJECTIVES))] = "auto"
    """what the network learns; auto: score_matching for ouve, data_prediction for sbve. predictive: the bridge's first
    step alone, from y straight to clean speech: the control that tells what diffusion adds"""
    times: Literal["uniform", "sampler"] = "uniform"
    """diffusion times of the training of data_prediction: any, or those at which the sampler asks with N steps"""
    end_share: Share = 0.0
    """share of the training items of data_prediction at t = 1, where every sampling starts and one step is all"""
    loss_weighting: LossWeighting = "1"
    """weighting of the denoiser objective over the noise scale"""
    network_scaling: Literal["auto", "none", "1/sigma", "1/t"] = "auto"
    """scaling of the raw output; auto: 1/sigma for score_matching with ncsnpp_v2 and light, else none"""
    output: Literal["auto", "direct", "mask"] = "auto"
    """what the network's last layer holds: the spectrogram, or a mask on y and a term beside it, which start
    at y; auto: mask for light where it estimates clean speech, else direct"""
    c_in: InputScaling = "1"
    """input scaling of ncsnpp_v2 (edm: Karras et al. 2022)"""
    c_out: OutputScaling = "1"
    """output scaling of ncsnpp_v2"""
    c_skip: SkipScaling = "0"
    """skip scaling of ncsnpp_v2"""
    sigma_data: Positive = 0.1
    """standard deviation of clean spectrograms, for the edm choices"""
    magnitude_weight: NotNegative = 0.0
    """weight of the error of the compressed magnitudes in data_prediction and predictive, beside that of the complex
    spectrogram"""
    l1_weight: NotNegative = 0.001
    """weight of the L1 distance of waveforms in data_prediction and predictive"""
    si_sdr_weight: NotNegative = 0.0
    """weight of −SI-SDR in dB in data_prediction and predictive"""
    pesq_weight: NotNegative = 0.0
    """weight of a differentiable PESQ in data_prediction and predictive; PESQ then tells more than there is to hear"""

    encoder: Annotated[str, OneOf(("none", *ENCODERS), ENCODERS)] = "cnn"
    """noise encoder; none: a model without reference, the baseline"""
    cond_dim: Count = 512
    """size of the condition vector"""
    encoder_channels: Count = 32
    """channels of the first convolution of the cnn and sequence encoders"""
    encoder_checkpoint: str | None = None
    """weights of the clap or panns encoder; random: untrained ones, for trying things out. Default: the file that
    scripts/fetch_encoder.py keeps in the cache folder"""
    freeze_encoder: bool = True
    """keep the pretrained weights of clap or panns as they are; --no-freeze_encoder trains them along"""
    num_tokens: Count = 16
    """time steps of the sequence encoder's tokens"""
    token_bands: Count = 1
    """frequency bands with a token of their own in the sequence encoder; 1: one token per time step"""
    cross_attention_resolutions: list[int] = field(default_factory=list)
    """nominal resolutions (256 / 2^level) at which the network attends to the tokens of the reference, e.g. 64 32 16"""
    attention_band_bias: bool = False
    """cross-attention prefers tokens of its own frequency band, more or less by learnt slopes; needs --token_bands of 2
    or more"""
    attention_temperature: bool = False
    """cross-attention learns how sharply each head chooses among the tokens"""
    film: bool = False
    """the condition's vector scales and shifts the channels of NCSN++ after the norm of each block (FiLM), not by a
    shift before it; light does so always"""
    reference_statistics: bool = False
    """beside what the encoder says, four more input channels of the network, for each frequency bin: mean, 10 % and
    90 % quantile of the reference's log-magnitude over time, and whether there is a reference"""
    reference_prepend: bool = False
    """beside what the encoder says, two seconds of the reference and a gap go before the mixture in one input of the
    network, whose output for them is cut off"""
    null_condition: Literal["zero", "learned"] = "zero"
    """what stands for "no reference" """
    cond_drop_prob: Annotated[float, Bounds(0, 1)] = 0.1
    """share of training items whose reference is dropped; 0 leaves no null condition to guide against"""
    infonce_weight: NotNegative = 0.0
    """weight of the contrast between the two halves of each reference and those of other noises (InfoNCE)"""
    band_level_weight: NotNegative = 0.0
    """weight of the error in predicting the band levels of the mixture's noise from the reference"""

    def resolved_objective(self) -> str:
        if self.objective != "auto":
            return self.objective
        return next(name for name, objective in OBJECTIVES.items() if objective.process is PROCESSES[self.sde])

    def resolved_scaling(self) -> Literal["none", "1/sigma", "1/t"]:
        if self.network_scaling != "auto":
            return self.network_scaling
        fixed = BACKBONES[self.backbone].fixed_scaling
        return "1/sigma" if self.resolved_objective() == "score_matching" and not fixed else "none"

    def resolved_output(self) -> Literal["direct", "mask"]:
        if self.output != "auto":
            return self.output
        estimates_speech = OBJECTIVES[self.resolved_objective()].predicts == "clean"
        return "mask" if estimates_speech and BACKBONES[self.backbone].masks else "direct"


@dataclass(frozen=True)
class DataConfig:
    """Training data"""

    base_dir: str | None = None
    """paired corpus: {train,valid,test}/{clean,noisy}, names and lengths equal"""
    speech_dir: list[str] = field(default_factory=list)
    """clean speech for dynamic mixing, with train/ and valid/ inside; repeatable"""
    noise_dir: list[str] = field(default_factory=list)
    """noise for dynamic mixing, with train/ and valid/ inside (without them: training only); repeatable"""
    mix_snr_db: Annotated[list[float], Interval()] = field(default_factory=lambda: [-5.0, 15.0])
    """lowest and highest signal-to-noise ratio of dynamic mixing in dB"""
    reference_s: Annotated[list[float], Interval(0, excluded=(0,))] = field(default_factory=lambda: [0.25, 2.0])
    """shortest and longest noise reference in seconds"""
    num_frames: Annotated[int, Bounds(2)] = 256
    """STFT frames of a training crop"""
    noise_augment: list[Text] = field(default_factory=list)
    """transforms of noise and reference alike in dynamic mixing, for training only, with their probabilities, e.g.
    mix=0.3 stretch=0.2; kinds: mix, stretch, pitch, concatenate, equalise, gain"""
    synthetic_share: Share = 0.0
    """share of the training mixtures of dynamic mixing whose noise is computed: colours, hum, sirens, pulses, chirps
    and more, the kinds of the embedded test set among them"""
    babble_share: Share = 0.0
    """share of the training mixtures of dynamic mixing whose noise is babble of 3-8 other talkers of --speech_dir"""
    talker_share: Share = 0.0
    """share of the training mixtures of dynamic mixing whose noise is one other talker of --speech_dir"""
    voice_speed: Annotated[float, Bounds(0, 0.5)] = 0.0
    """training talkers of dynamic mixing, the target and the other one, each speak up to this share faster or slower,
    pitch and all: more voices than the corpus holds"""
    mismatched_share: Share = 0.0
    """share of the training mixtures of dynamic mixing whose reference is another noise, at the right one's level"""
    reference_gain_db: Annotated[float, Bounds(0, 30)] = 0.0
    """training references of dynamic mixing are up to this many dB louder or softer than their noise"""
    rir_dir: list[str] = field(default_factory=list)
    """room impulse responses for the training speech of dynamic mixing, for --rir_share; repeatable"""
    rir_share: Share = 0.0
    """share of the training mixtures of dynamic mixing whose speech, the target too, is reverberant; needs --rir_dir"""
    batch_size: Count = 8
    """training crops per device and step"""
    num_workers: CountOrZero = 4
    """processes that prepare batches"""
    num_eval_files: CountOrZero = 20
    """validation files that are enhanced and scored; 0: none"""
    num_valid_items: Count = 64
    """crops for the validation loss"""


@dataclass(frozen=True)
class TrainConfig:
    """Training"""

    lr: Positive = 1e-4
    """learning rate of AdamW"""
    weight_decay: NotNegative = 0.0
    """each step takes lr · weight_decay of every weight away; with 0 AdamW is Adam"""
    encoder_lr_factor: Positive = 0.1
    """factor on lr for the pretrained weights of an encoder that is not frozen"""
    warmup_steps: CountOrZero = 500
    """steps over which the learning rate grows to lr"""
    lr_decay: Literal["none", "cosine"] = "none"
    """cosine brings the learning rate to zero at max_steps"""
    grad_clip: NotNegative = 1.0
    """largest norm of the gradient; 0: no clipping"""
    ema_decay: Annotated[float, Bounds(0, 1, excluded=(1,))] = 0.999
    """decay of the averaged weights, which validation and enhancement use"""
    accumulate_grad_batches: Count = 1
    """batches per step"""
    max_steps: Limit = -1
    """stop after this many steps; -1: no limit"""
    max_epochs: Limit = -1
    """stop after this many epochs; -1: no limit"""
    max_minutes: NotNegative = 0.0
    """stop after this many minutes of training, resumed ones counted; 0: no limit"""
    val_every_n_steps: Count = 1000
    """steps between validations"""
    save_every_n_steps: Count = 5000
    """steps between checkpoints that are kept (last.ckpt is renewed at each validation)"""
    precision: Literal["32", "bf16-mixed"] = "32"
    """arithmetic of the network; spectrograms stay in 32 bit"""
    compile: bool = False
    """compile the network with torch.compile (needs g++ on a CPU, gcc on CUDA)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train"""
    devices: Count = 1
    """number of devices, on each node"""
    num_nodes: Count = 1
    """number of nodes; more than one are started by srun or torchrun, one process per device"""
    seed: Seed = 0
    """drives mixing, references, dropping, diffusion times and noise"""
    log_dir: str = "logs"
    """folder of runs; each gets a folder of its own"""
    run_dir: str | None = None
    """folder of this run. A new run where there is no checkpoint in it, else that run goes on: the same command starts
    and resumes. Default: a new folder below log_dir"""
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"
    """where curves go; always to CSV files too"""
    wandb_name: str | None = None
    """name of the W&B run"""
    wandb_group: str | None = None
    """group of the W&B run, e.g. the experiment that several seeds belong to"""
    wandb_tags: list[str] = field(default_factory=list)
    """tags of the W&B run; repeatable"""
    nolog: bool = False
    """log nothing"""
    ckpt: str | None = None
    """checkpoint to resume from, exactly where it stopped"""
    init_ckpt: str | None = None
    """checkpoint or model folder whose weights a new run starts from, as far as names and sizes agree"""


@dataclass(frozen=True)
class EnhanceConfig:
    """Enhancement"""

    noisy: list[str] = field(default_factory=list, metadata={"positional": True})
    """noisy recordings, or one folder of them. - : one recording from stdin, its result as WAV to stdout. Default: the
    test set that comes along"""
    enhanced_dir: Annotated[str | None, ValueName("OUT")] = field(default=None, metadata={"short": "-o"})
    """folder of the enhanced files, names kept; for one noisy file also the name of its result, such as out.wav.
    Default: enhanced/RUN"""
    test_dir: str | None = None
    """the same as a folder without flag: noisy files at any depth, or a test set with noisy/ and ref/ inside"""
    ckpt: str | None = None
    """checkpoint, ours or one of sp-uhh/sgmse; a model folder; small, the model that comes along; or OWNER/NAME on
    Hugging Face. Default: the newest below logs/, best PESQ first, else small"""
    encoder_checkpoint: str | None = None
    """weights of a frozen clap or panns encoder. Default: where they were in training, else in the cache folder"""
    reference: (
        Literal["disjoint", "same_class", "other_take", "mismatched", "oracle", "estimated", "dtln", "self", "none"]
        | None
    ) = None
    """where references come from. Of a test set: disjoint (ref/ beside noisy/), same_class, other_take, mismatched,
    oracle (ref_NAME/; without it same_class and mismatched borrow from other items, by the kinds in manifest.csv).
    From each noisy file alone: estimated (stretches without speech, else spectral minima), dtln (what the enhancer DTLN
    takes away), self (what a first pass without reference takes away; twice the cost). none: the null condition.
    Default: disjoint if there is ref/, else estimated"""
    noise_ref: FileName | None = None
    """one noise recording for all files"""
    noise_ref_dir: str | None = None
    """a noise recording per file: same relative path, or a stem that no other file has"""
    oracle_noise: bool = False
    """use all of the file's own noise (noisy − clean) as reference: an upper bound that leaks; needs --clean_dir"""
    clean_dir: str | None = None
    """clean files for --oracle_noise, found as those of --noise_ref_dir; same rate and length"""
    t_eps: Annotated[float | None, Bounds(0, 1, excluded=(0, 1))] = None
    """smallest diffusion time of sampling with ouve. Default: as trained"""
    batch_size: Count = 1
    """waveforms (files, channels, samples) per network call; files of similar length share one"""
    chunk_s: Annotated[float, Bounds(0)] = 30.0
    """enhance longer files in parts of so many seconds, in the memory of one part. 0: every file as a whole"""
    overlap_s: Annotated[float, Bounds(0, excluded=(0,))] = 1.0
    """seconds that neighbouring parts share and are cross-faded over"""
    channels: Literal["each", "mix"] = "each"
    """of multichannel files: enhance each channel, or their average (mono files come out)"""
    keep_highband: bool = False
    """of files above the model's rate: pass on unchanged what lies above the model's bandwidth (else it is removed)"""
    num_samples: Count = 1
    """samples drawn per file; their mean is written, and how far they disagree: in run.json and as a picture"""
    seed: Seed = 0
    """drives sampling; each file draws its own noise from it and its name"""
    shard: str | None = None
    """K/N, K from 1: enhance only the K-th of N shares of the files, all into one folder, so that N processes or jobs
    do the work of one at the same time"""
    precision: Literal["32", "bf16-mixed"] = "32"
    """arithmetic of the networks; spectrograms stay in 32 bit"""
    compile: bool = False
    """compile the network with torch.compile, once per length of file at worst (needs g++ on a CPU, gcc on CUDA)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to run"""


CONFIGS = Path(str(files("sgmse"))) / "configs"  # the presets and the experiments, which come with the package
TRAIN_GROUPS = (ModelConfig, SamplerSettings, DataConfig, TrainConfig)


CONDITIONING = frozenset(
    """encoder cond_dim encoder_channels encoder_checkpoint freeze_encoder encoder_lr_factor num_tokens token_bands
    cross_attention_resolutions attention_band_bias attention_temperature film reference_statistics reference_prepend
    null_condition cond_drop_prob infonce_weight band_level_weight reference_s mismatched_share
    reference_gain_db""".split()
)
