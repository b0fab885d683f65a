"""A test set: its noisy files, their clean partners, what the manifest says of them, and references by protocol."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from sgmse.common.errors import UserError
from sgmse.common.workers import in_processes
from sgmse.data import audio
from sgmse.data.references import HEAD_S, leak
from sgmse.data.references.estimated import estimate_noise
from sgmse.data.references.leak import Leak
from sgmse.diffusion.noise import seed_of
from sgmse.enhancement.protocols import CHANGED, GAINS, PROTOCOLS, Protocol, cut_oracle, match_level, shuffle_segments
from sgmse.evaluation.baselines import load_baseline

# the other protocols hold samples of the disjoint reference or are made from the noisy file
_WITH_LEAK = ("disjoint", "same_class", "other_take", "mismatched", "oracle")


@dataclass(frozen=True)
class Item:
    """One noisy file.

    Args:
        name: its path below the folder of the noisy files, with its suffix; results have the same.
        clean: its clean partner, where the set has one.
        row: what the manifest says of it; empty where there is none.
    """

    name: str
    noisy: Path
    clean: Path | None = None
    row: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name without suffix, by which partners are found."""
        return PurePosixPath(self.name).with_suffix("").as_posix()

    @property
    def facts(self) -> dict[str, Any]:
        """kind and source of its noise and snr_db, by the manifest; a file of unknown source is its own."""
        try:
            snr_db = float(self.row.get("snr_db") or "nan")
        except ValueError:
            snr_db = math.inf
        if math.isinf(snr_db):
            raise UserError(f"manifest.csv: snr_db of {self.name} is {self.row['snr_db']}, no number; correct it")
        source = self.row.get("source") or self.row.get("noise") or self.name
        return {"kind": self.row.get("kind") or "", "source": source, "snr_db": snr_db}


class Reference(NamedTuple):
    """waveform [M] at the model's rate, None: the null. source: its file, or how it was made."""

    waveform: np.ndarray | None
    source: str | None = None


