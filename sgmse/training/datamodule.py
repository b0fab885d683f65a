"""Training and validation data from settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sgmse.data import corpora
from sgmse.data.dataset import ItemSettings, KeyedDataset, Paired, ValidationSet
from sgmse.data.loaders import NoiseCondDataModule
from sgmse.data.mixtures import DynamicMixing, Variation
from sgmse.data.noise import augment
from sgmse.settings.config import DataConfig, ModelConfig


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
    variation = _variation(data) if split == "train" else _validation(data)
    return DynamicMixing(speech, noise, settings, low, high, variation)


def _validation(data: DataConfig) -> Variation:
    """Plain mixtures, so that options can be compared by them; of two talkers where training has no others."""
    return Variation(talker_share=float(data.talker_share == 1))


def _variation(data: DataConfig) -> Variation:
    """What makes the mixtures of training more various."""
    return Variation(
        augmentation=augment.parse(data.noise_augment),
        synthetic_share=data.synthetic_share,
        babble_share=data.babble_share,
        talker_share=data.talker_share,
        voice_speed=data.voice_speed,
        mismatched_share=data.mismatched_share,
        reference_gain_db=data.reference_gain_db,
        rirs=tuple(corpora.split_files(data.rir_dir, "train", "room impulse response")) if data.rir_dir else (),
        rir_share=data.rir_share,
    )
