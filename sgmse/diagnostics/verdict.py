"""The verdict on a noise reference, from paired differences with their intervals: words, tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.files import save_figure, write_text
from sgmse.diagnostics import differences
from sgmse.diagnostics.differences import (
    BASELINE,
    METRICS,
    Differences,
    interval_text,
    pair_title,
)
from sgmse.diagnostics.figures import draw_interval
from sgmse.diagnostics.use import FILE_WORDS
from sgmse.evaluation.statistics import Difference

SMALL = {"pesq": 0.05, "si_sdr": 0.3}  # an interval that lies within counts as no effect
_GAIN, _WRONG, _NULL = ("disjoint", BASELINE), ("disjoint", "mismatched"), ("disjoint", "none")
_COLOURS = {BASELINE: "C0", "oracle": "C3"}  # what pays, what leaks; the other protocols are grey
_OTHER = "0.35"


def judge(found: Differences, unlike: Sequence[str] = ()) -> tuple[str, str]:
    """The verdict in a word, and what it rests on in a sentence with its numbers.

    - used: PESQ with the matched reference is above that of the baseline and above that with a mismatched reference,
      both intervals entirely.
    - used, but does not pay: it is above the mismatched one, and what it gains over the baseline is for certain less
      than `SMALL`.
    - heard: it is above the mismatched one, and there is no baseline that was trained alike, without which nobody
      knows whether that is worth anything: a conditioned model may lean on what it could do without.
    - ignored: nothing moves. Every interval between protocols, in PESQ and SI-SDR, holds 0 and lies within ±`SMALL`.
      A mismatched reference or the null must be among them.
    - undecided: anything else.

    Args:
        found: by pair and metric.
        unlike: in what else than the reference the baseline differs.
    """
    if not any(first == "disjoint" for first, _ in found):
        return "undecided", "there are no matched references to judge"
    wrong, gain = found.get(_WRONG), found.get(_GAIN)
    if wrong is not None and wrong["pesq"].low > 0:  # never where there is no interval
        return _judge_heard(wrong["pesq"], None if gain is None else gain["pesq"], unlike)
    if _nothing_moves(found):
        limits = " and ".join(f"±{small:g} {METRICS[metric].partition(' ')[0]}" for metric, small in SMALL.items())
        return "ignored", f"nothing moves: every interval between protocols holds 0 and lies within {limits}"
    besides = "" if gain is None else f"; matched − baseline is {interval_text(gain['pesq'])} PESQ"
    return "undecided", _why_undecided(wrong) + besides


def _judge_heard(wrong: Difference, gain: Difference | None, unlike: Sequence[str]) -> tuple[str, str]:
    """The verdict where a mismatched reference costs PESQ for certain."""
    cost = f"a mismatched reference costs {interval_text(wrong)} PESQ"
    cost += ", next to nothing" if wrong.high <= SMALL["pesq"] else ""
    if gain is None:
        return "heard", f'{cost}; "used" cannot be said without a baseline (--baseline)'
    reason = f"{cost}; matched − baseline is {interval_text(gain)} PESQ"
    if unlike:
        return "heard", f'{reason}, but "used" cannot be said, since the baseline differs in {"; ".join(unlike)}'
    if gain.low > 0:
        return "used", reason
    if gain.high < SMALL["pesq"]:
        return "used, but does not pay", reason
    return "undecided", f"{reason}, which may be a gain or none, so more files or seeds are needed"


def _nothing_moves(found: Differences) -> bool:
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
    one, cost = wrong["pesq"], f"a mismatched reference costs {interval_text(wrong['pesq'])} PESQ"
    if one.high < 0:
        return f"{cost}: the wrong one does better than the right one"
    if max(-one.low, one.high) <= SMALL["pesq"]:
        return f"{cost}, next to nothing, but not everything else about the reference matters as little"
    return f"{cost}, which is not for certain above 0, so more files are needed"


def describe_differences(found: Differences) -> list[str]:
    """In sentences: the largest difference between protocols, what the reference tells that the noisy file does not,
    and what an overlapping reference gives on top of the disjoint one."""
    moves = {pair: one["pesq"] for pair, one in found.items() if BASELINE not in pair and not pd.isna(one["pesq"].mean)}
    beyond, leak = found.get(("disjoint", "estimated")), found.get(("oracle", "disjoint"))
    lines = [
        "largest difference between protocols: none could be measured",
        "beyond the mixture: not measured, since matched or estimated references are missing",
        "leak share: not measured, since oracle or matched references are missing",
    ]
    if moves:
        most = max(moves, key=lambda pair: abs(moves[pair].mean))
        lines[0] = f"largest difference between protocols: {pair_title(most)}, {interval_text(moves[most])} PESQ"
    if beyond is not None:
        more = "more than one estimated from the noisy file alone"
        lines[1] = f"beyond the mixture: the real reference gives {_in_both_metrics(beyond)} {more}"
    if leak is not None:
        lines[2] = f"leak share: an overlapping reference gives {_in_both_metrics(leak)} more than the disjoint one"
    return lines


def _in_both_metrics(values: Mapping[str, Difference]) -> str:
    return " and ".join(f"{interval_text(values[metric], metric)} {METRICS[metric]}" for metric in SMALL)


def write_report(
    scores: pd.DataFrame, title: str, unlike: Sequence[str], remarks: Sequence[str], out: Path
) -> tuple[str, list[str]]:
    """Write table.md and, where there are differences, use.png. Returns the text of table.md and the files' names.

    Args:
        scores: a row per system and file of the models and baselines to judge.
        unlike: in what else than the reference the baseline differs.
        remarks: sentences without a full stop.
    """
    leaking = differences.leaking_files(scores)
    counted = scores[~scores["file"].isin(leaking)]
    found = differences.paired_differences(counted)
    word, reason = judge(found, unlike)
    lines = [*describe_differences(found), *remarks, *_describe_scores(scores, leaking)]
    parts = [f"# {title}", f"**{word}**: {reason}.", "\n".join(f"- {line}." for line in lines)]
    parts += ["## Means", differences.means_table(differences.mean_scores(scores))]
    if found:
        parts += ["## Paired differences", differences.differences_table(found)]
        for name, groups in differences.split_by_noise(counted).items():
            parts += [f"## By {name}", differences.groups_table(name, groups)]
        draw_forest(found, f"{title}: {word}", out / "use.png")
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    write_text(out / "table.md", text)
    return text, ["table.md", "use.png"] if found else ["table.md"]


def _describe_scores(scores: pd.DataFrame, leaking: Sequence[str]) -> list[str]:
    """How many references leak, which files count in no difference, and how many rows have no PESQ."""
    lines = []
    compared = scores[scores["leak"].notna()].drop_duplicates(["system", "file"])
    if len(compared):
        shared = compared.groupby("system", sort=False)["leak_shared"].agg(["sum", "count"])
        counts = [
            f"{FILE_WORDS.get(str(system), system)} {int(row['sum'])} of {int(row['count'])}"
            for system, row in shared.iterrows()
        ]
        lines.append(f"references that share samples with their mixture: {', '.join(counts)}")
    if leaking:
        lines.append(f"{len(leaking)} files whose matched reference leaks count in no difference, first {leaking[0]}")
    missing = int(scores["pesq"].isna().sum())
    if missing:
        lines.append(f"{missing} rows have no PESQ, the column reason of scores.csv says why")
    return lines


def draw_forest(found: Differences, title: str, path: Path) -> None:
    """PESQ and SI-SDR of every pair, a line each; the band holds what counts as no effect."""
    figure = Figure(figsize=(11, 1.5 + 0.42 * len(found)), dpi=110, layout="constrained")
    for axes, (metric, small) in zip(figure.subplots(1, 2, sharey=True), SMALL.items(), strict=True):
        axes.axvspan(-small, small, color="0.94", zorder=0)
        axes.axvline(0, color="0.6", lw=1, zorder=1)
        for place, (pair, values) in enumerate(found.items()):
            colour = next((_COLOURS[name] for name in pair if name in _COLOURS), _OTHER)
            draw_interval(axes, place, values[metric], colour)
        axes.set_yticks(range(len(found)), [pair_title(pair) for pair in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlabel(f"Δ {METRICS[metric]}, 95 % interval")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    save_figure(figure, path)