@dataclass(frozen=True)
class TestSet:
    """Files to enhance, with the references of one protocol or of several. `lookup.open_test_set` makes it.

    Args:
        folder: of the noisy files; None where they were named one by one.
        items: those that are to be enhanced.
        protocol: the one that was asked for, or the set's usual one.
        reference_dir: where its references are, if in a folder.
        paths: for the protocols that take references from files, that of each item; None: it has none.
            For `own_noise` they are the clean files.
        levelled: protocols whose references are borrowed from other items, and brought to the level of the own ones.
        refused: why protocols that were tried cannot run.
        broken: sentences about audio in the folder that cannot be read and is no item.
    """

    __test__ = False  # no test, for pytest

    folder: Path | None
    items: list[Item]
    protocol: Protocol
    reference_dir: Path | None
    paths: dict[str, dict[str, Path | None]]
    levelled: frozenset[str] = frozenset()
    refused: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _places: dict[str, dict[Path, list[int]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def runnable(self) -> list[Protocol]:
        """The protocols that were tried and can run, in the order of `PROTOCOLS`."""
        tried = self.paths.keys() | {self.protocol, "estimated", "none"}
        tried |= {*CHANGED} if "disjoint" in self.paths else set()
        tried |= {"oracle"} if all(item.clean is not None for item in self.items) else set()
        return [protocol for protocol in PROTOCOLS if protocol in tried and protocol not in self.refused]

    def path(self, item: Item, protocol: str) -> Path | None:
        """The file that the reference is, or is made from together with the noisy file."""
        return self.paths.get("disjoint" if protocol in CHANGED else protocol, {}).get(item.name)

    def reference(
        self, item: Item, protocol: Protocol, rate: int, seed: int = 0, mono: np.ndarray | None = None
    ) -> Reference:
        """The reference of an item under every protocol but `self`, which takes a network.

        Args:
            item: one of `items`.
            protocol: one of `runnable`.
            rate: that of the model.
            seed: drives estimating, cutting and shuffling.
            mono: the average of the file's channels [N] at that rate, or its head, where it has been read.
        """
        if protocol == "estimated":
            noisy = audio.read(item.noisy, rate) if mono is None else mono
            estimate = estimate_noise(noisy, rate, seed_of(f"{seed} {item.name}"))
            return Reference(estimate.reference if len(estimate.reference) else None, estimate.way)
        if protocol == "dtln":
            noisy = audio.read(item.noisy, rate) if mono is None else mono
            return Reference(noisy - load_baseline("dtln")(noisy, rate), "dtln")
        rng = np.random.default_rng(seed_of(f"{seed} {item.name} {protocol}"))
        if protocol == "oracle" and "oracle" not in self.paths:
            own = self.path(item, "disjoint")
            length = 0 if own is None else len(audio.read(own, rate))
            return Reference(cut_oracle(self.noise(item, rate), length, rate, rng), "cut")
        path = self.path(item, protocol)
        if path is None:  # `none`, or an item without partner
            return Reference(None)
        if protocol == "own_noise":
            return Reference(_own_noise(item, path, rate, mono), str(path.resolve()))
        waveform = audio.read(path, rate, duration_s=HEAD_S)
        if protocol in GAINS:
            waveform = waveform * GAINS[protocol]
        elif protocol == "shuffled":
            waveform = shuffle_segments(waveform, rate, rng)
        elif protocol in self.levelled:
            own = self.path(item, "disjoint")
            waveform = waveform if own is None else match_level(waveform, audio.read(own, rate))
        return Reference(waveform, str(path.resolve()))

    def noise(self, item: Item, rate: int) -> np.ndarray:
        """noisy − clean [N]."""
        assert item.clean is not None
        return audio.read(item.noisy, rate) - audio.read(item.clean, rate)

    def other_item(self, item: Item, protocol: str, seed: int) -> Item:
        """An item with another reference, drawn by seed and name: its reference is unrelated to `item`."""
        if protocol not in self._places:
            places: dict[Path, list[int]] = {}
            for place, other in enumerate(self.items):
                places.setdefault(self.path(other, protocol) or other.noisy, []).append(place)
            self._places[protocol] = places
        alike = self._places[protocol].get(self.path(item, protocol) or item.noisy, [])
        chosen = seed_of(f"{seed} {item.name} unrelated") % (len(self.items) - len(alike))
        for place in alike:  # the number among the others becomes that among all
            chosen += place <= chosen
        return self.items[chosen]

    def fingerprint(self) -> str:
        """A hash of what is used: paths, sizes and times of the files, the manifest, and who has which reference."""

        @cache
        def stamp(path: Path | None) -> tuple[str, int, int] | None:
            return None if path is None else (str(path), path.stat().st_size, path.stat().st_mtime_ns)

        used = []
        for item in self.items:
            references = [(protocol, stamp(paths.get(item.name))) for protocol, paths in sorted(self.paths.items())]
            used.append((item.name, item.facts, stamp(item.noisy), stamp(item.clean), references))
        return hashlib.sha256(repr(used).encode()).hexdigest()[:16]

    def leaks(self, protocol: Protocol, rate: int, seed: int, jobs: int | None) -> dict[str, Leak]:
        """The leak score of each item's reference by name; none where it holds the samples of the disjoint one."""
        if protocol not in _WITH_LEAK:
            return {}
        score = partial(_score_leak, self, protocol, rate, seed)
        found = in_processes(score, self.items, jobs, f"leak scores, {protocol}")
        return {item.name: one for item, one in zip(self.items, found, strict=True) if one is not None}


def _own_noise(item: Item, clean: Path, rate: int, mono: np.ndarray | None) -> np.ndarray:
    """noisy − clean [N]; of the head alone where `mono` is the head."""
    noisy = audio.read(item.noisy, rate) if mono is None else mono
    speech = audio.read(clean, rate, duration_s=len(noisy) / rate)
    if len(speech) != len(noisy):
        raise UserError(f"{clean}: is {len(speech)} samples long, its noisy file {len(noisy)}; check it")
    return noisy - speech


def _score_leak(test_set: TestSet, protocol: Protocol, rate: int, seed: int, item: Item) -> Leak | None:
    """The leak score of one item; runs in a worker process."""
    reference = test_set.reference(item, protocol, rate, seed).waveform
    return None if reference is None else leak.score(reference, test_set.noise(item, rate), rate)
