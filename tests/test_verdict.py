"""Paired differences of scores that are known, and the rules of the verdict on them."""

import math

import numpy as np
import pandas as pd
import pytest

from sgmse.diagnostics import differences, verdict
from sgmse.diagnostics.differences import pair_title

MATCHED, WRONG, NULL, LOUDER = (("disjoint", b) for b in ("baseline", "mismatched", "none", "louder"))
ORACLE, ESTIMATED = ("oracle", "disjoint"), ("disjoint", "estimated")
NEVER = math.nan


def interval(low, high, mean=None):
    """Mean and ends by metric: these in PESQ; SI-SDR does not move."""
    return {"pesq": ((low + high) / 2 if mean is None else mean, low, high), "si_sdr": (0.0, -0.1, 0.1)}


PAYS, COSTS, NOTHING, UNSURE = interval(0.1, 0.3), interval(0.05, 0.2), interval(-0.02, 0.03), interval(-0.1, 0.2)
ALONE = {name: (0.2, NEVER, NEVER) for name in ("pesq", "si_sdr")}
SI_SDR_MOVES = NOTHING | {"si_sdr": (0.4, 0.2, 0.6)}


def rows(system, values, seed=0, **more):
    """A row per file of this PESQ."""
    files = [f"f{i}" for i in range(len(values))]
    table = {"system": system, "seed": seed, "file": files, "kind": "rain", "source": files, "snr_db": 5.0}
    table |= {"pesq": values, "estoi": 0.5, "si_sdr": 3.0, "leak": np.nan, "leak_shared": None}
    return pd.DataFrame(table | more)


def test_differences_are_paired_by_file_and_seed_and_other_seeds_by_their_rank():
    matched, baseline = ([2.0, 3.0], [2.5, 3.5]), ([1.0, 2.0], [2.5, 3.5])  # of seeds 0 and 1
    frame = pd.concat(
        rows(system, values[seed], seed)
        for system, values in (("disjoint", matched), ("baseline", baseline))
        for seed in (0, 1)
    )
    one = differences.paired_differences(frame).set_index("metric").loc["pesq"]
    assert (one["difference"], one["mean"], one["files"], one["seeds"]) == (
        "matched − baseline",
        pytest.approx(0.5),
        2,
        2,
    )
    frame.loc[(frame["system"] == "baseline") & (frame["seed"] == 1), "seed"] = 7
    one = differences.paired_differences(frame).set_index("metric").loc["pesq"]
    assert (one["mean"], one["files"], one["seeds"]) == (pytest.approx(2.75 - 2.25), 2, 2)
    once = frame[(frame["system"] == "disjoint") | (frame["seed"] == 0)]
    one = differences.paired_differences(once).set_index("metric").loc["pesq"]
    assert (one["mean"], one["files"], one["seeds"]) == (pytest.approx(2.75 - 1.5), 2, 1), "these trainings alone"
    assert differences.paired_differences(frame[frame["system"] == "baseline"]).empty


def test_groups_are_classes_and_snrs_and_many_snrs_are_gathered():
    frame = rows("disjoint", [2.0] * 10, snr_db=np.arange(10.0), kind=["rain", "dog"] * 5)
    many, few = (
        {name: list(parts) for name, parts in differences.split_by_noise(one).items()}
        for one in (frame, frame.assign(snr_db=[10.0, -5.0] * 5, kind=""))
    )
    assert many == {"class": ["dog", "rain"], "SNR dB": ["0 to 5", "5 to 10"]}
    assert few == {"SNR dB": ["-5", "10"]}


