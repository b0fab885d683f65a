"""Tables from folders of audio: one row per system and file, then means, paired differences and their intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.progress import track
from sgmse.common.workers import Workers, in_processes
from sgmse.data import audio, listing
from sgmse.data.testsets import build
from sgmse.evaluation import metrics, statistics
from sgmse.evaluation.results import NOISY

REMOVED = "removed_percent"  # a column: how much of the energy of a noisy file is gone, where no clean file is known
PER_FILE = ("files", "references", "disagreement", "adaptive")  # in run.json: what concerns single files, not the run

Setting = str | int | float | bool | None
Row = dict[str, float | str]
Score = Callable[[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]], list[Row]]
"""clean, estimated and noisy waveforms [N] → their rows"""


class _Task(NamedTuple):
    """One file of one system, to be scored in a worker process."""

    system: str
    file: str
    clean: Path | None
    estimate: Path
    noisy: Path | None
    names: tuple[str, ...]  # of the metrics


def columns(names: Sequence[str] = metrics.STANDARD) -> list[str]:
    """Of the table that `evaluate` returns; `names`: of the metrics."""
    return ["system", "file", *names, "reason", "seconds", "source"]


def evaluate(
    clean_dir: Path | None,
    systems: Mapping[str, Path],
    noisy_dir: Path | None = None,
    jobs: int | None = None,
    asked: Sequence[str] = (),
) -> pd.DataFrame:
    """Score every file of every system by the standard metrics and those `asked` for; the system "noisy" comes first.

    Without clean files, by those alone that were asked for. Returns the columns `columns(names of the metrics)`.
    Files are matched by their path below the folder without suffix, or else by their name alone. The noise, which
    SI-SIR and others need, is noisy minus clean. `source`, the noise recording of a file, comes from the manifest
    beside the folders of the set. `jobs` is the number of processes, by default one per core; a file during which its
    process dies has no score, and a reason.
    """
    if NOISY in systems:
        raise UserError(f'a system cannot be named "{NOISY}", the name of the unprocessed files; rename its folder')
    originals = clean_dir or noisy_dir
    folders = ({} if noisy_dir is None else {NOISY: noisy_dir}) | dict(systems)
    if not folders or originals is None:
        raise UserError("nothing to score: name at least one folder of enhanced or of noisy files, and clean ones")
    names = (*(() if clean_dir is None else metrics.STANDARD), *asked)
    for metric in (metrics.METRICS[name] for name in asked):
        lacking = "clean" if clean_dir is None else "noisy" if noisy_dir is None else ""
        if lacking in metric.needs or (lacking and "noise" in metric.needs):
            raise UserError(f"--metrics {metric.asked_as}: needs the {lacking} files; name them with --{lacking}_dir")
    for folder in systems.values():
        _check_settings_hold(folder)
    original = listing.by_name(originals, "clean speech" if clean_dir else "noisy speech")
    matched = {name: match(originals, folder, name) for name, folder in folders.items()}
    clean, noisy = {} if clean_dir is None else original, matched.get(NOISY, {})
    tasks = [
        _Task(name, key, clean.get(key), files[key], noisy.get(key), names)
        for name, files in matched.items()
        for key in original
    ]
    rates = check_headers([(original[task.file], task.estimate) for task in tasks]) - {metrics.SAMPLE_RATE}
    if rates:
        listed = ", ".join(map(str, sorted(rates)))
        print(f"Files at {listed} Hz are resampled to {metrics.SAMPLE_RATE} Hz before scoring.")
    scored = in_processes(_score, tasks, jobs, "scoring", partial(_make_crashed_row, names))
    rows = [
        {"system": task.system, "file": task.file, **row, "seconds": round(audio.info(task.estimate).seconds, 4)}
        for task, row in zip(tasks, scored, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=columns(names)[:-1])
    return frame.assign(source=find_sources(originals, frame["file"]))


def measure_removed(noisy_dir: Path, systems: Mapping[str, Path]) -> pd.DataFrame:
    """How much each system takes away: the energy of noisy − enhanced in percent of that of noisy, by file.

    Returns the columns system, file, seconds, `REMOVED`. It is no measure of quality: speech that is gone counts too.
    """
    versions = {name: match(noisy_dir, folder, name) for name, folder in systems.items()}
    noisy = listing.by_name(noisy_dir, "noisy speech")
    check_headers([(noisy[key], found[key]) for found in versions.values() for key in noisy])
    rows = []
    for key, path in track(noisy.items(), len(noisy), "energies", "file"):
        before, seconds = audio.read(path, None), round(audio.info(path).seconds, 4)
        for name, found in versions.items():
            removed = before - audio.read(found[key], None)
            share = float(np.square(removed).sum()) / max(float(np.square(before).sum()), 1e-20)
            rows.append({"system": name, "file": key, "seconds": seconds, REMOVED: 100 * share})
    return pd.DataFrame(rows)


def match(clean_dir: Path, folder: Path, what: str) -> dict[str, Path]:
    """The file of `folder` for every clean (or noisy) file, keyed by that file's path below `clean_dir` without suffix.

    A flat copy of a nested set matches by name.
    """
    clean = listing.by_name(clean_dir, "clean speech")
    files = {path.relative_to(folder).as_posix(): path for path in listing.find(folder, what)}
    found = listing.match_names(clean, files)
    missing = [key for key in clean if key not in found]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of the {len(clean)} files in {clean_dir} have no counterpart here, the first is"
            f" {missing[0]}; name folders of one set"
        )
    used = set(found.values())
    extra = [path for path in files.values() if path not in used]
    if extra:
        raise UserError(
            f"{folder}: {len(extra)} files have no counterpart in {clean_dir}, the first is {extra[0].name};"
            " remove them or name folders of one set"
        )
    return found


def find_sources(folder: Path, names: pd.Series) -> pd.Series:
    """The noise recording of each of `names`, by the manifest in or above `folder`; a file without one is its own."""
    rows = _read_manifest(folder, names)
    return names.map(lambda name: rows[name].get("source") or rows[name].get("noise") or name)


def find_facts(folder: Path, names: pd.Series) -> dict[str, dict[str, Any]]:
    """The kind of noise ("" where it is unknown) and the SNR in dB (None) of each of `names`, by the same manifest."""
    facts = {}
    for name, row in _read_manifest(folder, names).items():
        snr = pd.to_numeric(row.get("snr_db", ""), errors="coerce")
        facts[name] = {"kind": row.get("kind") or "", "snr": None if pd.isna(snr) else float(snr)}
    return facts


def _read_manifest(folder: Path, names: pd.Series) -> dict[str, dict[str, str]]:
    """The row of each of `names` in the manifest in or above `folder`; an empty one where there is none."""
    beside = next((one for one in (folder, folder.parent) if (one / build.MANIFEST).is_file()), None)
    return dict(zip(names.unique(), build.find_rows(beside, names.unique()), strict=True))


def planned_pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """What is compared: every system with the noisy files, later systems with the first one."""
    names = list(frame["system"].unique())
    return [(b, a) for i, a in enumerate(names[:2]) for b in names[i + 1 :] if i == 0 or names[0] == NOISY]


def summary(frame: pd.DataFrame, is_difference: bool = False) -> pd.DataFrame:
    """Mean and 95 % interval per system and metric (`statistics.hierarchical`, over the sources of the files).

    Returns the columns system, metric, mean, low, high, n_scored, n_unscored, n_sources: files without a value are left
    out of the mean and counted. A file is its own source where `frame` has no column source.
    """
    rows = []
    for system in frame["system"].unique():
        own = frame[frame["system"] == system]
        source = own["source"] if "source" in own else own["file"]
        for metric in metrics.names_in(own.columns):
            table = own[["file"]].assign(source=source, seed=None, value=own[metric].astype(float))
            scored = table[table["value"].notna()]
            found = statistics.hierarchical(scored, metrics.METRICS[metric].is_binary and not is_difference)
            counts = {"n_scored": len(scored), "n_unscored": len(table) - len(scored), "n_sources": found.n_sources}
            ends = {"mean": found.mean, "low": found.low, "high": found.high}
            rows.append({"system": system, "metric": metric, **ends, **counts})
    return pd.DataFrame(rows)


def paired(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Mean of the differences a - b over files, which removes the spread between files, with 95 % intervals.

    Returns the columns of `summary`, with "a - b" as the system; only files scored in both
    systems count as scored.
    """
    for name in (a, b):
        if name not in set(frame["system"]):
            raise UserError(f'no system is named "{name}"; there are {", ".join(frame["system"].unique())}')
    first, second = (frame[frame["system"] == name].set_index("file") for name in (a, b))
    shown = metrics.names_in(frame.columns)
    differences = (first[shown].astype(float) - second[shown].astype(float)).reindex(first.index)
    return summary(first.assign(**differences, system=f"{a} - {b}").reset_index(), is_difference=True)


