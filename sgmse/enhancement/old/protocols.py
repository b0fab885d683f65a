"""One test set, many references: the right one, wrong ones, changed ones, none at all, and one that leaks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora, references
from sgmse.data.mixing import crossfade, is_silent, rms
from sgmse.data.references import NO_REFERENCE, leak
from sgmse.data.references.estimated import estimated
from sgmse.data.references.leak import Leak
from sgmse.diffusion.noise import seed_of
from sgmse.enhancement.old.lookup import borrowed, look_up
from sgmse.enhancement.old.test_set import Files, check_inputs, find_files
from sgmse.evaluation.workers import in_processes
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

Protocol = Literal["matched", "same_class", "mismatched", "louder", "softer", "shuffled", "estimated", "null", "oracle"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SHIFT_DB = 6.0
SEGMENT_S = 0.05  # of a reference that is shuffled
_GAINS = {"louder": 10 ** (SHIFT_DB / 20), "softer": 10 ** (-SHIFT_DB / 20)}
_FROM_MATCHED = ("louder", "softer", "shuffled")
# the others hold samples of the matched one or are made from the noisy file
_WITH_LEAK = ("matched", "same_class", "mismatched", "oracle")


@dataclass(frozen=True)
class SetReferences:
    """The files of a test set with the references of every protocol that can run.

    Args:
        files: their own references are the disjoint ones.
        given: for the protocols that take them from files, that of each job; None: it has none.
        levelled: protocols whose references come from other items and are brought to the level of the file's own.
        refused: why the other protocols cannot run.
        seed: drives cutting and shuffling.
    """

    files: Files
    given: dict[str, list[Path | None]]
    levelled: frozenset[str]
    refused: dict[str, str]
    seed: int

    @property
    def runnable(self) -> list[Protocol]:
        return [protocol for protocol in PROTOCOLS if protocol not in self.refused]

    def reference(self, protocol: Protocol, place: int, rate: int) -> np.ndarray | None:
        """The reference [M] of a job under a protocol; None: this job has none (with `null`: nobody has)."""
        rng = np.random.default_rng(seed_of(f"{self.seed} {self.files.names[place]} {protocol}"))
        if protocol == "null":
            return None
        if protocol == "estimated":
            noisy = audio.read(self.files.jobs[place].noisy, rate)
            return estimated(noisy, rate, int(rng.integers(2**32))).reference
        own_path = self.files.jobs[place].reference
        own = NO_REFERENCE if own_path is None else audio.read(own_path, rate)
        if protocol in _GAINS:
            return own * np.float32(_GAINS[protocol])
        if protocol == "shuffled":
            return shuffled(own, rate, rng)
        if protocol == "oracle" and protocol not in self.given:
            return _cut(self.noise(place, rate), len(own), rate, rng)
        path = self.given[protocol][place]
        if path is None:
            return None
        found = audio.read(path, rate)
        return at_level(found, own) if protocol in self.levelled else found

    def told(self) -> dict[str, str]:
        """Which references are lent by other items, and a hash of the sizes and times of all files."""
        paths = {path for some in self.given.values() for path in some if path is not None}
        paths |= {job.noisy for job in self.files.jobs} | set(self.files.clean)
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(paths)]
        ways = {protocol: "lent" if protocol in self.levelled else "files" for protocol in self.given}
        return ways | {"fingerprint": hashlib.sha256(repr(stats).encode()).hexdigest()[:16]}

    def leaks(self, protocol: Protocol, rate: int, jobs: int) -> list[Leak | None]:
        """The leak score of each job's reference; None where it has none or holds the samples of the matched one."""
        if protocol not in _WITH_LEAK:
            return [None] * len(self.files.jobs)
        tasks = [_LeakTask(self, protocol, place, rate) for place in range(len(self.files.jobs))]
        return list(in_processes(_leak, tasks, jobs, f"leak scores, {protocol}"))

    def noise(self, place: int, rate: int) -> np.ndarray:
        """noisy − clean [N]."""
        return audio.read(self.files.jobs[place].noisy, rate) - audio.read(self.files.clean[place], rate)


