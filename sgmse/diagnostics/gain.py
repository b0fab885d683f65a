"""What the reference brings to each file in PESQ: out of a table of scores, or from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.diagnostics.items import open_references
from sgmse.enhancement.engine import Engine, enhance_and_score
from sgmse.enhancement.settings import Setting
from sgmse.evaluation.results import Results
from sgmse.evaluation.scores import scorer
from sgmse.model.enhancer import Enhancer

_SYSTEM = ("experiment", "system")  # columns that name systems, the most telling first
_USUAL = (("matched", "baseline"), ("matched", "null"))


def read_gains(path: Path, pair: Sequence[str], sets: Sequence[str]) -> tuple[pd.Series, str]:
    """Gains by (set, stem of the file) out of a CSV table with the columns file, pesq and one that names systems.

    Args:
        pair: the two systems whose difference is the gain; empty: matched − baseline, else matched − null.
        sets: a table without a column `set` is of the only one.

    Returns:
        The gains, means over seeds, and what they are.
    """
    table = _read_scores(path)
    column = next((name for name in _SYSTEM if name in table), "system")
    missing = [name for name in ("file", "pesq", column) if name not in table]
    if missing:
        raise UserError(
            f"{path}: has no column {missing[0]}; name a table of scores, as scripts/reference_use.py writes"
        )
    if "set" not in table:
        if len(sets) > 1:
            raise UserError(f"{path}: has no column set that tells {', '.join(sets)} apart; give one --test_dir")
        table["set"] = sets[0]
    there = set(table[column])
    chosen = tuple(pair) or next((two for two in _USUAL if there.issuperset(two)), ())
    if len(set(chosen)) != 2 or len(chosen) != 2 or not there.issuperset(chosen):
        raise UserError(f"{path}: name two of its systems with --gain; there are {', '.join(sorted(there))}")
    table["stem"] = [_stem(name) for name in table["file"]]
    first, second = (table[table[column] == name].groupby(["set", "stem"])["pesq"].mean() for name in chosen)
    return (first - second).dropna(), f"{chosen[0]} − {chosen[1]}"


def _read_scores(path: Path) -> pd.DataFrame:
    try:
        # else a system that is called null would be none, and the file 007 would be 7
        table = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(("set", "file", *_SYSTEM), str))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check --scores") from None
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read as a CSV table; check --scores") from None
    if "pesq" in table:
        table["pesq"] = pd.to_numeric(table["pesq"], errors="coerce")  # empty where it could not be scored
    return table


def measure_gains(
    model: Enhancer,
    baseline: Enhancer,
    folders: Sequence[Path],
    out: Path,
    max_files: int | None,
    batch_size: int,
    jobs: int,
) -> pd.Series:
    """PESQ of the model with the references of test sets minus that of the baseline, by (set, stem).

    Both take one draw of their own sampler. Scores are kept below `out`; what is there is not done again.
    """
    gains: dict[Any, float] = {}
    with scorer(jobs) as score:
        for folder in folders:
            test_set = open_references(folder, model, max_files)
            shared = {"test_set": test_set.fingerprint(), "batch_size": batch_size, "device": str(model.device)}
            results = Results(out / "scores" / folder.name, shared)
            ours, theirs = Setting(model.sampler), Setting(baseline.sampler, protocol="none")
            enhance_and_score(Engine(model, batch_size), test_set, [ours], results, score)
            enhance_and_score(Engine(baseline, batch_size), test_set, [theirs], results, score)
            results.write_csv(results.folder / "scores.csv")
            pesq = {(row["checkpoint"], row["setting"], row["file"]): row["pesq"] for row in results.rows()}
            for item in test_set.items:
                with_reference = pesq[model.checkpoint_sha256, ours.key, item.name]
                without = pesq[baseline.checkpoint_sha256, theirs.key, item.name]
                gains[folder.name, _stem(item.name)] = with_reference - without
    return pd.Series(gains, dtype=float).dropna()


def match_gains(gains: pd.Series, table: pd.DataFrame) -> pd.Series:
    """The gain of each row of a table with `set` and `file`; NaN where there is none."""
    known = gains.to_dict()
    found = [known.get((row.set, _stem(row.file)), float("nan")) for row in table.itertuples()]
    return pd.Series(found, index=table.index, dtype=float)


def _stem(name: object) -> str:
    return PurePosixPath(str(name)).stem
