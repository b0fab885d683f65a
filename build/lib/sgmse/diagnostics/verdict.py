"""The verdict on a noise reference, from paired differences with their intervals: words, tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.files import save_figure, write_text
from sgmse.diagnostics import differences
from sgmse.diagnostics.differences import BASELINE, SMALL, Pair, count_exclusions, interval_table, pair_title
from sgmse.diagnostics.use import FILE_WORDS
from sgmse.evaluation.metrics import METRICS
from sgmse.evaluation.tables import score_interval

_GAIN, _WRONG, _NULL = ("disjoint", BASELINE), ("disjoint", "mismatched"), ("disjoint", "none")
_BLIND = "the real reference gives {} more than one estimated from the noisy file alone"
_LEAK = "an overlapping reference gives {} more than the disjoint one"
_SHARES = {"beyond the mixture": (("disjoint", "estimated"), _BLIND), "leak share": (("oracle", "disjoint"), _LEAK)}
_COLOURS = {BASELINE: "C0", "oracle": "C3"}  # what pays, what leaks; the other protocols are grey


def judge(found: pd.DataFrame, unlike: Sequence[str] = ()) -> tuple[str, str]:
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
        found: the long table of `differences.paired_differences`.
        unlike: in what else than the reference the baseline differs.
    """
    if "disjoint" not in set(found["first"]):
        return "undecided", "there are no matched references to judge"
    wrong, gain = _find(found, _WRONG), _find(found, _GAIN)
    if wrong is not None and wrong["low"] > 0:  # never where there is no interval
        return _judge_effective(wrong, gain, unlike)
    if _nothing_moves(found):
        limits = " and ".join(f"±{small:g} {_title(metric)}" for metric, small in SMALL.items())
        return "ignored", f"nothing moves: every interval between protocols holds 0 and lies within {limits}"
    besides = "" if gain is None else f"; matched − baseline is {_in_pesq(gain)}"
    return "undecided", _explain_undecided(wrong) + besides


def _judge_effective(wrong: pd.Series, gain: pd.Series | None, unlike: Sequence[str]) -> tuple[str, str]:
    """The verdict where a mismatched reference costs PESQ for certain."""
    cost = f"a mismatched reference costs {_in_pesq(wrong)}"
    cost += ", next to nothing" if wrong["high"] <= SMALL["pesq"] else ""
    if gain is None:
        return "heard", f'{cost}; "used" cannot be said without a baseline (--baseline)'
    reason = f"{cost}; matched − baseline is {_in_pesq(gain)}"
    if unlike:
        return "heard", f'{reason}, but "used" cannot be said, since the baseline differs in {"; ".join(unlike)}'
    if gain["low"] > 0:
        return "used", reason
    if gain["high"] < SMALL["pesq"]:
        return "used, but does not pay", reason
    return "undecided", f"{reason}, which may be a gain or none, so more files or seeds are needed"


def _nothing_moves(found: pd.DataFrame) -> bool:
    between = found[(found["second"] != BASELINE) & found["metric"].isin(SMALL)]
    small = between["metric"].map(SMALL)
    still = (-small <= between["low"]) & (between["low"] <= 0) & (between["high"] >= 0) & (between["high"] <= small)
    return bool(still.all()) and any(_find(found, pair) is not None for pair in (_WRONG, _NULL))


def _explain_undecided(wrong: pd.Series | None) -> str:
    if wrong is None:
        return "there are no mismatched references, without which nobody knows whether the right one matters"
    cost = f"a mismatched reference costs {_in_pesq(wrong)}"
    if wrong["high"] < 0:
        return f"{cost}: the wrong one does better than the right one"
    if max(-wrong["low"], wrong["high"]) <= SMALL["pesq"]:
        return f"{cost}, next to nothing, but not everything else about the reference matters as little"
    return f"{cost}, which is not for certain above 0, so more files are needed"


def describe_differences(found: pd.DataFrame) -> list[str]:
    """In sentences: the largest difference between protocols, what the reference tells that the noisy file does not,
    and what an overlapping reference gives on top of the disjoint one."""
    moves = found[(found["second"] != BASELINE) & (found["metric"] == "pesq") & found["mean"].notna()]
    largest = "none could be measured"
    if len(moves):
        most = moves.iloc[int(moves["mean"].abs().argmax())]
        largest = f"{most['difference']}, {_in_pesq(most)}"
    lines = [f"largest difference between protocols: {largest}"]
    for subject, ((first, second), text) in _SHARES.items():
        rows = {metric: _find(found, (first, second), metric) for metric in SMALL}
        gains = [f"{score_interval(row, m, True)} {METRICS[m].title}" for m, row in rows.items() if row is not None]
        missing = f"not measured, since {pair_title(first)} or {pair_title(second)} references are missing"
        lines.append(f"{subject}: {text.format(' and '.join(gains)) if gains else missing}")
    return lines


