"""What the reference brings to each file in PESQ: out of a table of scores, or from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.diagnostics.items import open_references
from sgmse.enhancement.settings import cells
from sgmse.enhancement.sweep_groups import grouped
from sgmse.enhancement.sweep_run import Sweep
from sgmse.enhancement.sweep_scoring import Score
from sgmse.enhancement.test_set import find_files
from sgmse.evaluation.kept import Kept
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

_SYSTEM = ("experiment", "system")  # columns that name systems, the most telling first
_USUAL = (("matched", "baseline"), ("matched", "null"))


def of_scores(path: Path, pair: Sequence[str] | None, sets: Sequence[str]) -> tuple[pd.Series, str]:
    """Gains by (set, stem of the file) out of a CSV table with the columns file, pesq and one that names systems.

    pair: the two systems whose difference is the gain; None: matched − baseline, else matched − null. Seeds are
    averaged. A table without a column `set` is of the only one of `sets`. Returns the gains and what they are.
    """
    table = _read(path)
    column = next((name for name in _SYSTEM if name in table), None)
    missing = [name for name in ("file", "pesq") if name not in table] + (["system"] if column is None else [])
    if missing:
        raise UserError(
            f"{path}: has no column {missing[0]}; name a table of scores, as scripts/reference_use.py writes"
        )
    assert column is not None
    if "set" not in table:
        if len(sets) > 1:
            raise UserError(f"{path}: has no column set that tells {', '.join(sets)} apart; give one --test_dir")
        table["set"] = sets[0]
    there = set(table[column])
    chosen = tuple(pair) if pair is not None else next((two for two in _USUAL if there.issuperset(two)), None)
    if chosen is None or len(set(chosen)) < 2 or not there.issuperset(chosen):
        raise UserError(f"{path}: name two of its systems with --gain; there are {', '.join(sorted(there))}")
    table["stem"] = [_stem(name) for name in table["file"]]
    first, second = (table[table[column] == name].groupby(["set", "stem"])["pesq"].mean() for name in chosen)
    return (first - second).dropna(), f"{chosen[0]} − {chosen[1]}"


def of_baseline(
    model: Enhancer,
    baseline: Enhancer,
    folder: Path,
    out_dir: Path,
    max_files: int | None,
    batch_size: int,
    score: Score,
) -> pd.Series:
    """PESQ of the model with the set's references minus that of the baseline, by (set, stem).

    Both take one draw of their own sampler. Scores are kept below `out_dir`; what is there is not done again.
    """
    found, told = [], open_references(folder, model, max_files).told()
    for role, other in (("model", model), ("baseline", baseline)):
        kept = Kept(out_dir / folder.name / role, _shared(other, folder, told, batch_size))
        planned = cells(other, ["auto"], [other.sampler.N], [1.0], ["none"])
        if not all(kept.has(cell.key) for cell in planned):
            config = EnhanceConfig(test_dir=str(folder), reference="disjoint")
            files = find_files(config, out_dir, other, max_files)
            groups = grouped(other, files, batch_size)
            Sweep(other, groups, other.t_eps, 0, "32").run(planned, kept, score)
        rows = kept.frame[kept.frame["nfe"] > 0]
        found.append(pd.Series(rows["pesq"].to_numpy(float), [(folder.name, _stem(name)) for name in rows["file"]]))
    return (found[0] - found[1]).dropna()


def of_files(gains: pd.Series, table: pd.DataFrame) -> list[float]:
    """The gain of each row of a table with `set` and `file`; NaN where there is none."""
    known = gains.to_dict()
    return [known.get((row.set, _stem(row.file)), float("nan")) for row in table.itertuples()]


def _stem(name: object) -> str:
    return PurePosixPath(str(name)).stem


def _shared(other: Enhancer, folder: Path, told: dict[str, str], batch_size: int) -> dict[str, object]:
    """What the kept scores depend on; `told`: of the files of the set, those of its references among them."""
    return {
        "checkpoint_sha256": other.checkpoint_sha256,
        "test_dir": str(folder.resolve()),
        "references": told,
        "batch_size": batch_size,
    }


def _read(path: Path) -> pd.DataFrame:
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
