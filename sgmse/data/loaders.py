"""From items to batches: a sampler that can be resumed at any step, and the Lightning data module."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from sgmse.common.errors import UserError
from sgmse.data.dataset import KeyedDataset, TensorDict, ValidationSet

_OF_CLUSTERS = (signal.SIGTERM, signal.SIGUSR1)


class UnreadableItem(UserError):
    """A batch cannot be made."""


class ResumableSampler(DistributedSampler[int]):
    """Consecutive integer keys. `start_key` says, whenever an epoch starts, which key comes next.

    A run that resumes within an epoch gets the remaining keys of that epoch; rank r of a distributed run takes every
    world-th key. It is a `DistributedSampler` by name only: Lightning then leaves it alone on several devices.
    """

    def __init__(self, keys_per_epoch: int, start_key: Callable[[], int], rank: int = 0, world: int = 1) -> None:
        if keys_per_epoch < 1 or keys_per_epoch % world:
            raise ValueError(f"{keys_per_epoch} keys per epoch cannot be shared by {world} processes")
        super().__init__(range(keys_per_epoch), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.keys_per_epoch = keys_per_epoch
        self.start_key = start_key

    def __iter__(self) -> Iterator[int]:
        start = self.start_key()
        end = (start // self.keys_per_epoch + 1) * self.keys_per_epoch
        return iter(range(start + self.rank, end, self.num_replicas))

    def __len__(self) -> int:
        """Keys per rank in a full epoch, also while resuming: Lightning itself counts the batches done before."""
        return self.keys_per_epoch // self.num_replicas


class NoiseCondDataModule(pl.LightningDataModule):
    """Training batches by running key, validation-loss batches of fixed keys, and `valid_files` for metrics.

    Batches are {clean [B, N], noisy [B, N], reference [B, M], reference_length [B]}. An epoch has
    `items_per_epoch` items over all devices (None: as many as there are speech files), rounded down to whole
    optimiser steps, but not below one.
    """

    def __init__(
        self,
        train: KeyedDataset,
        valid: KeyedDataset,
        valid_files: ValidationSet,
        *,
        batch_size: int,
        items_per_epoch: int | None = None,
        num_valid_items: int = 64,
        num_workers: int = 4,
    ) -> None:
        super().__init__()
        self.train = train
        self.valid = valid
        self.valid_files = valid_files
        self.batch_size = batch_size
        self.items_per_epoch = items_per_epoch or len(train)
        self.num_valid_items = num_valid_items
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader[TensorDict]:
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("training batches continue at the trainer's step: pass this data module to Trainer.fit")
        keys_per_step = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        keys_per_epoch = max(1, self.items_per_epoch // keys_per_step) * keys_per_step
        sampler = ResumableSampler(
            keys_per_epoch, lambda: trainer.global_step * keys_per_step, trainer.global_rank, trainer.world_size
        )
        return _KeyedLoader(self.train, self.batch_size, self.num_workers, sampler)

    def val_dataloader(self) -> DataLoader[TensorDict]:
        # Full batches of at least two on every device: `mismatched` needs a neighbour for every item.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batch_size = max(2, self.batch_size)
        num_keys = math.ceil(self.num_valid_items / (batch_size * world)) * batch_size * world
        # consecutive keys for every device: items that are `world` keys apart may be of one noise
        share = num_keys // world
        sampler = ResumableSampler(share, lambda: rank * share)
        return _KeyedLoader(self.valid, batch_size, min(2, self.num_workers), sampler)


class _KeyedLoader(DataLoader[TensorDict]):
    """A loader with nothing to save or restore: the keys it hands out follow from the trainer's step alone."""

    def __init__(
        self,
        dataset: Dataset[TensorDict],
        batch_size: int,
        num_workers: int,
        sampler: ResumableSampler,
    ) -> None:
        super().__init__(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            # Its own generator: otherwise every new epoch would draw from the one that the model's noise comes from.
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=_outlive_signals,
        )

    def __iter__(self) -> Iterator[TensorDict]:  # type: ignore[override]
        """Batches. What a worker process could not read stays one sentence, without that process's traceback."""
        try:
            yield from super().__iter__()
        except (OSError, UserError) as error:
            last = str(error).strip().splitlines()[-1].removeprefix("sgmse.common.errors.UserError: ")
            raise UnreadableItem(last) from None

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that resuming within an epoch is safe."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _outlive_signals(worker: int) -> None:
    """Signals that a cluster sends to all processes of a job end no worker, so that training can finish its step.

    SIGTERM from the training itself does.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _OF_CLUSTERS)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    while True:
        received = signal.sigwaitinfo(_OF_CLUSTERS)
        if received.si_signo == signal.SIGTERM and received.si_pid == os.getppid():
            os._exit(0)


def collate(items: Sequence[TensorDict]) -> TensorDict:
    """{clean [B, N], noisy [B, N], reference [B, M], reference_length [B]}; M, at least 1, is the longest of them."""
    longest = max(1, *(len(item["reference"]) for item in items))
    reference = torch.zeros(len(items), longest)
    for row, item in zip(reference, items, strict=True):
        row[: len(item["reference"])] = item["reference"]
    stacked = {name: torch.stack([item[name] for item in items]) for name in ("clean", "noisy", "reference_length")}
    return {**stacked, "reference": reference}


def mismatched(batch: TensorDict) -> TensorDict:
    """The batch with every item's reference replaced by its neighbour's, which `DynamicMixing` cuts from another noise.

    The last item receives the first one's, so more noise files than items are needed for all to differ for certain.
    """
    if len(batch["reference"]) < 2:
        raise ValueError("a batch of one item holds no other reference")
    return batch | {name: batch[name].roll(1, dims=0) for name in ("reference", "reference_length")}
