"""What encoders around a pretrained audio network have in common."""

from __future__ import annotations

import pickle
import sys
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from sgmse.common.errors import UserError, is_of_machine
from sgmse.common.files import cache_folder
from sgmse.diffusion.conditioning import POSITION_SPAN, Condition, centres, sinusoids
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.base import NoiseEncoder
from sgmse.encoders.cache import EmbeddingCache, audio_key, weights_digest
from sgmse.encoders.levels import NUM_BANDS, band_levels, level
from sgmse.encoders.weights import RANDOM, PublishedWeights, identity, locate, read, wrong_file

PREFIX_S = 2.0  # of a reference that goes before the mixture; longer ones are cut, shorter ones repeated
GAP_S = 0.25  # silence between the two
QUIETEST_PEAK = 1e-8
# of the resampler: torchaudio's default leaves images above the old Nyquist frequency, where these networks, which see
# log-mel bands there, expect silence (for CLAP a change of the embedding by a quarter)
_LOWPASS_WIDTH, _ROLLOFF, _BETA = 64, 0.9475937167399596, 14.769656459379492


class Tower(nn.Module):
    """A pretrained audio network with its front end: clips [B, `clip_samples`] of peak 1 → embedding and frames.

    Args:
        rate: sampling rate it was trained at, in Hz.
        clip_samples: length of its clips; shorter recordings are repeated, longer ones cut to their middle.
        whole_repeats: fill the rest of a clip into which no further whole repeat fits with zeros.
        embedding_size, frame_size: channels of what it returns.
        num_frames: frames of a clip, equally long.
    """

    rate: ClassVar[int]
    clip_samples: ClassVar[int]
    whole_repeats: ClassVar[bool]
    embedding_size: ClassVar[int]
    frame_size: ClassVar[int]
    num_frames: ClassVar[int]

    @abstractmethod
    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Clip [B, clip_samples] → embedding [B, embedding_size], frames [B, num_frames, frame_size]."""

    @staticmethod
    @abstractmethod
    def published_state(content: dict[str, Any]) -> dict[str, Tensor]:
        """The state of this module in the content of a published file. Raises KeyError where that is another file."""


class PretrainedNoiseEncoder(NoiseEncoder):
    """A pretrained network gets the reference at the level it knows; two linear layers add the level it does not see.

    The tower always works in float32 and in evaluation mode: no SpecAugment, no dropout, batch norms with the
    statistics they came with. So a reference's embedding depends on nothing else in its batch, and a training that
    resumes repeats itself. Frozen, the tower has no gradient and stays out of checkpoints, and what it makes of a
    reference is cached on disk outside training.

    Args:
        tower: the pretrained network.
        sample_rate: of the references, in Hz.
        dim: size of the vector and the tokens.
        frozen: do not train the tower.
        with_tokens: give the tower's frames as tokens.
        identity: of the tower's weights.
    """

    settings = frozenset({"encoder_checkpoint", "freeze_encoder", "encoder_lr_factor", "cross_attention_resolutions"})
    published: ClassVar[PublishedWeights]
    tower_class: ClassVar[type[Tower]]

    def __init__(
        self, tower: Tower, sample_rate: int, dim: int, frozen: bool, with_tokens: bool, identity: str | None
    ) -> None:
        super().__init__()
        self.tower, self.sample_rate, self.dim = tower, sample_rate, dim
        self.frozen, self.with_tokens, self.identity = frozen, with_tokens, identity
        self.hidden = nn.Linear(tower.embedding_size + 1 + NUM_BANDS, dim)
        self.out = nn.Linear(dim, dim)
        self.token = nn.Linear(tower.frame_size + 1 + NUM_BANDS, dim) if with_tokens else None
        self.cache: EmbeddingCache | None = None  # made when it is first needed
        tower.eval()
        if frozen:
            tower.requires_grad_(False)
            _keep_out_of_state(tower)

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], transform: SpectrogramTransform, load_pretrained: bool = True
    ) -> PretrainedNoiseEncoder:
        checkpoint, frozen = settings["encoder_checkpoint"], settings["freeze_encoder"]
        from_file = checkpoint != RANDOM and (frozen or load_pretrained)
        path = locate(cls.published, checkpoint) if from_file else None  # before anything takes time
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            tower = cls.tower_class()
        own_identity = RANDOM if checkpoint == RANDOM else None
        if path is not None:
            try:
                tower.load_state_dict(tower.published_state(read(path)))
            except (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
                if is_of_machine(error):
                    raise
                raise wrong_file(path, cls.published, error) from None
            own_identity = identity(path)
        with_tokens = bool(settings["cross_attention_resolutions"])
        return cls(tower, settings["sample_rate"], settings["cond_dim"], frozen, with_tokens, own_identity)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.tower.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> PretrainedNoiseEncoder:
        """As for any module, but the tower stays in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, reference: Tensor, length: Tensor) -> Condition:
        """Reference [B, M], length [B] → vector [B, dim], and tokens [B, L, dim] where they are wanted.

        A token is masked when it stems from repeats of the reference alone.
        """
        with torch.autocast(reference.device.type, enabled=False):
            waveform = _inside(reference.float(), length)
            loudness = level(waveform, length)[:, None]
            levels = torch.cat([loudness, band_levels(waveform, length, self.sample_rate)], dim=-1)
            normalised = waveform / waveform.abs().amax(dim=-1, keepdim=True).clamp_min(QUIETEST_PEAK)
            embedding, frames = self._embed(normalised, length)
            size = self.tower.embedding_size
            embedding = F.normalize(embedding, dim=-1) * size**0.5  # as large as the levels beside it
        vector = self.out(F.silu(self.hidden(torch.cat([embedding, levels], dim=-1))))
        if self.token is None:
            return Condition(vector)
        total, width = frames.shape[1:]
        frames = torch.cat([F.layer_norm(frames, (width,)), levels[:, None].expand(-1, total, -1)], dim=-1)
        index = torch.arange(total, device=frames.device)
        # frames of the first repetition, begun ones included
        count = (self._tower_length(length) * total / self.tower.clip_samples).ceil().clamp_max(total)[:, None]
        frequency = sinusoids(centres(1, frames.device), self.dim // 2).expand(*frames.shape[:2], -1)
        time = sinusoids((index + 0.5) * POSITION_SPAN / count.clamp_min(1), self.dim - self.dim // 2)
        tokens = self.token(frames)
        tokens = tokens + torch.cat([frequency, time], dim=-1).to(tokens.dtype)
        return Condition(vector, tokens, index < count)

    def _embed(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Peak-normalised waveform [B, M], length [B] → embedding [B, E], frames [B, L, W]; cached where it may be."""
        if not self.frozen or self.training:
            return self._run_tower(waveform, length)
        if self.cache is None:
            self.cache = EmbeddingCache(cache_folder() / "embeddings" / self._weights_name())
        keys = [audio_key(item[:n], self.sample_rate) for item, n in zip(waveform, length.tolist(), strict=True)]
        entries = [self.cache.load(key) for key in keys]
        missing = [i for i, entry in enumerate(entries) if entry is None]
        if missing:
            rows = torch.tensor(missing, device=waveform.device)
            for i, embedding, frames in zip(missing, *self._run_tower(waveform[rows], length[rows]), strict=True):
                entries[i] = entry = {"embedding": embedding, "frames": frames}
                self.cache.store(keys[i], entry)
        found = [entry for entry in entries if entry is not None]
        embedding, frames = (torch.stack([e[name].to(waveform) for e in found]) for name in ("embedding", "frames"))
        return embedding, frames

    def _run_tower(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Resample, bring to the tower's length, run the tower: embedding [B, E], frames [B, L, W]."""
        with torch.no_grad() if self.frozen else nullcontext():
            resampled = _resample(waveform, self.sample_rate, self.tower.rate)
            clip = to_clip(resampled, self._tower_length(length), self.tower.clip_samples, self.tower.whole_repeats)
            embedding, frames = self.tower(clip)
        return embedding, frames

    def _tower_length(self, length: Tensor) -> Tensor:
        """Samples [B] at the tower's rate of `length` [B] samples."""
        return (length * self.tower.rate + self.sample_rate - 1) // self.sample_rate

    def _weights_name(self) -> str:
        """Encoder and weights; random weights are named by their content, which may change with the libraries."""
        identity = self.identity
        if identity == RANDOM:
            identity = f"{RANDOM}-{weights_digest(_tensors(self.tower))}"
        return f"{self.published.encoder}-{identity}"


def to_clip(waveform: Tensor, length: Tensor, clip_samples: int, whole_repeats: bool) -> Tensor:
    """Bring recordings to one length: [B, M] of `length` [B] samples each → [B, clip_samples].

    Longer ones are cut to their middle, shorter ones repeated: to the end, or (`whole_repeats`) int(clip / length)
    times with zeros behind, as laion_clap does it.
    """
    length = length.clamp_min(1)[:, None]
    index = torch.arange(clip_samples, device=waveform.device)
    source = (length - clip_samples).clamp_min(0) // 2 + index % length
    clip = waveform.gather(1, source)
    if whole_repeats:
        clip = clip * (index < (clip_samples // length).clamp_min(1) * length)
    return clip


def reference_prefix(transform: SpectrogramTransform, reference: Tensor, length: Tensor, sample_rate: int) -> Tensor:
    """What `--reference_prepend` puts before a mixture: references [B, M] of `length` [B], and a gap → [B, 1, F, R].

    All are of one length, so that no item depends on the others of its batch.
    """
    clip = to_clip(reference, length, round(PREFIX_S * sample_rate), whole_repeats=False)
    return transform(F.pad(clip, (0, round(GAP_S * sample_rate))))


def _resample(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    """[B, M] → [B, ceil(M · new_rate / rate)], by a Kaiser-windowed sinc as long and steep as resampy's kaiser_best."""
    return torchaudio.functional.resample(
        waveform,
        rate,
        new_rate,
        lowpass_filter_width=_LOWPASS_WIDTH,
        rolloff=_ROLLOFF,
        resampling_method="sinc_interp_kaiser",
        beta=_BETA,
    )


def _inside(waveform: Tensor, length: Tensor) -> Tensor:
    """Waveform [B, M] with zeros beyond `length` [B]."""
    return waveform * (torch.arange(waveform.shape[-1], device=waveform.device) < length[:, None])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()} | dict(module.named_buffers())


def _keep_out_of_state(module: nn.Module) -> None:
    """Leave a module's tensors out of every state_dict, and let states without them be loaded.

    The module itself stays registered, so that it moves between devices with its parent.
    """
    module.register_state_dict_post_hook(_leave_out)
    module.register_load_state_dict_pre_hook(_supply_own)


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]


def _supply_own(module: nn.Module, state: dict[str, Any], prefix: str, *unused: object) -> None:
    state.update({prefix + name: tensor for name, tensor in _tensors(module).items()})


# ---- single modules out of packages that must not be imported whole ----
# `import laion_clap` loads tokenizers from a hub and `import panns_inference` runs wget. Their networks need neither,
# so the module that defines a network is imported below an alias package, and the package's `__init__` never runs.


def package_folder(package: str, install: str) -> Path:
    """Where a package lies, without importing it. Raises `UserError` naming the distribution to install."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is missing; run `pip install {install}`")
    return Path(spec.origin).parent


def module_of(package: str, folder: str, name: str, install: str) -> ModuleType:
    """Import the module `name` in a folder of a package, and what it imports from there; nothing else of the package.

    Args:
        package: top-level name.
        folder: inside the package, "" for the package itself.
        install: distributions that the module needs, as given to pip.
    """
    alias = f"_{package}_{folder}".rstrip("_")
    if alias not in sys.modules:
        spec = ModuleSpec(alias, loader=None, is_package=True)
        spec.submodule_search_locations = [str(package_folder(package, install) / folder)]
        sys.modules[alias] = module_from_spec(spec)
    try:
        return import_module(f"{alias}.{name}")
    except ImportError as error:
        raise UserError(f"{package} cannot be used ({error}); run `pip install {install}`") from None
