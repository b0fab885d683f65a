"""What paired differences of test files show: intervals over seeds and sources, Holm's correction, and power.

A test set holds files, files share noise recordings (sources), and each system was trained with some seeds. Files of
one source are alike and so are files scored with one training, so neither counts as independent evidence. Seeds and
sources are crossed: every training is scored on the same files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import nctdtrinc, stdtrit  # noncentrality and quantile of Student's t

LEVEL, POWER = 0.95, 0.8  # of intervals, and of the smallest differences that they show
_SLICES = ("kind", "snr_db")  # what `paired` keeps of a file, so that its table can be split


@dataclass(frozen=True)
class Difference:
    """The mean over files of a paired difference, its interval, and the p value of a mean of 0.

    With one seed it speaks of these trainings alone, with one source of this noise alone: what is not repeated adds
    nothing to the interval. All numbers are NaN where nothing is repeated at all.
    """

    mean: float
    low: float
    high: float
    p: float
    n_files: int
    n_sources: int
    n_seeds: int

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a paired difference: of seeds, of sources, and of the files of one source."""

    seed: float
    source: float
    file: float


def paired(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> pd.DataFrame:
    """a - b of every file of one test set that both could score, with the same seed where both have seeds.

    Args:
        a, b: rows of one system each, with the columns file, seed, `metric`, and of `a` source (else each file is its
            own), kind and snr_db where known. Seeds of all rows may be missing (the noisy files): these go with each.

    Returns:
        The columns value, seed, source, file, and kind and snr_db where known.

    Raises:
        ValueError: a system scores a file twice with one seed.
    """
    keys = ["file", "seed"] if a["seed"].notna().any() and b["seed"].notna().any() else ["file"]
    for rows in (a, b):
        if rows.duplicated(["file", "seed"]).any():
            raise ValueError("a system has two scores for one file and seed")
    kept = [name for name in ("source", *_SLICES) if name in a]
    left = a[["file", "seed", *kept, metric]].rename(columns={metric: "a"})
    right = b[["file", "seed", metric]].rename(columns={metric: "b"})
    if keys == ["file"]:  # the seed is that of the system that has one
        surplus = left if left["seed"].isna().all() else right
        surplus.drop(columns="seed", inplace=True)
    table = left.merge(right, on=keys)
    table["value"] = table["a"].to_numpy(float) - table["b"].to_numpy(float)
    own = table["source"] if "source" in table else pd.Series(None, index=table.index, dtype=object)
    table["source"] = own.where(own.notna(), table["file"])
    columns = ["value", "seed", "source", "file", *(name for name in _SLICES if name in table)]
    return table.loc[table["value"].notna(), columns].reset_index(drop=True)


def hierarchical(table: pd.DataFrame, is_proportion: bool = False) -> Difference:
    """The mean of `table`["value"] over files, and its 95 % interval. Columns: value, seed, source, file.

    is_proportion: values are scores that are 0 or 1, never differences; for their interval see `_proportion_interval`,
    they have no p.

    - Seeds and sources are crossed: the variance of the mean is that of the seeds' means plus that of the sources'
      means (Owen 2007, The pigeonhole bootstrap, Ann. Appl. Stat. 1:386, gives the same by drawing both). A seed's or
      source's part is its influence on the mean, and unequal ones count for fewer (`_variance`).
    - Files go with their source as they are; only those of a single source count for themselves. A level with one
      member adds nothing.
    - The interval is mean ± t' · standard error. t' is the mean of Student's t quantiles of both levels, weighted with
      their variances (Cochran 1964, Biometrics 20:191, for two variances with few degrees of freedom); p belongs to
      the same t'.
    - Differences that are all alike, but not 0, have no interval: three of three files that are right where a baseline
      is at 0.5 tell nothing of how others would differ.
    - The variance of the seeds' means holds chance besides: seeds × sources, known from what the two do not explain.
      Of it the share 1 - 3/(2 seeds) is subtracted. The whole would be right on average, but 12.7 standard errors (two
      seeds) of too little leave 88 % where 95 % is said; without any, two seeds that are alike reach 99 %.

    In simulations (10 to 50 sources, seeds from alike to the largest share, with and without their interaction) the
    95 % intervals held the truth in 95 % with one seed, 92 to 98 % with two (98.4 % at most: 10 sources, seeds nearly
    alike), 94 to 98 % with three and 95 to 97 % with five; `tests/test_statistics.py` prints a table.
    """
    n_files, n_sources, n_seeds = (table[name].nunique(dropna=False) for name in ("file", "source", "seed"))
    counts = {"n_files": n_files, "n_sources": n_sources, "n_seeds": n_seeds}
    if table.empty:
        return Difference(math.nan, math.nan, math.nan, math.nan, **counts)
    sums, sizes = _sum_by_seed_and_unit(table)
    mean = float(sums.sum() / sizes.sum())
    levels = _variances(sums, sizes)
    if not levels:
        return Difference(mean, math.nan, math.nan, math.nan, **counts)
    half = _half_width(1 - LEVEL, levels)
    if is_proportion:
        return Difference(mean, *_proportion_interval(mean, levels), math.nan, **counts)
    if half >= 1e-12:
        return Difference(mean, mean - half, mean + half, _p_value(mean, levels), **counts)
    if abs(mean) < 1e-12 or table["value"].nunique() > 1:
        return Difference(mean, mean, mean, float(abs(mean) < 1e-12), **counts)
    return Difference(mean, math.nan, math.nan, math.nan, **counts)  # where nothing varies, others may differ by any


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being so many (Holm 1979, Scand. J. Statist. 6:65); NaN ones count for nothing."""
    values = np.asarray(p, dtype=float)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted.tolist()


def spread(table: pd.DataFrame) -> Spread:
    """Estimates from the differences that `paired` returns, by moments; 0 where a level has one member only.

    That of files is of their mean over seeds. Where each file has a source of its own, the two cannot be told apart
    and all counts as source.
    """
    by_seed = table.pivot_table(index=["source", "file"], columns="seed", values="value")
    files = table.groupby(["source", "file"])["value"].mean()
    sources = files.groupby("source")
    file = float(((files - sources.transform("mean")) ** 2).sum() / max(len(files) - sources.ngroups, 1))
    source = sources.mean().var() - (file / sources.size()).mean() if sources.ngroups > 1 else 0.0
    values, seed = by_seed.dropna().to_numpy(), 0.0
    if values.shape[0] > 1 and values.shape[1] > 1:  # Var(seed means) = σ²_seed + σ²_residual / files
        centred = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        residual = (centred**2).sum() / ((values.shape[0] - 1) * (values.shape[1] - 1))
        seed = values.mean(axis=0).var(ddof=1) - residual / len(values)
    return Spread(*(math.sqrt(max(0.0, float(variance))) for variance in (seed, source, file)))


def smallest_difference(spread: Spread, n_files: int, n_sources: int, n_seeds: int) -> float:
    """The smallest true mean difference whose 95 % interval excludes 0 with a probability of 80 %.

    The standard error √(σ²_seed/seeds + σ²_source/sources + σ²_file/files) times the noncentrality by which Student's t
    is beyond the t' of `hierarchical` in 80 % (Cohen 1988, Statistical Power Analysis), with the degrees of freedom of
    Satterthwaite 1946. As there, one seed or one source leaves its spread out.
    """
    seeds = spread.seed**2 / n_seeds if n_seeds > 1 else 0.0
    units = spread.file**2 / n_files + (spread.source**2 / n_sources if n_sources > 1 else 0.0)
    levels = [(v, n - 1) for v, n in ((seeds, n_seeds), (units, n_sources if n_sources > 1 else n_files)) if n > 1]
    return _smallest_shown(levels)


def detectable(table: pd.DataFrame) -> float:
    """The smallest true mean that data as those of `table`, see `hierarchical`, show with a probability of 80 %."""
    return math.nan if table["value"].nunique() < 2 else _smallest_shown(_variances(*_sum_by_seed_and_unit(table)))


def _smallest_shown(levels: Sequence[tuple[float, float]]) -> float:
    """What `smallest_difference` says, by variances and their degrees of freedom; NaN where nothing is repeated."""
    error = math.sqrt(sum(variance for variance, _ in levels))
    if error == 0:
        return 0.0 if levels else math.nan
    freedom = error**4 / sum(variance**2 / free for variance, free in levels)
    return error * float(nctdtrinc(freedom, 1 - POWER, _half_width(1 - LEVEL, levels) / error))


def _sum_by_seed_and_unit(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the values and numbers of files [S, U] by seed and by source, or by file where there is one source."""
    seeds, names = pd.factorize(table["seed"], use_na_sentinel=False)
    drawn = "source" if table["source"].nunique(dropna=False) > 1 else "file"
    units, unit_names = pd.factorize(table[drawn], use_na_sentinel=False)
    cells, shape = seeds * len(unit_names) + units, (len(names), len(unit_names))
    size = shape[0] * shape[1]
    sums = np.bincount(cells, weights=table["value"].to_numpy(float), minlength=size)
    return sums.reshape(shape), np.bincount(cells, minlength=size).reshape(shape).astype(float)


def _variances(sums: np.ndarray, sizes: np.ndarray) -> list[tuple[float, float]]:
    """What seeds and units add to the variance of the mean, each with its degrees of freedom; levels of one: nothing.

    sums, sizes: [S, U], of `_sum_by_seed_and_unit`.
    """
    influence = (sums - sums.sum() / sizes.sum() * sizes) / sizes.sum()  # of each cell on the ratio of sums
    seeds, units = influence.sum(axis=1), influence.sum(axis=0)
    n_seeds, n_units = influence.shape
    found = []
    if n_seeds > 1:
        variance, freedom = _variance(seeds, sizes.sum(axis=1))
        if n_units > 1:
            rest = influence - seeds[:, None] / n_units - units / n_seeds
            chance = float((rest**2).sum()) * n_seeds * n_units / ((n_seeds - 1) * (n_units - 1))
            variance = max(0.0, variance - (1 - 1.5 / n_seeds) * chance)
        found.append((variance, freedom))
    if n_units > 1:
        found.append(_variance(units, sizes.sum(axis=0)))
    return found


def _variance(influence: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Of a mean, by the influence of each part [n] on it and the parts' sizes; and its degrees of freedom.

    A part with a share s of the files draws the mean to itself, so that its influence shows 1 - s of its variance
    (exactly where that falls as 1 / its size). The freedom is that of as many equal parts as have the same sum of
    squared shares: n - 1 where all are equal. With three sources of 100 files and a hundred of 3 files the 95 %
    intervals still hold the truth in 91 %.
    """
    shares = sizes / sizes.sum()
    return float((influence**2 / (1 - shares)).sum()), max(1.0, 1 / float((shares**2).sum()) - 1)


def _half_width(p: float, levels: Sequence[tuple[float, float]]) -> float:
    """Of the interval that leaves out `p`: Cochran's t' times the standard error, by variances and their freedom."""
    total = sum(variance for variance, _ in levels)
    if total <= 0:
        return 0.0
    return float(sum(-stdtrit(freedom, p / 2) * variance for variance, freedom in levels) / math.sqrt(total))


def _proportion_interval(mean: float, levels: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Wilson 1927 (J. Am. Stat. Assoc. 22:209) with t' for the quantile of the normal distribution.

    The count is that of independent files with the variance found; where all files are alike, that of the seeds or
    sources, whichever are fewer.
    """
    variance = sum(variance for variance, _ in levels)
    if variance <= 0 and 0 < mean < 1:  # each source is right equally often, as the two roles of a swap are in half
        return mean, mean
    count = mean * (1 - mean) / variance if variance > 0 else min(freedom for _, freedom in levels) + 1
    quantile = -stdtrit(count - 1, (1 - LEVEL) / 2)
    if variance > 0:
        quantile = _half_width(1 - LEVEL, levels) / math.sqrt(variance)
    shrink = 1 + quantile**2 / count
    centre = (mean + quantile**2 / (2 * count)) / shrink
    half = quantile * math.sqrt(mean * (1 - mean) / count + (quantile / (2 * count)) ** 2) / shrink
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _p_value(mean: float, levels: Sequence[tuple[float, float]]) -> float:
    """The p whose interval ends at 0: found by halving its logarithm's range, down to the smallest that a float has."""
    low, high = math.log(1e-300), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        if _half_width(math.exp(middle), levels) > abs(mean):
            low = middle
        else:
            high = middle
    return math.exp(high)
