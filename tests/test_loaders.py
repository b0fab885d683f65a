"""Facts about batches and about resuming a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import soundfile
import torch
from small_corpora import CROP, RATE, small_mixing

from sgmse.common.errors import UserError
from sgmse.data.corpora import split_files
from sgmse.data.dataset import ValidationSet
from sgmse.data.loaders import NoiseCondDataModule, ResumableSampler, collate, mismatched
from sgmse.data.mixtures import DynamicMixing


@pytest.fixture
def mixing(tmp_path: Path) -> DynamicMixing:
    return small_mixing(tmp_path)


def test_references_are_padded_to_the_longest_and_an_empty_one_is_a_zero(mixing: DynamicMixing) -> None:
    items = [mixing[key] for key in range(3)]
    items[1] = items[1] | {"reference": torch.zeros(0), "reference_length": torch.tensor(0)}
    batch = collate(items)
    lengths = [len(item["reference"]) for item in items]
    assert batch["reference"].shape == (3, max(lengths))
    assert batch["reference_length"].tolist() == lengths
    assert batch["clean"].shape == batch["noisy"].shape == (3, CROP)
    for row, item, length in zip(batch["reference"], items, lengths, strict=True):
        assert torch.equal(row[:length], item["reference"])
        assert not row[length:].any()
    assert collate([items[1]])["reference"].shape == (1, 1)


def test_mismatching_exchanges_references_only_and_brings_another_noise(mixing: DynamicMixing) -> None:
    batch = collate([mixing[key] for key in range(3)])
    exchanged = mismatched(batch)
    assert torch.equal(exchanged["noisy"], batch["noisy"])
    assert torch.equal(exchanged["reference"][1], batch["reference"][0])
    assert exchanged["reference_length"].tolist() == batch["reference_length"][[2, 0, 1]].tolist()
    with pytest.raises(ValueError, match="no other reference"):
        mismatched(collate([mixing[0]]))


def test_the_sampler_goes_on_where_training_stands() -> None:
    step = 0
    sampler = ResumableSampler(10, lambda: step)
    assert list(sampler) == list(range(10))
    step = 10
    assert list(sampler) == list(range(10, 20))
    step = 26
    assert list(sampler) == [26, 27, 28, 29]
    assert len(sampler) == 10


def test_neighbours_in_a_validation_batch_have_neighbouring_keys_on_every_device(mixing: DynamicMixing) -> None:
    keys = []
    for rank in range(2):
        module = NoiseCondDataModule(mixing, mixing, None, batch_size=2, num_valid_items=8, num_workers=0)  # type: ignore[arg-type]
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        keys.append(list(module.val_dataloader().sampler))
    assert keys == [[0, 1, 2, 3], [4, 5, 6, 7]], "every second one may be of one and the same noise"


def test_ranks_share_the_keys_without_overlap() -> None:
    ranks = [list(ResumableSampler(12, lambda: 16, rank, 4)) for rank in range(4)]
    assert sorted(key for rank in ranks for key in rank) == list(range(16, 24))
    assert {len(rank) for rank in ranks} == {2}
    with pytest.raises(ValueError, match="cannot be shared"):
        ResumableSampler(10, lambda: 0, 0, 4)


class Recorder(pl.LightningModule):
    """Notes a fingerprint of every training batch; one weight, so that Lightning has something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[float] = []

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append(float(batch["noisy"].double().sum()))
        return self.weight.square()

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        assert len(batch["noisy"]) == 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_after", [2, 4, 5])
@pytest.mark.filterwarnings("error:.*resuming from a checkpoint that ended before the epoch ended")
def test_a_resumed_run_sees_exactly_the_batches_of_an_uninterrupted_one(
    mixing: DynamicMixing, tmp_path: Path, stop_after: int, accumulate: int
) -> None:
    def fit(steps: int, checkpoint: Path | None = None) -> tuple[Recorder, pl.Trainer]:
        module = Recorder()
        data = NoiseCondDataModule(
            mixing, mixing, ValidationSet(mixing, 1), batch_size=2, items_per_epoch=17, num_valid_items=3, num_workers=0
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=steps,
            max_epochs=-1,
            accumulate_grad_batches=accumulate,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data, ckpt_path=checkpoint)
        return module, trainer

    whole, _ = fit(10)
    first, trainer = fit(stop_after)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    rest, _ = fit(10, tmp_path / "stopped.ckpt")
    assert len(whole.seen) == 10 * accumulate
    assert len(set(whole.seen)) == len(whole.seen)
    assert first.seen + rest.seen == whole.seen


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_mistake_met_by_a_worker_is_one_sentence(mixing: DynamicMixing, tmp_path: Path, num_workers: int) -> None:
    bad = tmp_path / "bad/nan.wav"
    bad.parent.mkdir()
    soundfile.write(bad, np.full(CROP, np.nan), RATE, subtype="FLOAT")
    dataset = DynamicMixing(mixing.speech, split_files([bad.parent], "train", "noise"), mixing.settings)
    data = NoiseCondDataModule(dataset, dataset, ValidationSet(dataset, 1), batch_size=2, num_workers=num_workers)
    with pytest.raises(UserError, match=r"^.*bad/nan\.wav: holds NaN or Inf values; replace or remove it$"):
        next(iter(data.val_dataloader()))


def test_loaders_leave_the_global_random_state_alone(mixing: DynamicMixing) -> None:
    data = NoiseCondDataModule(mixing, mixing, ValidationSet(mixing, 1), batch_size=2, num_workers=0)
    before = torch.get_rng_state()
    assert len(list(data.val_dataloader())) == 32
    assert torch.equal(before, torch.get_rng_state())
