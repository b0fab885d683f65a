"""From rows of scores to what is printed: the verdict, its tables, and what a reader must know beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sgmse.diagnostics import differences, subjects, verdict
from sgmse.diagnostics.differences import Differences
from sgmse.diagnostics.subjects import Subject
from sgmse.diagnostics.verdict import Verdict
from sgmse.enhancement.protocols import SetReferences


@dataclass(frozen=True)
class Examination:
    """What was found.

    Args:
        frame: all rows. counted: those that enter differences.
        remarks: sentences without a full stop.
    """

    frame: pd.DataFrame
    counted: pd.DataFrame
    differences: Differences
    verdict: Verdict
    remarks: list[str]

    def text(self, title: str) -> str:
        """The verdict, remarks and tables in Markdown, aligned so that they can be printed."""
        found = self.differences
        lines = [
            verdict.largest_move(found),
            verdict.beyond_the_mixture(found),
            verdict.leak_share(found),
            *self.remarks,
        ]
        parts = [f"# {title}", f"**{self.verdict.word}**: {self.verdict.reason}."]
        parts += ["\n".join(f"- {line}." for line in lines)]
        parts += ["## Means", differences.means_table(differences.means(self.frame))]
        if self.differences:
            parts += ["## Paired differences", differences.differences_table(self.differences)]
            for name, groups in differences.groups(self.counted).items():
                parts += [f"## By {name}", differences.group_table(name, groups)]
        return "\n\n".join(part.rstrip() for part in parts) + "\n"


def examined(
    frame: pd.DataFrame,
    references: SetReferences,
    models: Sequence[Subject],
    bare: Sequence[Subject],
    num_steps: int | None,
) -> Examination:
    """The verdict on the rows of these models and baselines; those of others are left aside."""
    seeds = {subject.model.checkpoint_sha256: subject.seed for subject in (*models, *bare)}
    frame = frame[frame["checkpoint"].isin({"", *seeds})]
    frame = frame.assign(seed=frame["checkpoint"].map(seeds).astype("Int64"))
    leaking = differences.leaking(frame)
    counted = frame[~frame["file"].isin(leaking)]
    found = differences.of(counted)
    unlike = subjects.differences_of(models[0], bare[0], num_steps) if bare else []
    remarks = not_run(references, bool(bare)) + _of_training(models[0], bare, unlike) + _of_rows(frame, leaking)
    return Examination(frame, counted, found, verdict.judge(found, unlike), remarks)


def not_run(references: SetReferences, has_baseline: bool) -> list[str]:
    """Which protocols do not run, or not for every file, and why."""
    lines = [f"{protocol} does not run: {reason}" for protocol, reason in references.refused.items()]
    for protocol, paths in references.given.items():
        alone = sum(path is None for path in paths)
        if alone and protocol not in references.refused:
            lines.append(f"{protocol} runs for {len(paths) - alone} of {len(paths)} files, the others have no match")
    return lines if has_baseline else [*lines, "no baseline runs: name one with --baseline"]


def _of_training(model: Subject, bare: Sequence[Subject], unlike: Sequence[str]) -> list[str]:
    if not bare:
        return []
    known = {"baseline": bare[0], "this model": model}
    steps = [f"{what} {subject.steps} steps" for what, subject in known.items() if subject.steps is not None]
    lines = [f"training: {', '.join(steps)}"] if steps else []
    if unlike:
        lines.append(f"the baseline differs in more than the reference: {'; '.join(unlike)}")
    lines += [
        f"{subject.path}: no config.yaml of its run, so whether both were trained alike is not known"
        for subject in known.values()
        if not subject.has_run
    ]
    return lines


def _of_rows(frame: pd.DataFrame, leaking: Sequence[str]) -> list[str]:
    lines = []
    scored = frame[frame["leak"].notna()].drop_duplicates(["system", "file"])
    if len(scored):
        shared = scored.groupby("system", sort=False)["leak_shared"].agg(["sum", "count"])
        counts = [f"{system} {int(row['sum'])} of {int(row['count'])}" for system, row in shared.iterrows()]
        lines.append(f"references that share samples with their mixture: {', '.join(counts)}")
    if leaking:
        lines.append(f"{len(leaking)} files whose matched reference leaks count in no difference, first {leaking[0]}")
    missing = int(frame["pesq"].isna().sum())
    if missing:
        lines.append(f"{missing} rows have no PESQ, the column reason of scores.csv says why")
    return lines
