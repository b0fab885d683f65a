"""Training and validation items. Every item is a pure function of (seed, key): no other state touches it."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import Pair
from sgmse.data.mixing import crop_or_pad, is_silent, place, snr_gain, trim_silence
from sgmse.errors import UserError

TensorDict = dict[str, torch.Tensor]

_WHOLE_FILE_S = 12.0  # up to here a noise file is decoded whole and kept; of a longer one a window is read
_CACHE_BYTES = 64 * 2**20  # per loader process
_TRIES = 20
_ITEM_STREAM, _SPEECH_STREAM, _NOISE_STREAM = range(3)
_log = logging.getLogger(__name__)


class Item(NamedTuple):
    """Waveforms before normalisation, clean [N], noisy [N], reference [M] (M = 0: none), and where they come from."""

    clean: np.ndarray
    noisy: np.ndarray
    reference: np.ndarray
    name: str


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
        rng = np.random.default_rng((self.settings.seed, _ITEM_STREAM, key))
        item = self._draw(key, self.settings.crop_length, rng)
        start = int(rng.integers(self.settings.crop_length - len(item.noisy) + 1))
        clean, noisy = (place(waveform, self.settings.crop_length, start) for waveform in (item.clean, item.noisy))
        return normalised(Item(clean, noisy, item.reference, item.name))

    def utterance(self, key: int, max_s: float) -> Item:
        """The file of `key` as a whole (up to `max_s`) instead of a crop of fixed length."""
        rng = np.random.default_rng((self.settings.seed, _ITEM_STREAM, key))
        length = min(num_samples(self._info(self._file_index(key)), self.sample_rate), round(max_s * self.sample_rate))
        return self._draw(key, length, rng)

    @abstractmethod
    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        """An item of at most `length` samples."""

    @abstractmethod
    def _info(self, index: int) -> AudioInfo:
        """The header of the speech file number `index`."""

    def _file_index(self, key: int) -> int:
        return shuffled(key, self.num_files, self.settings.seed, _SPEECH_STREAM)

    def _window(self, info: AudioInfo, length: int, rng: np.random.Generator) -> tuple[float, float]:
        """Start and duration in seconds of a random window of `length` samples, or of the whole file if shorter."""
        spare = max(0, num_samples(info, self.sample_rate) - length)
        return int(rng.integers(spare + 1)) / self.sample_rate, length / self.sample_rate

    def _room_for_reference(self) -> int:
        return round((self.settings.reference_max_s + references.GUARD_S) * self.sample_rate)


class DynamicMixing(KeyedDataset):
    """Speech and noise mixed on the fly, with a disjoint reference from the same noise file.

    Neighbouring keys have different noise files. With `with_reference=False` the reference is cut and thrown away, so
    that models with and without references train on the very same mixtures.
    """

    def __init__(
        self,
        speech: Sequence[AudioInfo],
        noise: Sequence[AudioInfo],
        settings: ItemSettings,
        snr_db_low: float = -5.0,
        snr_db_high: float = 15.0,
    ) -> None:
        super().__init__(len(speech), settings)
        self.speech, self.noise = list(speech), list(noise)
        self.snr_db = (snr_db_low, snr_db_high)
        self._short_noises = DecodedFiles(settings.sample_rate, _CACHE_BYTES)
        self._reported: set[Path] = set()

    def _info(self, index: int) -> AudioInfo:
        return self.speech[index]

    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        name, clean = self._clean(key, length, rng)
        reference, noise = self._noise(key, length, rng)
        gain = np.float32(snr_gain(clean, noise, rng.uniform(*self.snr_db)))
        noisy = clean + gain * noise
        return Item(clean, noisy, gain * reference if self.settings.with_reference else references.NO_REFERENCE, name)

    def _clean(self, key: int, length: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """File name and speech [length]. Silent crops are redrawn, at last from other files."""
        index = self._file_index(key)
        for attempt in range(_TRIES):
            info = self.speech[index]
            start_s, duration_s = self._window(info, length, rng)
            clean = crop_or_pad(audio.read(info.path, self.sample_rate, start_s, duration_s), length, rng)
            if not is_silent(clean):
                return info.path.stem, clean
            if attempt >= _TRIES // 4:
                index = int(rng.integers(self.num_files))
        raise UserError(f"{info.path}: is silent, and so are the other speech files drawn; check the speech corpus")

    def _noise(self, key: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Reference [M] and noise [length] from one file. Silent files are left out, each is reported once."""
        index = shuffled(key, len(self.noise), self.settings.seed, _NOISE_STREAM)
        for _ in range(_TRIES):
            info = self.noise[index]
            clip = self._read_noise(info, length, rng)
            reference, noise = references.disjoint(
                clip, length, self.sample_rate, rng, self.settings.reference_min_s, self.settings.reference_max_s
            )
            if not is_silent(noise):
                return reference, noise
            if info.path not in self._reported:
                _log.warning("%s: is silent, in whole or in part; another noise is drawn instead", info.path)
                self._reported.add(info.path)
            index = int(rng.integers(len(self.noise)))
        raise UserError(f"{info.path}: is silent, and so are the other noise files drawn; check the noise corpus")

    def _read_noise(self, info: AudioInfo, length: int, rng: np.random.Generator) -> np.ndarray:
        """A short file as a whole, of a long one a window with room for mixture and reference: [K]."""
        for_full_reference = round(self.settings.reference_max_s / references.MAX_SHARE * self.sample_rate)
        length = max(length + self._room_for_reference(), for_full_reference)
        if info.seconds <= max(_WHOLE_FILE_S, length / self.sample_rate):
            return self._short_noises.read(info.path)
        start_s, duration_s = self._window(info, length, rng)
        return trim_silence(audio.read(info.path, self.sample_rate, start_s, duration_s))


