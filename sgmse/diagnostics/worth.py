"""Where a reference pays, and where other training is the better buy: several verdicts side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.diagnostics import differences
from sgmse.diagnostics.use import BASELINE, USE
from sgmse.evaluation.kept import read_csv
from sgmse.evaluation.statistics import Difference

Pair = tuple[str, str]
REFERENCE: Pair = ("matched", BASELINE)
WRONG: Pair = ("matched", "mismatched")
DATA: Pair = (BASELINE, BASELINE)  # of two trainings
_WITHIN = (REFERENCE, WRONG, ("matched", "estimated"), ("estimated", BASELINE))
_BETWEEN = (DATA, (BASELINE, "matched"), ("matched", "matched"))
ALL = "all"


@dataclass(frozen=True)
class Result:
    """What scripts/reference_use.py wrote into TRAINING/SET: the rows that count, without files that leak."""

    training: str
    test_set: str
    frame: pd.DataFrame

    def of(self, system: str) -> pd.DataFrame:
        """The rows of a system."""
        return self.frame[self.frame["system"] == system]


@dataclass(frozen=True)
class Gain:
    """What one system scores more than another on the files of a group.

    Args:
        by: what the files were grouped by; `ALL`: not at all.
        pair: the two systems, the first of this training. against: the training of the second, if it is another one.
        values: by metric.
    """

    training: str
    test_set: str
    by: str
    group: str
    pair: Pair
    against: str | None
    values: dict[str, Difference]

    @property
    def what(self) -> str:
        """In words."""
        return f"{self.pair[0]} − {self.pair[1]}" + ("" if self.against is None else f" of {self.against}")


def read(folders: Sequence[Path]) -> list[Result]:
    """The results in TRAINING/SET folders, in their order.

    Raises:
        UserError: a folder holds no table of scores, nothing that counts, or two checkpoints of one seed; or it is
            named like another one.
    """
    results: dict[tuple[str, str], Result] = {}
    for folder in folders:
        path = folder.absolute()  # links keep their names
        training, test_set = path.parent.name, path.name
        if not (path / "scores.csv").is_file():
            raise UserError(f"{folder}: holds no scores.csv; name folders that scripts/reference_use.py wrote")
        if (training, test_set) in results:
            raise UserError(f"{folder}: {training}/{test_set} is there twice; the names of the folders tell them apart")
        results[training, test_set] = Result(training, test_set, _counted(folder, read_csv(path / "scores.csv", USE)))
    return list(results.values())


def _counted(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if not {"matched", BASELINE} <= set(frame["system"]):
        raise UserError(
            f"{folder}: holds no scores of matched references and of a baseline; run scripts/reference_use.py with "
            "--baseline to its end"
        )
    for system, rows in frame.groupby("system"):
        if rows.duplicated(["file", "seed"]).any():
            raise UserError(f"{folder}: scores.csv holds two checkpoints of one seed as {system}; give each a folder")
    counted = frame[~frame["file"].isin(differences.leaking(frame))]
    if counted.empty:
        raise UserError(f"{folder}: every matched reference shares samples with its mixture, so nothing counts")
    return counted


def gains(results: Sequence[Result], against: str) -> list[Gain]:
    """Differences within each result, as a whole, by noise class and by SNR; and those to the training `against` on the
    same set, file by file.

    Raises:
        UserError: no result is of `against`, or another training shares no file of a set with it.
    """
    if against not in {result.training for result in results}:
        there = ", ".join(dict.fromkeys(result.training for result in results))
        raise UserError(f"--against {against}: none of the trainings {there}")
    first = {result.test_set: result for result in results if result.training == against}
    found: list[Gain] = []
    for result in results:
        other = first.get(result.test_set)
        if other is not None and not set(result.frame["file"]) & set(other.frame["file"]):
            raise UserError(f"{result.test_set}: {result.training} and {against} were scored on different files of it")
        found += _of(result, None if other is result else other)
    return found


def _of(result: Result, first: Result | None) -> Iterator[Gain]:
    groups = {ALL: {ALL: result.frame}} | differences.groups(result.frame)
    for by, parts in groups.items():
        for group, frame in parts.items():
            part = Result(result.training, result.test_set, frame)
            for pair in _WITHIN:
                if len(part.of(pair[1])) and len(part.of(pair[0])):
                    values = differences.between(part.of(pair[0]), part.of(pair[1]))
                    yield Gain(part.training, part.test_set, by, group, pair, None, values)
            if first is None:
                continue
            for pair in _BETWEEN:
                own, others = part.of(pair[0]), first.of(pair[1])
                if set(own["checkpoint"]) != set(others["checkpoint"]) and set(own["file"]) & set(others["file"]):
                    values = differences.between(own, others)
                    yield Gain(part.training, part.test_set, by, group, pair, first.training, values)


def by_group(found: Sequence[Gain]) -> dict[str, list[Gain]]:
    """What the reference adds to groups of files, by what they were grouped by."""
    chosen: dict[str, list[Gain]] = {}
    for gain in found:
        if gain.by != ALL and gain.pair == REFERENCE:
            chosen.setdefault(gain.by, []).append(gain)
    return chosen


def trainings(results: Sequence[Result]) -> list[list[str]]:
    """A row per training: its name, its seeds, those of its baseline, the steps and guidance it was sampled with."""
    rows = [["training", "seeds", "of the baseline", "N", "w"]]
    for name in dict.fromkeys(result.training for result in results):
        frame = pd.concat([result.frame for result in results if result.training == name])
        model, bare = (frame[frame["system"] == system] for system in ("matched", BASELINE))
        columns = [(model, "seed"), (bare, "seed"), (model, "N"), (model, "guidance_scale")]
        rows.append([name, *(", ".join(f"{v:g}" for v in sorted(set(one[c].dropna()))) for one, c in columns)])
    return rows


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
