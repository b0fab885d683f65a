"""Checks across splits: the same recording must not be trained on and tested with, nor handed over as a reference."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from sgmse.common.errors import UserError
from sgmse.common.progress import track
from sgmse.data import audio, listing
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora.manifest import Clip, shared_sources
from sgmse.data.mixing import SILENCE_RMS, is_silent, rms
from sgmse.data.references import leak
from sgmse.data.testsets.build import INCOMPLETE, SET, folder_of, set_digest
from sgmse.data.testsets.heldout import find_used_items
from sgmse.doctor import UNREADABLE, Problem, Report, sample
from sgmse.doctor.signals import TWICE, index_by_name

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
    splits = list(dict.fromkeys(split for split, _ in files))
    if len(splits) < 2:
        return
    by_length: dict[tuple[int, int], list[tuple[str, Path]]] = defaultdict(list)
    for split, info in files:
        by_length[info.num_frames, info.sample_rate].append((split, info.path))
    groups = [group for group in by_length.values() if len({split for split, _ in group}) > 1]
    shared = []
    for group in track(groups, len(groups), f"{label}: duplicates", "group"):
        # Recordings of one length are the same where their courses of level agree.
        courses = {number: levels for number, (_, path) in enumerate(group) if (levels := course(path)) is not None}
        tree = cKDTree(np.stack(list(courses.values()))) if courses else None
        numbers = list(courses)
        for a, b in sorted(tree.query_pairs(_ALIKE_DB, p=np.inf)) if tree else ():
            (split, path), (other_split, other_path) = group[numbers[a]], group[numbers[b]]
            if split != other_split:
                shared.append(({split, other_split}, f"{path} = {other_path}"))
    compared = f"{len(files)} files in {', '.join(splits)} compared by content"
    report.facts.append(f"{label}: {compared}, {len(shared)} pairs across splits")
    _add_shared(report, f"{label}: of {len(files)} recordings", shared)


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
    named = [clip for clip in clips if clip.source_is_named]
    if len({clip.split for clip in named}) < 2:
        return
    shared = [({a.split, b.split}, f"{a.path} and {b.path}") for a, b in shared_sources(named)]
    report.facts.append(f"{label}: sources of {len(named)} clips compared, {len(shared)} in two splits")
    _add_shared(report, f"{label}: of the source recordings", shared)


def check_items(report: Report, label: str, rows: Sequence[Mapping[str, str]], clips: Sequence[Clip]) -> None:
    """What a test set's manifest says its items were made of, against the clips of training and validation."""
    found = [
        (splits | {"test"}, f"{row['id']}: {row.get('speech', '')} + {row.get('noise', '')}")
        for row, splits in find_used_items(rows, clips)
    ]
    report.facts.append(
        f"{label}: sources of {len(rows)} items compared with {len(clips)} training and validation files"
    )
    _add_shared(report, f"{label}: of the recordings behind its items", found)


def _add_shared(report: Report, subject: str, shared: Sequence[tuple[set[str], str]]) -> None:
    """What is in training and elsewhere, and what only validation and test share: the lesser evil."""
    trained = [text for splits, text in shared if "train" in splits]
    chosen = [text for splits, text in shared if "train" not in splits]
    report.add_files(subject, {_TRAINED: trained, _CHOSEN: chosen})


def check_set_digest(report: Report, folder: Path) -> None:
    """Whether the files are those that were built."""
    if folder.name.endswith(INCOMPLETE):
        what = f"{folder}: is a build that was interrupted"
        report.add_problem(what, "repeat the command that began it", True)
    if not (folder / SET).is_file():
        report.facts.append(f"{folder}: has no {SET}, so nothing says whether it is as it was built")
        return
    try:
        built = json.loads((folder / SET).read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / SET}: is damaged; build the set anew") from None
    if set_digest(folder) == built:
        report.facts.append(f"{folder}: as it was built, sha256 {built[:16]}…")
        return
    what = f"{folder}: files were changed, added or removed since the set was built"
    remedy = "build it anew under another name; results on the two cannot be compared"
    report.add_problem(what, remedy, True, [folder / SET])


def check_references(report: Report, folder: Path, protocol: str, max_files: int) -> None:
    """Missing, silent and unreadable references, and those that share samples with the noise of their own mixture."""
    places = [folder / name for name in ("noisy", "clean", folder_of(protocol))]
    there, (_, _, broken) = zip(*(listing.search(place, place.name) for place in places), strict=True)
    (noisy, _), (clean, _), (references, twice) = map(index_by_name, places, there)
    chosen, _ = sample(sorted(noisy.keys() & clean.keys() & references.keys()), max_files, "references")
    missing = [noisy[name] for name in sorted(noisy.keys() - references.keys())]
    found: dict[Problem, list[Path | str]] = {
        UNREADABLE: [*broken],
        TWICE: [*twice],
        _MISSING: [*missing],
        _SILENT: [],
        _SHARED: [],
    }
    peaks = []
    for name in track(chosen, len(chosen), folder_of(protocol)):
        path = references[name]
        try:
            score = leak.score_files(path, noisy[name], clean[name])
            is_empty = score.peak == 0 and is_silent(audio.read(path, None))
        except UserError as error:
            found[UNREADABLE].append(str(error))
            continue
        if is_empty:
            found[_SILENT].append(path)
            continue
        peaks.append(score.peak)
        if score.shared:
            found[_SHARED].append(path)
    number = f"{len(chosen)}" if len(chosen) == len(noisy) else f"{len(chosen)} of {len(noisy)}"
    subject = f"{folder / folder_of(protocol)}: of {number} references"
    worst = f", leak score {np.mean(peaks):.2f} on average, {max(peaks):.2f} at most" if peaks else ""
    silent, shared = len(found[_SILENT]), len(found[_SHARED])
    report.facts.append(f"{subject} ({protocol}), {silent} silent, {shared} sharing samples with their noise{worst}")
    if protocol == "oracle":
        del found[_SHARED]  # that is what an oracle is
    report.add_files(subject, found)
