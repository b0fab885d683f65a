"""The files of a test set as the probes take them: waveforms, their own reference and that of another noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.mixing import is_silent
from sgmse.diagnostics.use import open_set
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import Signal, encode_batch, enhance_batch, noise_key, usual_chunks
from sgmse.enhancement.test_set import TestSet
from sgmse.evaluation.statistics import Difference, hierarchical
from sgmse.model.enhancer import Enhancer


@dataclass(frozen=True)
class ProbeFile:
    """One file of a test set, all waveforms at the model's rate and divided by the peak of the noisy one.

    Args:
        name: below noisy/.
        noisy, clean: [N].
        reference: [M], the file's own.
        other: [M'], a mismatched reference at the level of the own one; None where the set has none.
        source: the recording its noise was cut from. kind: of its noise; both "" where the set does not say.
        timeline: which noise sounds when, "0.00-1.32 dog;1.32-2.60 rain", or "".
    """

    name: str
    noisy: Tensor
    clean: Tensor
    reference: Tensor
    other: Tensor | None
    source: str
    kind: str
    timeline: str


def load_conditioned(ckpt: Path, device: str, encoder_checkpoint: str | None) -> Enhancer:
    """The model of a checkpoint. Raises `UserError` where it takes no reference."""
    model = Enhancer.from_checkpoint(ckpt, device, encoder_checkpoint)
    if model.encoder is None:
        raise UserError(
            f"{ckpt}: was trained without a noise encoder, so there is no condition to look at; use a checkpoint of a "
            "model with one"
        )
    return model


def open_references(folder: Path, model: Enhancer, max_files: int | None) -> TestSet:
    """The files of a set with their references. Raises `UserError` where it has none of its own."""
    if not (folder / "ref").is_dir():
        raise UserError(
            f"{folder}: holds no ref/ with noise references, without which there is no condition; name a set as "
            "scripts/make_testset.py builds it"
        )
    return open_set(folder, model, max_files)


def read_items(folder: Path, model: Enhancer, max_files: int | None) -> tuple[list[ProbeFile], str]:
    """The files of a set (`max_files`: spread over it), and why there is no mismatched reference ("": there is).

    Files with a silent reference are left out; of files longer than a part of enhancement the first part is read.
    """
    test_set = open_references(folder, model, max_files)
    rate, items = model.settings["sample_rate"], []
    part_s = usual_chunks(model).size / rate
    for item in test_set.items:
        assert item.clean is not None
        paths = (item.noisy, item.clean)
        noisy, clean = (torch.from_numpy(audio.read(path, rate, duration_s=part_s)) for path in paths)
        peak = noisy.abs().max().clamp_min(1e-8)
        found = test_set.reference(item, "disjoint", rate), test_set.reference(item, "mismatched", rate)
        own, other = (None if one.waveform is None else torch.from_numpy(one.waveform) / peak for one in found)
        if own is None or is_silent(own.numpy()):
            print(f"{item.name}: its reference is silent, so it is left out")
            continue
        about = (item.facts["source"], item.facts["kind"], item.row.get("timeline") or "")
        items.append(ProbeFile(item.name, noisy / peak, clean / peak, own, other, *about))
    if not items:
        raise UserError(f"{folder}: all of its references are silent; build the set anew")
    return items, test_set.refused.get("mismatched", "")


def enhance_item(model: Enhancer, item: ProbeFile, references: Tensor, sampler: SamplerSettings, seed: int) -> Tensor:
    """The file enhanced with each of references [B, M]: [B, N]. Every reference gets the same noise of the sampler."""
    signals = [Signal(item.noisy, reference, noise_key(seed, item.name)) for reference in references]
    found = enhance_batch(model, encode_batch(model, signals), Setting(sampler))
    return torch.stack([one.waveform for one in found]).to(model.device)


def mean_over_files(table: pd.DataFrame, column: str) -> Difference:
    """Mean of a column over files with its 95 % interval over sources; rows without a value are left out.

    table: a row per file with `file` and `source`.
    """
    return hierarchical(table.assign(value=table[column], seed=0).dropna(subset="value"))