def _find(found: pd.DataFrame, pair: Pair, metric: str = "pesq") -> pd.Series | None:
    """The row of a pair and metric, if it is there."""
    rows = found[(found["first"] == pair[0]) & (found["second"] == pair[1]) & (found["metric"] == metric)]
    return None if rows.empty else rows.iloc[0]


def _in_pesq(row: pd.Series) -> str:
    return f"{score_interval(row, 'pesq', signed=True)} {_title('pesq')}"


def _title(metric: str) -> str:
    """Without the unit."""
    return METRICS[metric].title.partition(" ")[0]


def write_report(
    scores: pd.DataFrame, title: str, unlike: Sequence[str], remarks: Sequence[str], out: Path
) -> tuple[str, list[str]]:
    """Write table.md and, where there are differences, use.png. Returns the text of table.md and the files' names.

    Args:
        scores: a row per system and file of the models and baselines to judge.
        unlike: in what else than the reference the baseline differs.
        remarks: sentences without a full stop.
    """
    counted, leaking = differences.count_leaks(scores)
    found = differences.paired_differences(counted)
    word, reason = judge(found, unlike)
    lines = [*describe_differences(found), *remarks, *_describe_scores(scores, leaking)]
    means = differences.mean_scores(scores).rename(columns={"difference": "system"})
    parts = [f"# {title}", f"**{word}**: {reason}.", "\n".join(f"- {line}." for line in lines)]
    parts += ["## Means", interval_table(means, ["system"], "metric", ["files"], signed=False)]
    if len(found):
        parts += ["## Paired differences"]
        parts += [interval_table(found, ["difference"], "metric", ["files", "sources", "seeds"])]
        for name, groups in differences.split_by_noise(counted).items():
            parts += [f"## By {name}", _describe_groups(name, groups)]
        draw_forest(found, f"{title}: {word}", out / "use.png")
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    write_text(out / "table.md", text)
    return text, ["table.md", "use.png"] if len(found) else ["table.md"]


def _describe_groups(name: str, groups: dict[str, pd.DataFrame]) -> str:
    """How many intervals of groups of files exclude 0; then a table of PESQ and SI-SDR, unless none does."""
    found = pd.concat(
        [
            differences.paired_differences(rows, differences.BY_GROUP).assign(group=label)
            for label, rows in groups.items()
        ]
    )
    shown = found[found["metric"].isin(SMALL)]
    text, says_something = count_exclusions(shown)
    if not says_something:
        return text
    titles = shown["metric"].map(lambda metric: METRICS[metric].title) + ": " + shown["difference"]
    renamed = shown.assign(title=titles).rename(columns={"group": name})
    return f"{text}\n\n{interval_table(renamed, [name], 'title', ['files'])}"


def _describe_scores(scores: pd.DataFrame, leaking: Sequence[str]) -> list[str]:
    """How many references leak, which files count in no difference, and how many rows have no PESQ."""
    lines = []
    compared = scores[scores["leak"].notna()].drop_duplicates(["system", "file"])
    if len(compared):
        shared = compared.groupby("system", sort=False)["leak_shared"].agg(["sum", "count"])
        counts = [
            f"{FILE_WORDS.get(str(name), name)} {row['sum']} of {row['count']}" for name, row in shared.iterrows()
        ]
        lines.append(f"references that share samples with their mixture: {', '.join(counts)}")
    if leaking:
        lines.append(f"{len(leaking)} files whose matched reference leaks count in no difference, first {leaking[0]}")
    missing = int(scores["pesq"].isna().sum())
    if missing:
        lines.append(f"{missing} rows have no PESQ, the column reason of scores.csv says why")
    return lines


def draw_forest(found: pd.DataFrame, title: str, path: Path) -> None:
    """PESQ and SI-SDR of every pair, a line each."""
    colours: dict[str, str] = {}
    for difference, *pair in found[["difference", "first", "second"]].to_numpy(str).tolist():
        colours[difference] = next((_COLOURS[name] for name in pair if name in _COLOURS), "0.35")
    figure = Figure(figsize=(11, 1.5 + 0.42 * len(colours)), dpi=110, layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), SMALL, strict=True):
        differences.draw_differences(axes, found, metric, "difference", colours)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    save_figure(figure, path)