def run_settings(folder: Path) -> dict[str, Setting]:
    """The settings that the enhancement command left in `folder`/run.json; empty without such a file."""
    settings = {key: value for key, value in read_run(folder).items() if key not in PER_FILE}
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in settings.items()}


def read_run(folder: Path) -> dict[str, Any]:
    """`folder`/run.json as the enhancement command left it; empty without such a file."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON; remove it or enhance the files again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold one JSON object; remove it or enhance the files again")
    return content


def with_settings(frame: pd.DataFrame, systems: Mapping[str, Path]) -> pd.DataFrame:
    """`frame` with one column per setting of each system's run.json (prefixed with run_ where the name is taken).

    The column disagreement holds what a run.json says of single files, where one does.
    """
    frame, disagreement, scored = frame.copy(), pd.Series(np.nan, index=frame.index), set(frame.columns)
    for system, folder in systems.items():
        own = frame["system"] == system
        for key, value in run_settings(folder).items():
            column = f"run_{key}" if key in scored else key
            if column not in frame:
                frame[column] = pd.Series([None] * len(frame), dtype=object, index=frame.index)
            frame.loc[own, column] = value
        found = listing.match_names(frame.loc[own, "file"], read_run(folder).get("disagreement", {}))
        disagreement[own] = frame.loc[own, "file"].map(found)
    return frame if disagreement.isna().all() else frame.assign(disagreement=disagreement)


def _check_settings_hold(folder: Path) -> None:
    """Raise `UserError` where files of `folder` were not made under the settings in its run.json."""
    made = read_run(folder).get("files")
    if isinstance(made, dict):
        names = [path.relative_to(folder).as_posix() for path in listing.find(folder, "enhanced speech")]
        known = {listing.composed(name) for name in made}
        others = [name for name in names if listing.composed(name) not in known]
        if others:
            raise UserError(
                f"{folder}: {len(others)} of {len(names)} files were not made under the settings in its run.json, the "
                f"first is {others[0]}; enhance the set to its end, or remove these files"
            )


def check_headers(pairs: Sequence[tuple[Path, Path]]) -> set[int]:
    """Raise `UserError` where an estimate has another rate or length than its original. Returns the rates.

    pairs: of an original and its estimate.
    """
    known = {header.path: header for header in listing.read_headers({path for pair in pairs for path in pair})}
    for original, estimate in pairs:
        wanted, found = known[original], known[estimate]
        if found.sample_rate != wanted.sample_rate:
            raise UserError(
                f"{estimate}: has {found.sample_rate} Hz, but {original} has {wanted.sample_rate} Hz; bring both to "
                "one rate"
            )
        if found.num_frames != wanted.num_frames:
            raise UserError(
                f"{estimate}: has {found.num_frames} samples, but {original} has {wanted.num_frames}; an enhanced file "
                "must be as long as its original"
            )
    return {known[original].sample_rate for original, _ in pairs}


def _score(task: _Task) -> Row:
    """The scores of one task; runs in a worker process."""
    paths = (task.clean, task.estimate, task.noisy)
    clean, estimate, noisy = (None if path is None else audio.read(path, metrics.SAMPLE_RATE) for path in paths)
    assert estimate is not None
    try:
        return metrics.score(clean, estimate, metrics.SAMPLE_RATE, noisy, task.names)
    except ValueError as error:
        raise UserError(f"{task.estimate}: cannot be scored against {task.clean} ({error})") from error


@contextmanager
def scorer(processes: int, asked: Sequence[str] = ()) -> Iterator[Score]:
    """A function from waveforms to their scores by the main metrics and those `asked` for.

    It works in processes that end with the block.
    """
    names = (*metrics.MAIN, *asked)
    score_one, crashed = partial(_score_signals, names), partial(_make_crashed_row, names)
    with Workers(processes) as workers:
        yield lambda *signals: list(workers.map(score_one, list(zip(*signals, strict=True)), crashed))


def _score_signals(names: Sequence[str], signals: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Row:
    """Runs in a worker process."""
    clean, estimate, noisy = signals
    return metrics.score(clean, estimate, metrics.SAMPLE_RATE, noisy, names)


def _make_crashed_row(names: Sequence[str], _: object) -> Row:
    """The scores of a file that ends the process which scores it."""
    return metrics.unscored("the scoring process died with this file, maybe for lack of memory", names)