def open_set(folder: Path, model: Enhancer, max_files: int | None, seed: int) -> SetReferences:
    """The files of a test set (`max_files`: spread over it), all checked, and what can be run on them with a model."""
    if not (folder / "noisy").is_dir() or not (folder / "clean").is_dir():
        raise UserError(f"{folder}: holds no noisy/ and clean/ to enhance and score; name a test set")
    corpora.matched_pairs(folder / "clean", folder / "noisy")
    has_own = (folder / "ref").is_dir()
    config = EnhanceConfig(test_dir=str(folder), reference="disjoint" if has_own else "none")
    files = find_files(config, Path("nowhere"), model, max_files)
    given: dict[str, list[Path | None]] = {"matched": [job.reference for job in files.jobs]}
    refused = {} if has_own else {"matched": f"{folder} holds no ref/"}
    if not has_own:
        refused |= dict.fromkeys(_FROM_MATCHED, "it changes the matched reference, and there is none")
    if model.cond_drop_prob == 0:
        refused["null"] = "the model was trained without dropping references, so it knows no null"
    levelled = set()
    for protocol in ("same_class", "mismatched", "oracle"):
        beside = (folder / f"ref_{protocol}").is_dir()
        if protocol == "oracle" and not beside:
            continue  # it is cut from noisy − clean
        try:
            given[protocol] = _from_files(folder, files, protocol, beside)
        except UserError as error:
            refused[protocol] = str(error)
            continue
        if not beside:
            levelled.add(protocol)
        paths = zip(files.jobs, given[protocol], strict=True)
        jobs = [replace(job, reference=path) for job, path in paths if path is not None]
        check_inputs(jobs, protocol, model.settings["n_fft"], model.settings["sample_rate"])
    return SetReferences(files, given, frozenset(levelled), refused, seed)


def _from_files(
    folder: Path, files: Files, protocol: Literal["same_class", "mismatched", "oracle"], beside: bool
) -> list[Path | None]:
    """The reference of each job from SET/ref_PROTOCOL, or else from another item. `UserError`: there are none."""
    names = [path.relative_to(folder / "noisy") for path in audio.find(folder / "noisy", "noisy speech")]
    if beside or protocol == "oracle":
        config = EnhanceConfig(test_dir=str(folder), reference=protocol)
        paths = look_up(config, folder / "noisy", names).files
    else:
        missing = [name for name in ("ref", "manifest.csv") if not (folder / name).exists()]
        if missing:
            raise UserError(f"{folder} holds no ref_{protocol}/, and without {' and '.join(missing)} none is borrowed")
        paths = borrowed(protocol, folder, names)
    by_name = {name.as_posix(): path for name, path in zip(names, paths, strict=True)}
    own = [by_name[name] for name in files.names]
    if all(path is None for path in own):
        raise UserError("no file has another item with fitting noise, by kind and source in manifest.csv")
    return own


def shuffled(reference: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """`reference` [M] with its segments of about 50 ms in random order, joined by cross-fades. Returns [M].

    Level and spectrum stay; what changes over time, and how, is lost. One of a single segment stays as it is.
    """
    fade = round(0.02 * sample_rate)  # that of `crossfade`
    count = round((len(reference) - fade) / (SEGMENT_S * sample_rate))
    if count < 2:
        return reference
    edges = np.linspace(0, len(reference) - fade, count + 1).round().astype(int)
    order = rng.permutation(count)
    while (order == np.arange(count)).all():
        order = rng.permutation(count)
    pieces = [reference[edges[i] : edges[i + 1] + fade] for i in order]
    return reduce(lambda first, second: crossfade(first, second, sample_rate), pieces)


def at_level(other: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`other` [M] with the RMS of `own` [M'], so that its kind alone differs; as it is where one of them is silent."""
    return other if is_silent(other) or is_silent(own) else other * np.float32(rms(own) / rms(other))


def _cut(noise: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray | None:
    """A stretch of the mixture's own `noise` [N], as long as the disjoint reference if there is one."""
    limits = (length / sample_rate, length / sample_rate) if length else (references.MIN_S, references.MAX_S)
    found = references.oracle(noise, sample_rate, rng, *limits)
    return found if len(found) else None


@dataclass(frozen=True)
class _LeakTask:
    """The reference of one job, to be compared with the noise in its mixture in a worker process."""

    references: SetReferences
    protocol: Protocol
    place: int
    rate: int


def _leak(task: _LeakTask) -> Leak | None:
    reference = task.references.reference(task.protocol, task.place, task.rate)
    if reference is None:
        return None
    return leak.score(reference, task.references.noise(task.place, task.rate), task.rate)