class Paired(KeyedDataset):
    """Crops of pairs recorded or mixed beforehand; the reference is noisy - clean outside the crop."""

    def __init__(self, pairs: Sequence[Pair], settings: ItemSettings) -> None:
        super().__init__(len(pairs), settings)
        self.pairs = list(pairs)

    def _info(self, index: int) -> AudioInfo:
        return self.pairs[index].noisy

    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        index = self._file_index(key)
        for _ in range(_TRIES):
            pair = self.pairs[index]
            clean, noisy, reference = self._cut(pair, length, rng)
            if not is_silent(noisy):
                return Item(clean, noisy, reference, Path(pair.name).name)
            index = int(rng.integers(self.num_files))
        raise UserError(f"{pair.noisy.path}: is silent, and so are the other files drawn; check the corpus")

    def _cut(self, pair: Pair, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clean [n], noisy [n] and reference [M], n <= `length`."""
        room = self._room_for_reference() if self.settings.with_reference else 0
        window = self._window(pair.noisy, length + room, rng)
        clean = audio.read(pair.clean.path, self.sample_rate, *window)
        noisy = audio.read(pair.noisy.path, self.sample_rate, *window)
        if not self.settings.with_reference:
            return clean, noisy, references.NO_REFERENCE
        return references.residual_crop(
            noisy, clean, length, self.sample_rate, rng, self.settings.reference_min_s, self.settings.reference_max_s
        )


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
        waveforms = normalised(item)
        return {
            "clean": waveforms["clean"],
            "noisy": waveforms["noisy"],
            "reference": waveforms["reference"],
            "name": f"{index:03d}_{item.name}",
        }


class DecodedFiles:
    """Whole files decoded once and kept while they fit into `max_bytes`; the ones used longest ago go first."""

    def __init__(self, sample_rate: int, max_bytes: int) -> None:
        self.sample_rate = sample_rate
        self.max_bytes = max_bytes
        self._held: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._bytes = 0

    def read(self, path: Path) -> np.ndarray:
        """The file [K] without digital silence at its ends; read-only."""
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        waveform = trim_silence(audio.read(path, self.sample_rate)).copy()
        waveform.flags.writeable = False
        self._held[path] = waveform
        self._bytes += waveform.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return waveform


def normalised(item: Item) -> TensorDict:
    """Tensors of one item, all three waveforms divided by the largest magnitude of the noisy one."""
    peak = np.abs(item.noisy).max()
    clean, noisy, reference = (torch.from_numpy(w / peak) for w in (item.clean, item.noisy, item.reference))
    length = torch.tensor(len(reference), dtype=torch.int64)
    return {"clean": clean, "noisy": noisy, "reference": reference, "reference_length": length}


def null_share(dataset: KeyedDataset, num: int = 200) -> float:
    """The share of the first `num` items that should have a reference and have none."""
    if not dataset.settings.with_reference:
        return 0.0
    return sum(int(dataset[key]["reference_length"] == 0) for key in range(num)) / num


def num_samples(info: AudioInfo, sample_rate: int) -> int:
    """The length of a file once resampled, rounded down."""
    return info.num_frames * sample_rate // info.sample_rate


def shuffled(key: int, length: int, seed: int, stream: int) -> int:
    """The index in [0, length) that a running `key` stands for; no index comes twice in a row if length > 1."""
    epoch, position = divmod(key, length)
    return int(_order(epoch, length, seed, stream)[position])


@lru_cache(maxsize=8)
def _order(epoch: int, length: int, seed: int, stream: int) -> np.ndarray:
    order = _plain_order(epoch, length, seed, stream)
    if epoch > 0 and length > 2 and order[0] == _plain_order(epoch - 1, length, seed, stream)[-1]:
        order[[0, 1]] = order[[1, 0]]
    return order


def _plain_order(epoch: int, length: int, seed: int, stream: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, epoch if length > 2 else 0)).permutation(length)
