"""Training and validation items. Every item is a pure function of (seed, key): no other state touches it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from sgmse.common.errors import UserError
from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import Pair
from sgmse.data.mixing import is_silent, place

TensorDict = dict[str, torch.Tensor]

_TRIES = 20
_PAUSE_S = 1.0  # before a file is read again
_ITEM_STREAM, _SPEECH_STREAM = range(2)  # the next numbers belong to `mixtures`


class Item(NamedTuple):
    """Waveforms before normalisation, clean [N], noisy [N], reference [M] (M = 0: none), and where they come from.

    looped: the noise was shorter than the mixture and repeats itself.
    """

    clean: np.ndarray
    noisy: np.ndarray
    reference: np.ndarray
    name: str
    looped: bool = False


@dataclass(frozen=True)
class ItemSettings:
    """What items of every source have in common. `crop_length` in samples, reference lengths in seconds."""

    sample_rate: int
    crop_length: int
    seed: int
    with_reference: bool = True
    reference_min_s: float = references.MIN_S
    reference_max_s: float = references.MAX_S


class KeyedDataset(Dataset[TensorDict]):
    """Items by integer key, without end: key // len is the epoch, each epoch visits every file in a new order."""

    def __init__(self, num_files: int, settings: ItemSettings) -> None:
        self.num_files = num_files
        self.settings = settings
        self.sample_rate = settings.sample_rate

    def __len__(self) -> int:
        return self.num_files

    def __getitem__(self, key: int) -> TensorDict:
        """{clean [N], noisy [N], reference [M], reference_length []} with N = `crop_length`; M = 0 for no reference."""
        try:
            return normalise(self.item(key))
        except (OSError, UserError):  # a network disk may be away for a moment
            time.sleep(_PAUSE_S)
            return normalise(self.item(key))

    def item(self, key: int) -> Item:
        """The training item of `key` before normalisation, clean and noisy [crop_length]."""
        rng = np.random.default_rng((self.settings.seed, _ITEM_STREAM, key))
        item = self._draw(key, self.settings.crop_length, rng)
        start = int(rng.integers(self.settings.crop_length - len(item.noisy) + 1))
        clean, noisy = (place(waveform, self.settings.crop_length, start) for waveform in (item.clean, item.noisy))
        return item._replace(clean=clean, noisy=noisy)

    def utterance(self, key: int, max_s: float) -> Item:
        """The file of `key` as a whole (up to `max_s`) instead of a crop of fixed length."""
        rng = np.random.default_rng((self.settings.seed, _ITEM_STREAM, key))
        length = min(self._info(self._file_index(key)).length_at(self.sample_rate), round(max_s * self.sample_rate))
        return self._draw(key, length, rng)

    @abstractmethod
    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        """An item of at most `length` samples."""

    @abstractmethod
    def _info(self, index: int) -> AudioInfo:
        """The header of the speech file number `index`."""

    def _file_index(self, key: int) -> int:
        return draw_index(key, self.num_files, self.settings.seed, _SPEECH_STREAM)


class Paired(KeyedDataset):
    """Crops of pairs recorded or mixed beforehand; the reference is noisy - clean outside the crop."""

    def __init__(self, pairs: Sequence[Pair], settings: ItemSettings) -> None:
        super().__init__(len(pairs), settings)
        self.pairs = list(pairs)

    def _info(self, index: int) -> AudioInfo:
        return self.pairs[index].noisy

    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        index = self._file_index(key)
        rate, limits = self.sample_rate, (self.settings.reference_min_s, self.settings.reference_max_s)
        room = round((limits[1] + references.GUARD_S) * rate) if self.settings.with_reference else 0
        for _ in range(_TRIES):
            pair = self.pairs[index]
            start_s, duration_s = pair.noisy.draw_window(length + room, rate, rng)
            clean, noisy = (audio.read(info.path, rate, start_s, duration_s) for info in (pair.clean, pair.noisy))
            reference = references.NO_REFERENCE
            if self.settings.with_reference:
                clean, noisy, reference = references.residual_crop(noisy, clean, length, rate, rng, *limits)
            if not is_silent(noisy):
                return Item(clean, noisy, reference, Path(pair.name).name)
            index = int(rng.integers(self.num_files))
        raise UserError(f"{pair.noisy.path}: is silent, and so are the other files drawn; check the corpus")


class ValidationSet(Dataset[dict[str, torch.Tensor | str]]):
    """A fixed set of whole utterances, each a file of its own, for metrics: clean [N], noisy [N], reference [M], name.

    Of a pair, whose noise is all in the noisy file, the reference is cut off first: the item is the longer part.
    """

    def __init__(self, source: KeyedDataset, num_files: int, max_s: float = 8.0) -> None:
        self.source = source
        self.num_files = min(num_files, len(source))
        self.max_s = max_s

    def __len__(self) -> int:
        return self.num_files

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | str]:
        if not 0 <= index < self.num_files:
            raise IndexError(index)
        item = self.source.utterance(index, self.max_s)
        tensors = normalise(item)
        del tensors["reference_length"]
        return {**tensors, "name": f"{index:03d}_{item.name}"}


def normalise(item: Item) -> TensorDict:
    """Tensors of one item, all three waveforms divided by the largest magnitude of the noisy one."""
    peak = np.abs(item.noisy).max()
    clean, noisy, reference = (torch.from_numpy(w / peak) for w in (item.clean, item.noisy, item.reference))
    length = torch.tensor(len(reference), dtype=torch.int64)
    return {"clean": clean, "noisy": noisy, "reference": reference, "reference_length": length}


@dataclass(frozen=True)
class MixingReport:
    """Shares of the first items: without the reference they should have, and with a noise that repeats itself."""

    null_share: float
    looped_share: float


def mixing_report(dataset: KeyedDataset, num: int = 200) -> MixingReport:
    """Make the first `num` training items and count what the user should know of."""
    items = [dataset.item(key) for key in range(num)]
    nulls = sum(len(item.reference) == 0 for item in items) if dataset.settings.with_reference else 0
    return MixingReport(nulls / num, sum(item.looped for item in items) / num)


def draw_index(key: int, length: int, seed: int, stream: int) -> int:
    """The index in [0, length) that a running `key` stands for; no index comes twice in a row if length > 1."""
    epoch, position = divmod(key, length)
    return int(_order(epoch, length, seed, stream)[position])


@lru_cache(maxsize=8)
def _order(epoch: int, length: int, seed: int, stream: int) -> np.ndarray:
    def permute(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, stream, epoch if length > 2 else 0)).permutation(length)

    order = permute(epoch)
    if epoch > 0 and length > 2 and order[0] == permute(epoch - 1)[-1]:
        order[[0, 1]] = order[[1, 0]]
    return order
