"""Checks across splits: the same recording must not be trained on and tested with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import SILENCE_RMS, rms
from sgmse.doctor.page import Page

_STRETCHES = 32
_ALIKE_DB = 0.05
_FLOOR = 0.01  # -40 dB: fainter stretches may be changed by rounding


def check_duplicates(page: Page, label: str, splits: Mapping[str, Sequence[AudioInfo]]) -> None:
    """The same recording in different splits, whatever its name, format and level.

    Only files whose length and rate occur in two splits are decoded.
    """
    by_length: dict[tuple[int, int], list[tuple[str, Path]]] = defaultdict(list)
    for split, files in splits.items():
        for info in files:
            by_length[info.num_frames, info.sample_rate].append((split, info.path))
    groups = [group for group in by_length.values() if len({split for split, _ in group}) > 1]
    leaked = []
    for group in tqdm(groups, desc=f"{label}: duplicates", leave=False):
        for a, b in _alike([path for _, path in group]):
            if group[a][0] != group[b][0]:
                leaked.append(({group[a][0], group[b][0]}, f"{group[a][1]} = {group[b][1]}"))
    total = sum(map(len, splits.values()))
    page.fact(f"{label}: {total} files in {', '.join(splits)} compared by content, {len(leaked)} pairs across splits")
    _tell(page, label, "recordings", leaked)


def _alike(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs of files of one length whose courses of level agree."""
    courses = {number: levels for number, path in enumerate(paths) if (levels := course(path)) is not None}
    if not courses:
        return []
    numbers, tree = list(courses), cKDTree(np.stack(list(courses.values())))
    return [(numbers[a], numbers[b]) for a, b in sorted(tree.query_pairs(_ALIKE_DB, p=np.inf))]


def course(path: Path) -> np.ndarray | None:
    """Levels in dB of 32 equal stretches of a file [32], relative to the whole; None for a silent or damaged file.

    Rounding, format, level and sign leave them as they are, and no two recordings share them.
    """
    seconds = audio.info(path).seconds / _STRETCHES
    try:
        levels = np.array([rms(audio.read(path, None, i * seconds, seconds)) for i in range(_STRETCHES)])
    except UserError:  # damaged, which the check of single files tells
        return None
    whole = float(np.sqrt(np.mean(levels**2)))
    return None if whole < SILENCE_RMS else 20 * np.log10(np.maximum(levels / whole, _FLOOR))


def check_sources(page: Page, label: str, clips: Sequence[Clip]) -> None:
    """Clips of different splits that were cut from one recording; for corpora whose metadata tell."""
    shared = manifest.shared_sources(clips)
    page.fact(f"{label}: sources of {len(clips)} clips compared, {len(shared)} in two splits")
    _tell(page, label, "source recordings", [({a.split, b.split}, f"{a.path} and {b.path}") for a, b in shared])


def check_test_against_training(
    page: Page, label: str, rows: Sequence[Mapping[str, str]], trained: Sequence[Clip], sources: set[str]
) -> None:
    """What a test set's manifest says its items were made of, against training and validation files.

    `sources`: the recordings that the metadata of the training noise name.
    """
    splits: dict[str, set[str]] = defaultdict(set)  # of every hash and source
    for clip in tqdm(trained, desc=f"{label}: hashes", leave=False):
        splits[clip.digest()].add(clip.split)
        if clip.source in sources:
            splits[clip.source].add(clip.split)
    leaked = []
    for row in rows:
        columns = (row.get(name) or "" for name in ("speech_sha256", "noise_sha256", "source"))
        where = set().union(*(splits.get(value, set()) for column in columns for value in column.split("+")))
        if where:
            leaked.append((where | {"test"}, f"{row['id']}: {row.get('speech', '')} + {row.get('noise', '')}"))
    page.fact(f"{label}: sources of {len(rows)} items compared with {len(trained)} training and validation files")
    _tell(page, label, "items are made of recordings that", leaked)


def _tell(page: Page, label: str, what: str, leaked: Sequence[tuple[set[str], str]]) -> None:
    """What is in training and elsewhere, and what only validation and test share: the lesser evil."""
    trained = [text for splits, text in leaked if "train" in splits]
    chosen = [text for splits, text in leaked if "train" not in splits]
    if trained:
        page.problem(
            f"{label}: {len(trained)} {what} are in the training data and in another split",
            "remove them from all splits but one and train anew, or make the test set with scripts/make_testset.py "
            "--train_manifest, which refuses them",
            trained,
            falsifies=True,
        )
    if chosen:
        page.problem(
            f"{label}: {len(chosen)} {what} are in validation and test",
            "test with others: checkpoint, steps and guidance were chosen on these",
            chosen,
        )
