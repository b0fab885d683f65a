"""Tables from folders of audio: one row per system and file, then means, paired differences and their intervals."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.common.machine import cores
from sgmse.data import audio
from sgmse.evaluation import metrics

NOISY = "noisy"
COLUMNS = ("system", "file", *metrics.METRICS, "reason", "seconds")

TITLES = {"pesq": "PESQ", "estoi": "ESTOI", "si_sdr": "SI-SDR dB", "si_sir": "SI-SIR dB", "si_sar": "SI-SAR dB"}
_DECIMALS = {"pesq": 3, "estoi": 3, "si_sdr": 2, "si_sir": 2, "si_sar": 2}
MAIN = ("pesq", "estoi", "si_sdr")
_DRAWS = 4000
_SEED = 0

Setting = str | int | float | bool | None
_PER_FILE = ("files", "references", "disagreement")  # in run.json: what concerns single files, not the run
Task = TypeVar("Task")
Row = TypeVar("Row")


@dataclass(frozen=True)
class TableText:
    """A table ready to print: header, rows of cells, and remarks about files without a score."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str]


@dataclass(frozen=True)
class _Task:
    """One file of one system, to be scored in a worker process."""

    system: str
    file: str
    clean: Path
    estimate: Path
    noisy: Path | None


def evaluate(
    clean_dir: Path, systems: Mapping[str, Path], noisy_dir: Path | None = None, jobs: int | None = None
) -> pd.DataFrame:
    """Score every file of every system. Returns the columns `COLUMNS`; the system "noisy" comes first.

    Files are matched by their path below the folder without suffix, or else by their name alone. The noise, needed
    for SI-SIR and SI-SAR, is noisy minus clean. `jobs` is the number of processes, by default one per core.
    """
    if NOISY in systems:
        raise UserError(f'a system cannot be named "{NOISY}", the name of the unprocessed files; rename its folder')
    folders = ({} if noisy_dir is None else {NOISY: noisy_dir}) | dict(systems)
    if not folders:
        raise UserError("nothing to score: name at least one folder of enhanced or of noisy files")
    clean = audio.by_name(clean_dir, "clean speech")
    matched = {name: match(clean_dir, folder, name) for name, folder in folders.items()}
    noisy = matched.get(NOISY, {})
    tasks = [_Task(name, key, clean[key], matched[name][key], noisy.get(key)) for name in matched for key in clean]
    _check_headers(tasks)
    return pd.DataFrame(list(in_processes(_score, tasks, jobs, "scoring")), columns=list(COLUMNS))


def match(clean_dir: Path, folder: Path, what: str) -> dict[str, Path]:
    """The file of `folder` for every clean file, keyed by the clean file's path below `clean_dir` without suffix."""
    clean, found = audio.by_name(clean_dir, "clean speech"), audio.by_name(folder, what)
    if clean.keys() != found.keys():  # a flat copy of a nested set still matches by name
        by_name = {Path(key).name: key for key in clean}
        if len(by_name) == len(clean) and len({Path(key).name for key in found}) == len(found):
            found = {by_name.get(Path(key).name, key): path for key, path in found.items()}
    missing, extra = sorted(clean.keys() - found.keys()), sorted(found.keys() - clean.keys())
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of the {len(clean)} files in {clean_dir} have no counterpart here, the first is"
            f" {missing[0]}; name the clean files of the set that these files come from"
        )
    if extra:
        raise UserError(
            f"{folder}: {len(extra)} files have no counterpart in {clean_dir}, the first is {extra[0]};"
            " remove them or name the clean files of the set that they come from"
        )
    return {key: found[key] for key in clean}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over files, per system and metric.

    Returns the columns system, metric, mean, low, high, n_scored, n_unscored: files without a value are left out of
    the mean and counted.
    """
    rows = []
    for system in frame["system"].unique():
        table = frame[frame["system"] == system]
        for metric in metrics.METRICS:
            rows.append({"system": system, "metric": metric, **_mean_and_interval(table[metric].to_numpy(float))})
    return pd.DataFrame(rows)


def paired(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Mean of the differences a - b over files, which removes the spread between files, with 95 % intervals.

    Returns the columns system ("a - b"), metric, mean, low, high, n_scored, n_unscored; only files scored in both
    systems count as scored.
    """
    tables = []
    for name in (a, b):
        if name not in set(frame["system"]):
            raise UserError(f'no system is named "{name}"; there are {", ".join(frame["system"].unique())}')
        tables.append(frame[frame["system"] == name].set_index("file"))
    rows = []
    for metric in metrics.METRICS:
        difference = (tables[0][metric] - tables[1][metric]).reindex(tables[0].index)
        rows.append({"system": f"{a} - {b}", "metric": metric, **_mean_and_interval(difference.to_numpy(float))})
    return pd.DataFrame(rows)


