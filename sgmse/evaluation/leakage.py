"""The leak score of every item that was enhanced with a noise reference, beside the scores of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.workers import in_processes
from sgmse.data import listing
from sgmse.data.references import leak
from sgmse.data.references.leak import Leak
from sgmse.evaluation import scores as evaluation

COLUMNS = ("leak", "leak_shared")
BLIND = ("none", "estimated", "dtln", "self")  # made from the noisy file alone: nothing could leak
_REPEATS = 0.9  # a correlation without shared samples that is worth a word


class _Task(NamedTuple):
    """A pair of noisy and clean file, and the reference; the clean file itself stands for the noise in it."""

    noisy: Path
    clean: Path
    reference: Path


Tasks = Mapping[tuple[str, str], _Task]  # by system and key of the clean file


def find_references(
    systems: Mapping[str, Path], clean_dir: Path, noisy_dir: Path, ref_dir: Path | None = None
) -> Tasks:
    """Which reference to compare with which noise, for each system and file.

    References are those that a system's run.json names; for folders without one, and for the unprocessed files, those
    of `ref_dir`. Items without reference, or whose reference was made from the noisy file alone, are left out.
    """
    clean = listing.by_name(clean_dir, "clean speech")
    noisy = evaluation.match(clean_dir, noisy_dir, "noisy speech")
    beside = {} if ref_dir is None else listing.find_partners(clean, ref_dir, "noise references")
    if ref_dir is not None and not beside:
        raise UserError(f"{ref_dir}: none of its files is named as one in {clean_dir}; name the references of that set")
    tasks: dict[tuple[str, str], _Task] = {}
    for system in (evaluation.NOISY, *systems):
        named = None if system == evaluation.NOISY else _named_references(systems[system], clean)
        references = beside if named is None else named
        tasks |= {(system, key): _Task(noisy[key], clean[key], path) for key, path in references.items()}
    return tasks


def with_leaks(frame: pd.DataFrame, tasks: Tasks, jobs: int | None = None) -> pd.DataFrame:
    """`frame` with the columns leak (largest correlation) and leak_shared (whether samples are shared)."""
    distinct = list(dict.fromkeys(tasks.values()))
    found = dict(zip(distinct, in_processes(_score, distinct, jobs, "leak scores"), strict=True))
    places = zip(frame["system"], frame["file"], strict=True)
    rows = [found[tasks[place]] if place in tasks else None for place in places]
    frame = frame.copy()
    frame["leak"] = [np.nan if row is None else round(row.peak, 4) for row in rows]
    shared = [None if row is None else row.shared for row in rows]
    frame["leak_shared"] = pd.Series(shared, index=frame.index, dtype=object)
    return frame


def describe_leaks(frame: pd.DataFrame, systems: Mapping[str, Path]) -> list[str]:
    """A line for each system with leak scores: its protocol, how many items leak, and the largest correlation."""
    lines = []
    for system in frame["system"].unique():
        rows = frame[(frame["system"] == system) & frame["leak"].notna()]
        if rows.empty:
            continue
        settings = evaluation.run_settings(systems[system]) if system in systems else {}
        largest, shared = rows.loc[rows["leak"].idxmax()], int(rows["leak_shared"].astype(bool).sum())
        repeats = "" if largest["leak_shared"] or largest["leak"] < _REPEATS else ", a repeating sound"
        protocol = settings.get("reference", "the reference folder's")
        lines.append(
            f"{system}: references: {protocol}; leak: {shared} of {len(rows)} share samples with their mixture "
            f"(largest correlation {largest['leak']:.2f}{repeats}: {largest['file']})"
        )
    return lines


def _named_references(folder: Path, clean: Mapping[str, Path]) -> dict[str, Path] | None:
    """The references that `folder`/run.json names, by the keys of `clean`; None where it says nothing of references."""
    run = evaluation.read_run(folder)
    if not isinstance(run.get("references"), dict):
        return None
    if run.get("reference") in BLIND:
        return {}
    named = {name: Path(path) for name, path in run["references"].items() if isinstance(path, str)}
    there = {name: path for name, path in named.items() if path.is_file()}
    if len(there) < len(named):
        print(f"{folder}: {len(named) - len(there)} of its references are not there any more and get no leak score")
    return listing.match_names(clean, there)


def _score(task: _Task) -> Leak:
    """The leak score of one item, at the rate of its noisy file; runs in a worker process."""
    if task.reference.resolve() == task.clean.resolve():
        return Leak(1.0, 0.0, True)
    return leak.score_files(task.reference, task.noisy, task.clean)
