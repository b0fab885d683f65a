"""Intervals of paired differences: what is known where the truth is."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sgmse.evaluation import statistics
from sgmse.evaluation.statistics import Spread, hierarchical, holm, paired, smallest_difference, spread


def simulated(
    rng: np.random.Generator, seeds: int, sources: int, files: int, deviations: Spread, mean: float = 0
) -> pd.DataFrame:
    """Differences of `files` files of each of `sources` sources, each scored with `seeds` trainings."""
    values = rng.normal(size=(seeds, 1, 1)) * deviations.seed + rng.normal(size=(1, sources, 1)) * deviations.source
    values = mean + values + rng.normal(size=(1, sources, files)) * deviations.file
    seed, source, file = np.indices(values.shape)
    columns = {"value": values, "seed": seed, "source": source, "file": source * files + file}
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})


def half_width(table: pd.DataFrame) -> float:
    difference = hierarchical(table)
    return (difference.high - difference.low) / 2


def test_independent_files_of_one_training_give_the_t_test() -> None:
    table = simulated(np.random.default_rng(0), 1, 60, 1, Spread(0, 0.2, 0), mean=0.05)
    found, test = hierarchical(table), stats.ttest_1samp(table["value"], 0)
    interval = test.confidence_interval()
    assert (found.low, found.mean, found.high) == pytest.approx((interval.low, table["value"].mean(), interval.high))
    assert found.p == pytest.approx(test.pvalue)
    assert (found.n_files, found.n_sources, found.n_seeds) == (60, 60, 1)


def test_files_that_only_repeat_their_source_do_not_narrow_the_interval() -> None:
    table = simulated(np.random.default_rng(1), 1, 6, 8, Spread(0, 0.3, 0.01))
    means = table.groupby("source")["value"].mean()
    assert half_width(table) == pytest.approx(stats.t.ppf(0.975, 5) * means.std() / math.sqrt(6))


def test_files_that_differ_within_their_source_are_counted_once() -> None:
    table = simulated(np.random.default_rng(2), 1, 40, 5, Spread(0, 0, 0.3))
    assert half_width(table) == pytest.approx(2.02 * 0.3 / math.sqrt(200), rel=0.15)


def test_two_seeds_give_the_interval_of_one_degree_of_freedom() -> None:
    table = simulated(np.random.default_rng(3), 2, 50, 2, Spread(0.1, 0, 0.001))
    means = table.groupby("seed")["value"].mean()
    assert half_width(table) == pytest.approx(12.706 * abs(means[0] - means[1]) / 2, rel=0.01)


def test_sources_are_shared_by_seeds_so_more_seeds_do_not_average_them_out() -> None:
    one = simulated(np.random.default_rng(4), 1, 20, 2, Spread(0, 0.2, 0.01))
    copies = pd.concat([one.assign(seed=seed) for seed in range(5)])
    assert half_width(copies) == pytest.approx(half_width(one), rel=0.05)


def coverage(
    seeds: int, files: Sequence[int], seed_spread: float, interaction: float, repetitions: int = 1000
) -> float:
    """How many of the 95 % intervals hold the truth.

    files: of each source. interaction: how much trainings differ from source to source.
    """
    rng, inside, sources = np.random.default_rng(5), 0, len(files)
    deviation = seed_spread * (seeds > 1)  # one seed speaks of its training alone
    sizes = np.tile(np.array(files, dtype=float), (seeds, 1))
    for _ in range(repetitions):
        values = rng.normal(0, deviation, (seeds, 1)) + rng.normal(0, 0.1, sources)
        values = values + rng.normal(0, 0.1, sources) / np.sqrt(files) + rng.normal(0, interaction, (seeds, sources))
        levels = statistics._variances(values * sizes, sizes)
        inside += abs(np.average(values, weights=sizes)) <= statistics._half_width(0.05, levels)
    return inside / repetitions


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("sources", [10, 20, 50])
@pytest.mark.parametrize("seed_spread", [0.0, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("interaction", [0.0, 0.1])
def test_nineteen_of_twenty_intervals_hold_the_truth(
    seeds: int, sources: int, seed_spread: float, interaction: float
) -> None:
    found = coverage(seeds, [1] * sources, seed_spread, interaction)
    assert 0.92 - 0.01 <= found <= 0.98 + 0.01  # 0.01: of 1000 repetitions


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("files", [[90, *[10] * 9], [40, *[4] * 20], [100 // k for k in range(1, 11)]])
def test_sources_of_unequal_size_do_not_narrow_the_interval(seeds: int, files: list[int]) -> None:
    assert coverage(seeds, files, 0.03, 0.0) >= 0.92 - 0.01


@pytest.mark.slow
def test_the_table_of_coverage() -> None:
    """Printed with -s: the lowest and the highest coverage over spreads of seeds and interactions."""
    print("\nseeds  sources  lowest  highest")
    for seeds in (1, 2, 3):
        for sources in (10, 20, 50):
            settings = itertools.product((0.0, 0.03, 0.1, 0.3) if seeds > 1 else (0.0,), (0.0, 0.1, 0.3))
            found = [coverage(seeds, [1] * sources, *setting, repetitions=4000) for setting in settings]
            print(f"{seeds:5}  {sources:7}  {min(found):.3f}   {max(found):.3f}")
            assert min(found) > 0.915
            assert max(found) < 0.99


def test_the_interval_of_a_table_is_that_of_its_variances() -> None:
    table = simulated(np.random.default_rng(13), 2, 12, 1, Spread(0.1, 0.1, 0.1))
    values = table.pivot(index="seed", columns="source", values="value").to_numpy()
    assert half_width(table) == pytest.approx(
        statistics._half_width(0.05, statistics._variances(values, np.ones_like(values)))
    )


def test_p_is_below_one_minus_the_level_exactly_where_the_interval_excludes_zero() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        found = hierarchical(simulated(rng, 2, 10, 2, Spread(0.02, 0.1, 0.1), mean=0.08))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_files_of_a_single_source_are_drawn_themselves() -> None:
    table = simulated(np.random.default_rng(7), 1, 1, 30, Spread(0, 0, 0.2))
    interval = stats.ttest_1samp(table["value"], 0).confidence_interval()
    assert half_width(table) == pytest.approx((interval.high - interval.low) / 2, rel=0.05)
    assert hierarchical(table).n_sources == 1


def test_one_file_has_no_interval_and_no_file_no_mean() -> None:
    table = simulated(np.random.default_rng(8), 1, 1, 1, Spread(0, 0, 0.2))
    one, none = hierarchical(table), hierarchical(table[:0])
    assert one.mean == table["value"][0]
    assert all(map(math.isnan, (one.low, one.high, one.p, none.mean, none.p)))
    assert none.n_files == 0


def test_equal_differences_say_nothing_of_others_unless_there_are_none() -> None:
    table = simulated(np.random.default_rng(9), 1, 4, 2, Spread(0, 0, 0), mean=0.1)
    found, nothing = hierarchical(table), hierarchical(table.assign(value=0.0))
    assert found.mean == pytest.approx(0.1)
    assert all(map(math.isnan, (found.low, found.high, found.p)))
    assert math.isnan(statistics.detectable(table))
    assert (nothing.low, nothing.high, nothing.p) == (0, 0, 1)


def test_a_single_file_that_differs_decides_nothing_and_a_proportion_of_all_or_none_is_no_certainty() -> None:
    table = simulated(np.random.default_rng(9), 1, 48, 1, Spread(0, 0, 0))
    one = hierarchical(table.assign(value=[1.0] + [0.0] * 47))
    assert one.low < 0 < one.high
    every, none = (hierarchical(table.assign(value=value), is_proportion=True) for value in (1.0, 0.0))
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1))
    assert 0.9 < every.low < 0.95
    assert none.low == 0


@pytest.mark.parametrize(("sources", "files", "right"), [(10, 1, 0.9), (20, 1, 0.95), (48, 1, 0.97), (24, 4, 0.93)])
def test_the_interval_of_a_proportion_holds_the_truth(sources: int, files: int, right: float) -> None:
    rng, hits, count = np.random.default_rng(0), 0, 400
    empty = simulated(rng, 1, sources, files, Spread(0, 0, 0))
    for _ in range(count):
        likely = rng.beta(4 * right, 4 * (1 - right), sources) if files > 1 else np.full(sources, right)
        found = hierarchical(
            empty.assign(value=(rng.random((sources, files)) < likely[:, None]).ravel().astype(float)),
            is_proportion=True,
        )
        hits += found.low <= right <= found.high
        assert 0 <= found.low <= found.mean <= found.high <= 1
    assert hits >= 0.91 * count


def test_a_cell_that_is_missing_leaves_the_mean_of_the_others() -> None:
    table = simulated(np.random.default_rng(10), 2, 3, 1, Spread(0.1, 0.1, 0.1))
    rest = table[1:]
    found = hierarchical(rest)
    assert found.mean == pytest.approx(rest["value"].mean())
    assert found.low < found.mean < found.high


def scores(seed: float | None, values: dict[str, float], sources: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"file": list(values), "seed": seed, "source": sources, "pesq": list(values.values())})


def test_pairs_are_those_of_the_same_file_and_seed_that_both_could_score() -> None:
    sources = ["dog", None, "rain"]
    a = pd.concat([scores(k, {"x": 2.0 + k, "y": 3.0, "z": math.nan}, sources) for k in (0, 1)])
    b = pd.concat([scores(k, {"x": 1.0, "y": 1.0, "z": 1.0}, sources) for k in (1, 2)])
    table = paired(a, b, "pesq")
    assert table.to_dict("list") == {"value": [2.0, 2.0], "seed": [1, 1], "source": ["dog", "y"], "file": ["x", "y"]}


def test_files_without_seed_pair_with_every_seed() -> None:
    a = pd.concat([scores(k, {"x": 2.0 + k}, ["dog"]) for k in (0, 1)])
    noisy = scores(None, {"x": 1.0}, ["dog"])
    assert paired(a, noisy, "pesq")[["seed", "value"]].to_numpy().tolist() == [[0, 1], [1, 2]]
    assert paired(noisy, a, "pesq")[["seed", "value"]].to_numpy().tolist() == [[0, -1], [1, -2]]
    assert paired(noisy, noisy, "pesq")["value"].tolist() == [0]


def test_two_scores_of_one_file_are_refused() -> None:
    rows = scores(0, {"x": 1.0}, ["dog"])
    with pytest.raises(ValueError, match="two scores"):
        paired(rows, pd.concat([rows, rows]), "pesq")


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, math.nan, 0.02])[2] == pytest.approx(0.04)
    assert math.isnan(holm([0.9, math.nan, 0.02])[1])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_the_spread_of_each_level_is_found_again() -> None:
    table = simulated(np.random.default_rng(11), 30, 300, 4, Spread(0.05, 0.1, 0.2))
    found = spread(table)
    assert (found.seed, found.source, found.file) == pytest.approx((0.05, 0.1, 0.2), rel=0.2)
    single = spread(table[(table["seed"] == 0) & (table["file"] % 4 == 0)])
    assert (single.seed, single.file) == (0, 0)
    assert single.source == pytest.approx(math.hypot(0.1, 0.2), rel=0.15)


def test_many_files_show_the_difference_of_the_textbook() -> None:
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.2 / math.sqrt(5000)
    assert smallest_difference(Spread(0, 0.2, 0), 5000, 5000, 1) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("seeds", "sources"), [(3, 24), (1, 3), (2, 8)])
def test_the_smallest_difference_is_shown_four_times_in_five(seeds: int, sources: int) -> None:
    deviations, rng, repetitions = Spread(0.02, 0.1, 0.15), np.random.default_rng(12), 250
    wanted = smallest_difference(deviations, 2 * sources, sources, seeds)
    tables = (simulated(rng, seeds, sources, 2, deviations, mean=wanted) for _ in range(repetitions))
    shown = sum(hierarchical(table).low > 0 for table in tables)
    assert shown / repetitions == pytest.approx(0.8, abs=0.07)


def test_what_a_table_can_show_is_what_its_spread_says() -> None:
    deviations = Spread(0.05, 0.1, 0.0)
    tables = [simulated(np.random.default_rng(n), 3, 24, 1, deviations) for n in range(200)]
    found = np.sqrt(np.mean([statistics.detectable(table) ** 2 for table in tables]))
    assert found == pytest.approx(smallest_difference(deviations, 24, 24, 3), rel=0.15)
    assert smallest_difference(Spread(0, 0.1, 0.1), 1, 1, 3) == 0, "what is not repeated adds nothing"


def test_one_file_shows_nothing_however_large() -> None:
    assert math.isnan(statistics.detectable(simulated(np.random.default_rng(0), 1, 1, 1, Spread(0, 0.1, 0))))
    assert math.isnan(smallest_difference(Spread(0, 0.1, 0.1), 1, 1, 1))
