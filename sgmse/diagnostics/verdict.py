"""The verdict on a noise reference, in words, from paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sgmse.diagnostics.differences import METRICS, TITLES, Pair, told
from sgmse.diagnostics.use import BASELINE
from sgmse.evaluation.statistics import Difference

SMALL = {"pesq": 0.05, "si_sdr": 0.3}  # an interval that lies within counts as no effect
Word = Literal["used", "used, but does not pay", "heard", "ignored", "undecided"]
_BASELINE, _WRONG, _NULL = ("matched", BASELINE), ("matched", "mismatched"), ("matched", "null")


@dataclass(frozen=True)
class Verdict:
    """word: the verdict. reason: what it rests on, a sentence with its numbers."""

    word: Word
    reason: str


def judge(found: Mapping[Pair, Mapping[str, Difference]], unlike: Sequence[str] = ()) -> Verdict:
    """The verdict on paired differences by pair and metric; `unlike`: in what else the baseline differs.

    - used: PESQ with the matched reference is above that of the baseline and above that with a mismatched reference,
      both intervals entirely.
    - used, but does not pay: it is above the mismatched one but not for certain above the baseline.
    - heard: it is above the mismatched one, and there is no baseline that was trained alike, without which nobody
      knows whether that is worth anything: a conditioned model may lean on what it could do without.
    - ignored: nothing moves. Every interval between protocols, in PESQ and SI-SDR, holds 0 and lies within ±`SMALL`.
      A mismatched reference or the null must be among them.
    - undecided: anything else.
    """
    if not any(pair[0] == "matched" for pair in found):
        return Verdict("undecided", "there are no matched references to judge")
    wrong, gain = found.get(_WRONG), found.get(_BASELINE)
    if wrong is not None and _above(wrong["pesq"]):
        cost = f"a mismatched reference costs {told(wrong['pesq'])} PESQ"
        cost += ", next to nothing" if wrong["pesq"].high <= SMALL["pesq"] else ""
        if gain is None:
            return Verdict("heard", f'{cost}; "used" cannot be said without a baseline (--baseline)')
        over = f"matched − baseline is {told(gain['pesq'])} PESQ"
        if unlike:
            return Verdict(
                "heard", f'{cost}; {over}, but "used" cannot be said, since the baseline differs in {"; ".join(unlike)}'
            )
        return Verdict("used" if _above(gain["pesq"]) else "used, but does not pay", f"{cost}; {over}")
    if _nothing_moves(found):
        limits = " and ".join(f"±{SMALL[metric]:g} {METRICS[metric].partition(' ')[0]}" for metric in SMALL)
        return Verdict("ignored", f"nothing moves: every interval between protocols holds 0 and lies within {limits}")
    besides = "" if gain is None else f"; matched − baseline is {told(gain['pesq'])} PESQ"
    return Verdict("undecided", _why_undecided(wrong) + besides)


def largest_move(found: Mapping[Pair, Mapping[str, Difference]]) -> str:
    """The largest difference between protocols in PESQ, in words."""
    between = {pair: values["pesq"] for pair, values in found.items() if BASELINE not in pair}
    measured = {pair: one for pair, one in between.items() if one.mean == one.mean}
    if not measured:
        return "largest difference between protocols: none could be measured"
    a, b = max(measured, key=lambda pair: abs(measured[pair].mean))
    return f"largest difference between protocols: {TITLES[a]} − {TITLES[b]}, {told(measured[a, b])} PESQ"


def leak_share(found: Mapping[Pair, Mapping[str, Difference]]) -> str:
    """What an overlapping reference gives on top of the disjoint one, in words."""
    share = found.get(("oracle", "matched"))
    if share is None:
        return "leak share: not measured, since oracle or matched references are missing"
    return f"leak share: an overlapping reference gives {_both(share)} more than the disjoint one"


def beyond_the_mixture(found: Mapping[Pair, Mapping[str, Difference]]) -> str:
    """What the real reference tells that the noisy file does not, in words."""
    beyond = found.get(("matched", "estimated"))
    if beyond is None:
        return "beyond the mixture: not measured, since matched or estimated references are missing"
    more = f"{_both(beyond)} more than one estimated from the noisy file alone"
    return f"beyond the mixture: the real reference gives {more}"


def _both(values: Mapping[str, Difference]) -> str:
    return " and ".join(f"{told(values[metric], metric)} {METRICS[metric]}" for metric in SMALL)


def _above(difference: Difference) -> bool:
    return difference.low > 0  # never where there is no interval


def _nothing_moves(found: Mapping[Pair, Mapping[str, Difference]]) -> bool:
    between = {pair: values for pair, values in found.items() if BASELINE not in pair}
    if _WRONG not in between and _NULL not in between:
        return False
    return all(
        -small <= values[metric].low <= 0 <= values[metric].high <= small
        for values in between.values()
        for metric, small in SMALL.items()
    )


def _why_undecided(wrong: Mapping[str, Difference] | None) -> str:
    if wrong is None:
        return "there are no mismatched references, without which nobody knows whether the right one matters"
    one, cost = wrong["pesq"], f"a mismatched reference costs {told(wrong['pesq'])} PESQ"
    if one.high < 0:
        return f"{cost}: the wrong one does better than the right one"
    if max(-one.low, one.high) <= SMALL["pesq"]:
        return f"{cost}, next to nothing, but not everything else about the reference matters as little"
    return f"{cost}, which is not for certain above 0, so more files are needed"
