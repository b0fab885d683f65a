"""Where a reference pays, and where other training is the better buy: several verdicts side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sgmse.diagnostics import differences
from sgmse.diagnostics.use import BASELINE, USE
from sgmse.errors import UserError
from sgmse.statistics import Difference
from sgmse.sweep.kept import read_csv

REFERENCE, WRONG = "matched − baseline", "matched − mismatched"
ALL = "all"


@dataclass(frozen=True)
class Result:
    """What scripts/reference_use.py wrote into TRAINING/SET: the rows that count, without files that leak."""

    training: str
    test_set: str
    frame: pd.DataFrame

    def of(self, system: str) -> pd.DataFrame:
        return self.frame[self.frame["system"] == system]


@dataclass(frozen=True)
class Gain:
    """values: by metric. by: what the files were grouped by, `ALL` for none. what: the two systems held together."""

    training: str
    test_set: str
    by: str
    group: str
    what: str
    values: dict[str, Difference]


def read(folders: Sequence[Path]) -> list[Result]:
    """The results in TRAINING/SET folders, in their order. Raises `UserError` for a folder without or given twice."""
    results: dict[tuple[str, str], Result] = {}
    for folder in folders:
        path = folder.absolute()  # links keep their names
        training, test_set = path.parent.name, path.name
        if not (path / "scores.csv").is_file():
            raise UserError(f"{folder}: holds no scores.csv; name folders that scripts/reference_use.py wrote")
        if (training, test_set) in results:
            raise UserError(f"{folder}: {training}/{test_set} is there twice; the names of the folders tell them apart")
        frame = read_csv(path / "scores.csv", USE)
        frame = frame[~frame["file"].isin(differences.leaking(frame))]
        systems = set(frame["system"])
        if "matched" not in systems:
            raise UserError(f"{folder}: holds no scores of matched references; run scripts/reference_use.py to its end")
        for system, rows in frame.groupby("system"):
            if rows.duplicated(["file", "seed"]).any():
                raise UserError(
                    f"{folder}: scores.csv holds two checkpoints of one seed as {system}; give each a folder"
                )
        results[training, test_set] = Result(training, test_set, frame)
    return list(results.values())


def gains(results: Sequence[Result], against: str) -> list[Gain]:
    """What the reference adds and what a wrong one costs in each result, as a whole, by noise class and by SNR; and
    what its baseline and its matched references score more than those of the training `against` on the same set.

    Raises:
        UserError: no result is of `against`, or two trainings share no file of a set.
    """
    if against not in {result.training for result in results}:
        there = ", ".join(dict.fromkeys(result.training for result in results))
        raise UserError(f"--against {against}: none of the trainings {there}")
    first = {result.test_set: result for result in results if result.training == against}
    return [gain for result in results for gain in _of(result, first.get(result.test_set))]


def _of(result: Result, first: Result | None) -> Iterator[Gain]:
    groups = {ALL: {ALL: result.frame}} | differences.groups(result.frame)
    for by, parts in groups.items():
        for group, frame in parts.items():
            part = Result(result.training, result.test_set, frame)
            for what, values in _pairs(part, first):
                yield Gain(part.training, part.test_set, by, group, what, values)


def _pairs(part: Result, first: Result | None) -> Iterator[tuple[str, dict[str, Difference]]]:
    for other in (BASELINE, "mismatched"):
        if len(part.of(other)):
            yield f"matched − {other}", differences.between(part.of("matched"), part.of(other))
    if first is None or first.training == part.training:
        return
    for system in (BASELINE, "matched"):
        own, others = part.of(system), first.of(system)
        if own.empty or others.empty or set(own["checkpoint"]) == set(others["checkpoint"]):
            continue
        if not set(own["file"]) & set(others["file"]):
            raise UserError(
                f"{part.test_set}: {part.training} and {first.training} were scored on different files of it"
            )
        yield f"{system} − {system} of {first.training}", differences.between(own, others)


def table(found: Sequence[Gain]) -> pd.DataFrame:
    """A row per gain and metric, with its interval."""
    rows = []
    for gain in found:
        for metric, one in gain.values.items():
            ends = {"mean": one.mean, "low": one.low, "high": one.high}
            told = {"training": gain.training, "set": gain.test_set, "by": gain.by, "group": gain.group}
            told |= {"difference": gain.what, "metric": metric}
            rows.append(told | ends | {"files": one.n_files, "sources": one.n_sources, "seeds": one.n_seeds})
    return pd.DataFrame(rows)


def excludes_zero(difference: Difference) -> bool:
    """Whether the 95 % interval does; one that is not known does not."""
    return difference.low > 0 or difference.high < 0
