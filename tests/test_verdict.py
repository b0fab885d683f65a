"""The rules of the verdict on a reference, from paired differences that are known."""

import math

import pytest

from sgmse.diagnostics import verdict
from sgmse.evaluation.statistics import Difference

MATCHED, WRONG, NULL, LOUDER = (("disjoint", b) for b in ("baseline", "mismatched", "none", "louder"))
ORACLE = ("oracle", "disjoint")


def interval(low, high):
    """A difference of this interval, in PESQ and ESTOI; SI-SDR does not move."""
    one, still = (Difference((a + b) / 2, a, b, 0.5, 8, 4, 1) for a, b in ((low, high), (-0.1, 0.1)))
    return {"pesq": one, "estoi": one, "si_sdr": still}


PAYS, COSTS, NOTHING, UNSURE = interval(0.1, 0.3), interval(0.05, 0.2), interval(-0.02, 0.03), interval(-0.1, 0.2)
ALONE = {name: Difference(0.2, math.nan, math.nan, math.nan, 1, 1, 1) for name in ("pesq", "estoi", "si_sdr")}
SI_SDR_MOVES = NOTHING | {"si_sdr": Difference(0.4, 0.2, 0.6, 0.0, 8, 4, 1)}


@pytest.mark.parametrize(
    ("found", "unlike", "word", "reason"),
    [
        ({MATCHED: PAYS, WRONG: COSTS}, [], "used", "costs +0.125 [+0.050, +0.200] PESQ; matched − baseline is +0.200"),
        ({MATCHED: interval(0.01, 0.03), WRONG: COSTS}, [], "used", "matched − baseline is +0.020"),
        ({MATCHED: interval(-0.1, 0.049), WRONG: COSTS}, [], "used, but does not pay", "is -0.026 [-0.100, +0.049]"),
        ({MATCHED: interval(-0.1, 0.05), WRONG: COSTS}, [], "undecided", "[-0.100, +0.050] PESQ, which may be a gain"),
        ({MATCHED: UNSURE, WRONG: COSTS}, [], "undecided", "matched − baseline is +0.050 [-0.100"),
        ({MATCHED: ALONE, WRONG: COSTS}, [], "undecided", "matched − baseline is +0.200 PESQ, which may be"),
        ({MATCHED: interval(-0.3, -0.1), WRONG: COSTS}, [], "used, but does not pay", "is -0.200"),
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
    found_word, found_reason = verdict.judge(found, unlike)
    assert found_word == word
    assert reason in found_reason


def test_the_largest_move_is_between_protocols_and_the_leak_share_is_oracle_minus_matched():
    found = {MATCHED: PAYS, WRONG: NOTHING, LOUDER: interval(-0.2, 0.0), ORACLE: COSTS}
    largest, _, leak = verdict.describe_differences(found)
    assert "oracle − matched, +0.125" in largest
    assert "gives +0.125 [+0.050, +0.200] PESQ and +0.00" in leak
    assert "matched − 6 dB louder, -0.100" in verdict.describe_differences({**found, ORACLE: NOTHING})[0]
    largest, beyond, leak = verdict.describe_differences({})
    assert "none could be measured" in largest
    assert "not measured" in beyond
    assert "not measured" in leak


def test_what_the_reference_tells_beyond_the_mixture_is_matched_minus_estimated():
    beyond = verdict.describe_differences({MATCHED: PAYS, ("disjoint", "estimated"): COSTS})[1]
    assert "gives +0.125 [+0.050, +0.200] PESQ and +0.00 [-0.10, +0.10] SI-SDR dB more than one estimated" in beyond
