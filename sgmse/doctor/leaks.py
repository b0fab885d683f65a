"""Checks across splits: the same recording must not be trained on and tested with, nor handed over as a reference."""

from __future__ import annotations

import json
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
from sgmse.data.mixing import SILENCE_RMS, is_silent, rms
from sgmse.data.references import leak
from sgmse.data.testsets import heldout
from sgmse.data.testsets.build import INCOMPLETE, SET, set_digest
from sgmse.doctor.report import UNREADABLE, Problem, Report, count, sample

_STRETCHES = 32
_ALIKE_DB = 0.05
_FLOOR = 0.01  # -40 dB: fainter stretches may be changed by rounding

_TRAINED = Problem(
    "are in the training data and in another split",
    "remove them from all splits but one and train anew, or make the test set with scripts/make_testset.py "
    "--train_manifest, which refuses them",
    True,
)
_CHOSEN = Problem("are in validation and test", "test with others: checkpoint, steps and guidance were chosen on these")
_MISSING = Problem("have no reference", "build the set anew, or remove the folder", True)
_SILENT = Problem(
    "are silent: they stand for no reference and hide what one does",
    "cut them from another place of the noise, or leave these items out",
    True,
)
_SHARED = Problem(
    "hold samples of the noise that they help to remove",
    "cut them from elsewhere; as they are the result is an upper bound (the protocol oracle)",
    True,
)


def check_duplicates(report: Report, label: str, files: Sequence[tuple[str, AudioInfo]]) -> None:
    """The same recording in different splits, whatever its name, format and level. `files`: split and header.

    Only files whose length and rate occur in two splits are decoded.
    """
    by_length: dict[tuple[int, int], list[tuple[str, Path]]] = defaultdict(list)
    for split, info in files:
        by_length[info.num_frames, info.sample_rate].append((split, info.path))
    groups = [group for group in by_length.values() if len({split for split, _ in group}) > 1]
    shared = []
    for group in tqdm(groups, desc=f"{label}: duplicates", leave=False):
        for a, b in _find_alike([path for _, path in group]):
            if group[a][0] != group[b][0]:
                shared.append(({group[a][0], group[b][0]}, f"{group[a][1]} = {group[b][1]}"))
    names = ", ".join(dict.fromkeys(split for split, _ in files))
    report.fact(f"{label}: {len(files)} files in {names} compared by content, {len(shared)} pairs across splits")
    _report_shared(report, f"{label}: of {len(files)} recordings", shared)


def _find_alike(paths: Sequence[Path]) -> list[tuple[int, int]]:
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
    except UserError:  # damaged, as the check of single files says
        return None
    whole = float(np.sqrt(np.mean(levels**2)))
    return None if whole < SILENCE_RMS else 20 * np.log10(np.maximum(levels / whole, _FLOOR))


def check_sources(report: Report, label: str, clips: Sequence[Clip]) -> None:
    """Clips of different splits that were cut from one recording; for corpora whose metadata name it."""
    shared = manifest.shared_sources(clips)
    report.fact(f"{label}: sources of {len(clips)} clips compared, {len(shared)} in two splits")
    pairs = [({a.split, b.split}, f"{a.path} and {b.path}") for a, b in shared]
    _report_shared(report, f"{label}: of the source recordings", pairs)


def check_items(report: Report, label: str, rows: Sequence[Mapping[str, str]], clips: Sequence[Clip]) -> None:
    """What a test set's manifest says its items were made of, against the clips of training and validation."""
    found = [
        (splits | {"test"}, f"{row['id']}: {row.get('speech', '')} + {row.get('noise', '')}")
        for row, splits in heldout.splits_of_items(rows, clips)
    ]
    report.fact(f"{label}: sources of {len(rows)} items compared with {len(clips)} training and validation files")
    _report_shared(report, f"{label}: of the recordings behind its items", found)


def _report_shared(report: Report, subject: str, shared: Sequence[tuple[set[str], str]]) -> None:
    """What is in training and elsewhere, and what only validation and test share: the lesser evil."""
    trained = [text for splits, text in shared if "train" in splits]
    chosen = [text for splits, text in shared if "train" not in splits]
    report.files(subject, {_TRAINED: trained, _CHOSEN: chosen})


def check_set_digest(report: Report, folder: Path) -> None:
    """Whether the files are those that were built."""
    if folder.name.endswith(INCOMPLETE):
        report.problem(f"{folder}: is a build that was interrupted", "repeat the command that began it", True)
    if not (folder / SET).is_file():
        report.fact(f"{folder}: has no {SET}, so nothing says whether it is as it was built")
        return
    try:
        built = json.loads((folder / SET).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / SET}: is damaged; build the set anew") from None
    if set_digest(folder) == built:
        report.fact(f"{folder}: as it was built, sha256 {built[:16]}…")
    else:
        report.problem(
            f"{folder}: files were changed, added or removed since the set was built",
            "build it anew under another name; results on the two cannot be compared",
            falsifies=True,
            where=[folder / SET],
        )


def check_references(report: Report, folder: Path, protocol: str, references_dir: Path, max_files: int) -> None:
    """Missing, silent and unreadable references, and those that share samples with the noise of their own mixture."""
    noisy, clean = (audio.by_name(folder / name, name) for name in ("noisy", "clean"))
    references = audio.by_name(references_dir, "noise references")
    looked_at = sample(sorted(noisy.keys() & clean.keys() & references.keys()), max_files)
    missing = [noisy[name] for name in sorted(noisy.keys() - references.keys())]
    found: dict[Problem, list[Path]] = {_MISSING: missing, _SILENT: [], _SHARED: []}
    peaks, broken = [], []
    for name in tqdm(looked_at, desc=references_dir.name, leave=False):
        path = references[name]
        try:
            score = leak.score_files(path, noisy[name], clean[name])
            if score.peak == 0 and is_silent(audio.read(path, None)):
                found[_SILENT].append(path)
                continue
        except UserError as error:
            broken.append(str(error))
            continue
        peaks.append(score.peak)
        if score.shared:
            found[_SHARED].append(path)
    subject = f"{references_dir}: of {count(len(looked_at), len(noisy))} references"
    worst = f", leak score {np.mean(peaks):.2f} on average, {max(peaks):.2f} at most" if peaks else ""
    silent, shared = len(found[_SILENT]), len(found[_SHARED])
    report.fact(f"{subject} ({protocol}), {silent} silent, {shared} sharing samples with their noise{worst}")
    if protocol == "oracle":
        del found[_SHARED]  # that is what an oracle is
    report.files(subject, {UNREADABLE: broken, **found})
