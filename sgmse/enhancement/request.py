"""What an enhancement is asked to do, checked against the model before anything is done."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sgmse.common.bounds import check_bounds
from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SAMPLERS, SamplerSettings, sampler_name
from sgmse.diffusion.sde import SBVE
from sgmse.enhancement.lookup import open_test_set
from sgmse.enhancement.protocols import Protocol
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_guidance, check_sampler
from sgmse.settings.config import DataConfig, EnhanceConfig


@dataclass(frozen=True)
class Shard:
    """The share number `index`, from 1, of `count` shares of the files."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """What tells it from the other shares, for files."""
        return f"{self.index}-of-{self.count}"

    def select(self, items: Sequence[Item]) -> list[Item]:
        """Every count-th file, so that shares are of similar size and no file is in two."""
        return list(items[self.index - 1 :: self.count])


def check_request(config: EnhanceConfig, guidance: GuidanceSettings) -> None:
    """Raise `UserError` for settings out of bounds, and for those that contradict each other."""
    check_bounds(config)
    sources = {name: getattr(config, name) for name in ("reference", "noise_ref", "noise_ref_dir", "oracle_noise")}
    given = [f"--{name}" for name, value in sources.items() if value]
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


def parse_shard(text: str | None) -> Shard | None:
    """The share that `--shard K/N` means. Raises `UserError` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: is no share of the files; write K/N with K from 1 to N, e.g. 1/4")
    return Shard(int(found[1]), int(found[2]))


def find_files(config: EnhanceConfig, ckpt: Path, model: Enhancer, out_dir: Path) -> TestSet:
    """The files and references that are asked for; references are `none` for a model without encoder.

    Raises:
        UserError: files are missing, results would fall among them, or the model cannot use such references.
    """
    folder = Path(config.test_dir) if config.test_dir else corpora.embedded_dir() / "test"
    asked, source = _asked_protocol(config)
    conditioned = model.encoder is not None
    test_set = open_test_set(folder, asked if conditioned else "none", source if conditioned else None)
    if folder.resolve() == out_dir.resolve():
        raise UserError(f"{out_dir}: is --test_dir, whose files are the input; choose another --enhanced_dir")
    _check_outputs(test_set, out_dir)
    if not conditioned and (source is not None or asked not in (None, "none")):
        raise UserError(f"{ckpt}: has no noise encoder; leave the reference out")
    if conditioned and model.cond_drop_prob == 0 and test_set.protocol in ("none", "self"):
        raise UserError(
            f"{ckpt}: was trained without dropping references, so its null condition is untrained; give a reference "
            "(--noise_ref, --noise_ref_dir, --reference estimated)"
        )
    return test_set


def _asked_protocol(config: EnhanceConfig) -> tuple[Protocol | None, Path | None]:
    """The protocol that the flags choose, and the file or folder that they name."""
    if config.noise_ref is not None:
        return "file", Path(config.noise_ref)
    if config.noise_ref_dir is not None:
        return "folder", Path(config.noise_ref_dir)
    if config.oracle_noise:
        return "own_noise", Path(str(config.clean_dir))
    return config.reference, None


def _check_outputs(test_set: TestSet, out_dir: Path) -> None:
    """Raise `UserError` where a result would fall among the inputs, now or at the next run."""
    references = [path for paths in test_set.paths.values() for path in paths.values() if path is not None]
    inputs = {path.resolve() for path in (*references, *(item.noisy for item in test_set.items))}
    folders = [folder.resolve() for folder in (test_set.folder, test_set.reference_dir) if folder is not None]
    for item in test_set.items:
        output = (out_dir / item.name).resolve()
        if output in inputs or any(output.is_relative_to(folder) for folder in folders):
            raise UserError(f"{out_dir / item.name}: would fall among the input files; choose another --enhanced_dir")


def choose_sampler(config: EnhanceConfig, typed: dict[str, Any], model: Enhancer) -> SamplerSettings:
    """The checkpoint's sampler with what was typed. A setting that the sampler does not have is refused."""
    settings = dataclasses.replace(model.sampler, **typed)
    name = sampler_name(settings, model.sde)
    meaningless = typed.keys() - SAMPLERS[name].settings - {"sampler"}
    if config.t_eps is not None and isinstance(model.sde, SBVE):
        meaningless |= {"t_eps"}
    for setting in sorted(meaningless):
        raise UserError(f"--{setting} has no meaning for the sampler {name}; leave it out or choose another --sampler")
    check_sampler(settings, model.objective.name)
    _check_samples(config, name, settings)
    return settings


def _check_samples(config: EnhanceConfig, name: str, settings: SamplerSettings) -> None:
    """Raise `UserError` where several waveforms at a time, or several samples of one, make no sense."""
    if config.num_samples > 1 and (name.startswith("bridge_ode") or (name == "bridge_sde" and settings.N == 1)):
        raise UserError(
            f"--num_samples {config.num_samples}: the sampler {name} with N = {settings.N} draws no noise, so all "
            "samples are the same; use --sampler bridge_sde with --N 2 or more"
        )
    if config.batch_size > 1 and name == "pc" and settings.corrector == "langevin":
        raise UserError("--corrector langevin takes one step size for a batch; use --batch_size 1")


def choose_chunks(config: EnhanceConfig, ckpt: Path, model: Enhancer) -> Chunks:
    """The parts of long files. Raises `UserError` where they are shorter than what the model was trained on."""
    rate, hop = model.settings["sample_rate"], model.settings["hop_length"]
    crop_s = (_crop_frames(ckpt) - 1) * hop / rate
    if 0 < config.chunk_s < crop_s:
        raise UserError(
            f"--chunk_s {config.chunk_s:g} is shorter than the {crop_s:.2f} s that the model was trained on; "
            f"use {math.ceil(10 * crop_s) / 10:g} or more"
        )
    return Chunks.from_seconds(config.chunk_s, config.overlap_s, rate, hop, model.backbone.frame_multiple)


def _crop_frames(ckpt: Path) -> int:
    """Frames of a training item, from the run's config.yaml; for a checkpoint without one, those of SGMSE+."""
    path = ckpt.parent.parent / "config.yaml"
    try:
        return int(yaml.safe_load(path.read_text(encoding="utf-8"))["num_frames"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return DataConfig().num_frames