def long_table(found):
    """As `differences.paired_differences` makes it, from pair → metric → mean, low, high."""
    columns = ["difference", "first", "second", "metric", "mean", "low", "high"]
    rows = [
        [pair_title(*pair), *pair, metric, *values]
        for pair, by_metric in found.items()
        for metric, values in by_metric.items()
    ]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("found", "unlike", "word", "reason"),
    [
        ({MATCHED: PAYS, WRONG: COSTS}, [], "used", "costs +0.125 [+0.050, +0.200] PESQ; matched − baseline is +0.200"),
        ({MATCHED: interval(0.01, 0.03), WRONG: COSTS}, [], "used", "matched − baseline is +0.020"),
        ({MATCHED: interval(-0.1, 0.049), WRONG: COSTS}, [], "used, but does not pay", "is −0.026 [−0.100, +0.049]"),
        ({MATCHED: interval(-0.1, 0.05), WRONG: COSTS}, [], "undecided", "[−0.100, +0.050] PESQ, which may be a gain"),
        ({MATCHED: UNSURE, WRONG: COSTS}, [], "undecided", "matched − baseline is +0.050 [−0.100"),
        ({MATCHED: ALONE, WRONG: COSTS}, [], "undecided", "matched − baseline is +0.200 PESQ, which may be"),
        ({MATCHED: interval(-0.3, -0.1), WRONG: COSTS}, [], "used, but does not pay", "is −0.200"),
        ({WRONG: COSTS}, [], "heard", 'costs +0.125 [+0.050, +0.200] PESQ; "used" cannot be said without a baseline'),
        ({MATCHED: PAYS, WRONG: COSTS}, ["max_steps 2, not 4"], "heard", "the baseline differs in max_steps 2, not 4"),
        ({MATCHED: PAYS, WRONG: NOTHING, NULL: NOTHING}, [], "ignored", "within ±0.05 PESQ and ±0.3 SI-SDR"),
        ({NULL: NOTHING}, [], "ignored", "nothing moves"),
        ({WRONG: NOTHING, LOUDER: COSTS}, [], "undecided", "not everything else about the reference"),
        ({WRONG: NOTHING, ORACLE: COSTS}, [], "undecided", "not everything else about the reference"),
        ({WRONG: SI_SDR_MOVES}, [], "undecided", "not everything else"),
        ({WRONG: NOTHING, LOUDER: interval(0.01, 0.02)}, [], "undecided", "not everything else"),
        ({WRONG: interval(0.01, 0.02)}, [], "heard", "costs +0.015 [+0.010, +0.020] PESQ, next to nothing;"),
        ({MATCHED: PAYS, WRONG: UNSURE}, [], "undecided", "more files are needed; matched − baseline is +0.200"),
        ({MATCHED: PAYS, WRONG: interval(-0.2, -0.1)}, [], "undecided", "the wrong one does better"),
        ({MATCHED: PAYS, LOUDER: NOTHING}, [], "undecided", "no mismatched references"),
        ({MATCHED: ALONE, WRONG: ALONE}, [], "undecided", "more files are needed"),
        ({("oracle", "baseline"): PAYS}, [], "undecided", "no matched references"),
        ({}, [], "undecided", "no matched references"),
    ],
)
def test_the_verdict_follows_its_rules(found, unlike, word, reason):
    found_word, found_reason = verdict.judge(long_table(found), unlike)
    assert found_word == word
    assert reason in found_reason


def test_the_largest_move_is_between_protocols_and_the_leak_share_is_oracle_minus_matched():
    found = {MATCHED: PAYS, WRONG: NOTHING, LOUDER: interval(-0.2, 0.0), ORACLE: COSTS, ESTIMATED: COSTS}
    largest, beyond, leak = verdict.describe_differences(long_table(found))
    assert "oracle − matched, +0.125" in largest
    assert "gives +0.125 [+0.050, +0.200] PESQ and +0.00 [−0.10, +0.10] SI-SDR dB more than one estimated" in beyond
    assert "gives +0.125 [+0.050, +0.200] PESQ and +0.00" in leak
    del found[ORACLE], found[ESTIMATED]
    assert "matched − 6 dB louder, −0.100" in verdict.describe_differences(long_table(found))[0]
    assert ["not measured" in line for line in verdict.describe_differences(long_table(found))] == [False, True, True]
    assert "none could be measured" in verdict.describe_differences(long_table({}))[0]