def print_table(table: pd.DataFrame) -> None:
    """Print the result of `summary` or `paired`: a row per system, and below it what could not be scored."""
    text = table_text(table)
    widths = [max(len(row[column]) for row in (text.header, *text.rows)) for column in range(len(text.header))]
    for row in (text.header, *text.rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in text.notes:
        print(note)


def table_text(table: pd.DataFrame) -> TableText:
    """The result of `summary` or `paired` as text, each cell as `mean [low, high]`; metrics nobody has are left out."""
    shown = [m for m in TITLES if m in MAIN or table.loc[table["metric"] == m, "n_scored"].any()]
    rows, notes = [], []
    for system in table["system"].unique():
        by_metric = table[table["system"] == system].set_index("metric")
        rows.append([system, *(_cell(by_metric.loc[m], m) for m in shown), str(by_metric["n_scored"].max())])
        for metric in shown:
            kept, lost = by_metric.loc[metric, ["n_scored", "n_unscored"]].astype(int)
            if lost and (kept or metric in MAIN):
                lost_files = f"{lost} could not be scored, see the column reason"
                notes.append(f"{system}: {TITLES[metric]} is the mean of {kept} files; {lost_files}")
    return TableText(["system", *(TITLES[m] for m in shown), "files"], rows, notes)


def run_settings(folder: Path) -> dict[str, Setting]:
    """The settings that the enhancement command left in `folder`/run.json; empty without such a file."""
    settings = {key: value for key, value in read_run(folder).items() if key not in _PER_FILE}
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in settings.items()}


def read_run(folder: Path) -> dict[str, Any]:
    """`folder`/run.json as the enhancement command left it; empty without such a file."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not valid JSON; remove it or enhance the files again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold one JSON object; remove it or enhance the files again")
    return content


def with_settings(frame: pd.DataFrame, systems: Mapping[str, Path]) -> pd.DataFrame:
    """`frame` with one column per setting of each system's run.json (prefixed with run_ where the name is taken)."""
    frame = frame.copy()
    for system, folder in systems.items():
        for key, value in run_settings(folder).items():
            column = f"run_{key}" if key in COLUMNS else key
            if column not in frame:
                frame[column] = pd.Series([None] * len(frame), dtype=object, index=frame.index)
            frame.loc[frame["system"] == system, column] = value
    return frame


def _check_headers(tasks: list[_Task]) -> None:
    """Compare rates and lengths before the long work, and say when files are resampled for scoring."""
    clean = {task.clean: audio.info(task.clean) for task in tasks}
    for task in tasks:
        reference, estimate = clean[task.clean], audio.info(task.estimate)
        if estimate.sample_rate != reference.sample_rate:
            raise UserError(
                f"{task.estimate}: has {estimate.sample_rate} Hz, but {task.clean} has {reference.sample_rate} Hz;"
                " bring both to one rate"
            )
        if estimate.num_frames != reference.num_frames:
            raise UserError(
                f"{task.estimate}: has {estimate.num_frames} samples, but {task.clean} has {reference.num_frames};"
                " an enhanced file must be as long as its clean one"
            )
    rates = sorted({header.sample_rate for header in clean.values()} - {metrics.SAMPLE_RATE})
    if rates:
        print(f"Files at {', '.join(map(str, rates))} Hz are resampled to {metrics.SAMPLE_RATE} Hz before scoring.")


def in_processes(function: Callable[[Task], Row], tasks: Sequence[Task], jobs: int | None, what: str) -> Iterator[Row]:
    """`function` of each task, in the order of `tasks`, computed by `jobs` processes (None: one per core)."""
    jobs = min(jobs or cores(), len(tasks))
    progress = partial(tqdm, total=len(tasks), desc=what, unit="file", disable=None)
    if jobs <= 1:
        yield from progress(map(function, tasks))
        return
    # Forking a process that holds threads or a CUDA context may hang, so workers start afresh.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _one_thread_each():
            rows = pool.map(function, tasks)
        try:
            yield from progress(rows)
        except BrokenProcessPool as error:
            raise UserError("a scoring process died, maybe for lack of memory; try again with --jobs 1") from error


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside compute with one thread: together they fill the cores already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _score(task: _Task) -> dict[str, object]:
    """The row of one task; runs in a worker process."""
    clean, estimate = audio.read(task.clean, metrics.SAMPLE_RATE), audio.read(task.estimate, metrics.SAMPLE_RATE)
    try:
        noise = None
        if task.noisy is not None:  # float64, because noisy minus noise must give back clean exactly
            noise = audio.read(task.noisy, metrics.SAMPLE_RATE).astype(np.float64) - clean
        scores = metrics.score(clean, estimate, metrics.SAMPLE_RATE, noise)
    except ValueError as error:
        raise UserError(f"{task.estimate}: cannot be scored against {task.clean} ({error})") from error
    return {
        "system": task.system,
        "file": task.file,
        **asdict(scores),
        "seconds": round(len(clean) / metrics.SAMPLE_RATE, 4),
    }


def _mean_and_interval(values: np.ndarray) -> dict[str, float]:
    """Mean of `values` [F] and its 95 % interval: percentiles of the means of files drawn with replacement."""
    scored = values[~np.isnan(values)]
    counts = {"n_scored": len(scored), "n_unscored": len(values) - len(scored)}
    if not len(scored):
        return {"mean": np.nan, "low": np.nan, "high": np.nan, **counts}
    draws = np.random.default_rng(_SEED).integers(len(scored), size=(_DRAWS, len(scored)))
    low, high = np.percentile(scored[draws].mean(axis=1), [2.5, 97.5])
    return {"mean": float(scored.mean()), "low": float(low), "high": float(high), **counts}


def _cell(row: pd.Series, metric: str) -> str:
    """`mean [low, high]` of one metric, or a dash where no file was scored."""
    if not row["n_scored"]:
        return "–"
    decimals = _DECIMALS[metric]
    return f"{row['mean']:.{decimals}f} [{row['low']:.{decimals}f}, {row['high']:.{decimals}f}]"
