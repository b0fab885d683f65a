"""Checks of settings and checkpoints: batch size, encoder weights, averaged weights, rates."""

from __future__ import annotations

from pathlib import Path

import torch

from sgmse.common.errors import UserError
from sgmse.doctor import Report
from sgmse.encoders import weights
from sgmse.model import checkpoints
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig

PUBLISHED_BATCH = 8  # per device, the default of sp-uhh/sgmse


def check_settings(report: Report, model: ModelConfig, data: DataConfig, train: TrainConfig, named: bool) -> None:
    """Batch size and encoder weights. `named`: the settings come from a file, not from the defaults."""
    whose = "settings" if named else "settings (the defaults; name others with --config)"
    report.facts.append(f"{whose}: {model.sample_rate} Hz, {model.backbone}, {model.sde}, encoder {model.encoder}")
    effective = data.batch_size * train.accumulate_grad_batches * train.devices
    report.facts.append(
        f"effective batch size: {data.batch_size} per device x {train.accumulate_grad_batches} batches per step x "
        f"{train.devices} devices = {effective} (published code of SGMSE+: {PUBLISHED_BATCH} per device)"
    )
    if effective < PUBLISHED_BATCH:
        report.add_problem(
            f"the effective batch size of {effective} is below that of SGMSE+'s published code, {PUBLISHED_BATCH} per "
            "device, for which the learning rate of 1e-4 was chosen",
            f"add --accumulate_grad_batches {-(-PUBLISHED_BATCH // effective)}",
        )
    if model.encoder != "none" and model.cond_drop_prob == 0:
        report.facts.append(
            "cond_drop_prob 0: the null condition stays untrained, so only --guidance icg and auto can guide"
        )
    _check_encoder_weights(report, model)


def check_checkpoint(report: Report, path: Path, wanted: ModelConfig | None) -> ModelConfig | None:
    """Averaged weights, weights that are numbers, encoder, and the rate of a checkpoint. Returns its settings."""
    content = checkpoints.read(path)
    ours = checkpoints.is_ours(content)
    average = content.get("average", {}).get("weights") if ours else content.get("ema")
    report.facts.append(
        f"{path}: {'step ' + str(content.get('global_step', '?')) if ours else 'published format'}, "
        f"averaged weights {'present' if average else 'absent'}, sha256 {weights.identity(path)}"
    )
    if not average:
        report.add_problem(
            f"{path}: holds no averaged weights; enhancement uses the raw ones, which score lower",
            "use a checkpoint as train.py writes it, not one stripped or converted",
        )
    tensors = [value for value in content["state_dict"].values() if torch.is_floating_point(value)]
    tensors += list(average.values()) if ours and average else []
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        remedy = "use an earlier checkpoint of the run, and a lower --lr"
        report.add_problem(f"{path}: holds weights that are no numbers; its training diverged", remedy, falsifies=True)
    if not ours:
        return None
    stored, _ = checkpoints.stored_settings(content)
    for name in ("sample_rate", "encoder") if wanted is not None else ():
        in_settings, in_checkpoint = getattr(wanted, name), getattr(stored, name)
        if in_settings != in_checkpoint:
            what = f"{path}: was trained with --{name} {in_checkpoint}, but the settings say {in_settings}"
            report.add_problem(what, "name the config.yaml of the run that made the checkpoint", falsifies=True)
    # Weights of an encoder that was trained along are in the checkpoint.
    found = _check_encoder_weights(report, stored) if stored.freeze_encoder else None
    trained = content.get("encoder_identity")
    if found is not None and trained is not None and found != trained:
        report.add_problem(
            f"{path}: was trained with {stored.encoder} weights of hash {trained}, but those found have {found}",
            "bring the first ones back, and name them with --encoder_checkpoint",
            falsifies=True,
        )
    return stored


def _check_encoder_weights(report: Report, model: ModelConfig) -> str | None:
    """Where the weights of a pretrained encoder are; the identity of the file, None where there is none."""
    published = weights.PUBLISHED.get(model.encoder)
    if published is None:
        return None
    if model.encoder_checkpoint == weights.RANDOM:
        remedy = f"run `{published.fetch_command}` and leave --encoder_checkpoint out"
        report.add_problem(f"--encoder {model.encoder} has random weights", remedy, falsifies=True)
        return None
    try:
        path = weights.locate(published, model.encoder_checkpoint)
    except UserError as error:
        report.add_problem(str(error).partition(";")[0], f"run `{published.fetch_command}`")
        return None
    identity = weights.identity(path)
    report.facts.append(f"weights of {model.encoder}: {path}, sha256 {identity}…")
    if published.digest not in (None, published.digest_of(path)):
        report.add_problem(
            f"{path}: is not the published file of --encoder {model.encoder} (its hash is another one)",
            weights.suggest_remedy(path, published),
            falsifies=True,
        )
    return identity
