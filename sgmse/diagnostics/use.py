"""Enhances a test set under every reference protocol, with model and baseline, and keeps a row per file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data.references.leak import Leak
from sgmse.data.testsets.build import MANIFEST
from sgmse.diagnostics.differences import BASELINE, NOISY
from sgmse.diagnostics.items import manifest_rows
from sgmse.diagnostics.subjects import Subject
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.old.protocols import Protocol, SetReferences
from sgmse.enhancement.old.settings import Cell
from sgmse.enhancement.sweep_groups import Group, at_metric_rate, encode_references, enhance, grouped
from sgmse.enhancement.sweep_scoring import Score
from sgmse.evaluation import metrics
from sgmse.evaluation.kept import SCORES, Kept, Table
from sgmse.settings.checks import check_sampler

KEY = ["checkpoint", "system"]
COLUMNS = [*KEY, "seed", "file", "kind", "source", "snr_db", "pesq", "estoi", "si_sdr", "reason"]
COLUMNS += ["leak", "leak_shared", "nfe", "passes", "guidance_scale", "N"]
_TYPES = {"seed": "Int64", "snr_db": "float", **SCORES, "leak": "float", "leak_shared": "boolean"}
_TYPES |= {"nfe": "int", "passes": "int", "guidance_scale": "float", "N": "int"}
USE = Table("scores", KEY, COLUMNS, _TYPES)
_NO_LEAK = {"leak": None, "leak_shared": None}


@dataclass(frozen=True)
class Cost:
    """Of a group: evaluations that the sampler asked for, network passes per file."""

    nfe: int
    passes: int


@dataclass(frozen=True)
class Use:
    """What all rows share.

    Args:
        num_steps: of the samplers; None: as stored in each checkpoint.
        facts: kind, source and snr_db of each file, from the manifest; a file of unknown source is its own.
    """

    references: SetReferences
    num_steps: int | None
    guidance_scale: float
    batch_size: int
    seed: int
    jobs: int
    device: torch.device
    facts: dict[str, dict[str, Any]]

    def run(self, models: Sequence[Subject], baselines: Sequence[Subject], kept: Kept, score: Score) -> None:
        """Enhance and score what is not there yet: the noisy files, each model under each protocol, each baseline."""
        protocols = self.references.runnable
        left = {
            subject.path: [p for p in protocols if not kept.has((subject.model.checkpoint_sha256, p))]
            for subject in models
        }
        bare = [subject for subject in baselines if not kept.has((subject.model.checkpoint_sha256, BASELINE))]
        noisy_left = not kept.has(("", NOISY))
        total = sum(map(len, left.values())) + len(bare) + noisy_left
        with tqdm(total=total, desc="systems", unit="system", disable=None) as progress:
            for subject in models:
                if left[subject.path] or noisy_left:
                    groups = self._groups(subject)
                    if noisy_left:
                        kept.add(self._noisy_rows(subject, groups, score))
                        noisy_left = False
                        progress.update()
                    for protocol in left[subject.path]:
                        kept.add(self._protocol_rows(subject, groups, protocol, kept, score))
                        progress.update()
                    subject.model.cpu()
            for subject in bare:
                kept.add(self._baseline_rows(subject, score))
                progress.update()
                subject.model.cpu()

    def sampler(self, subject: Subject) -> SamplerSettings:
        """How a checkpoint samples. Raises `UserError` where it cannot do so many steps."""
        model = subject.model
        settings = model.sampler if self.num_steps is None else replace(model.sampler, N=self.num_steps)
        check_sampler(settings, model.objective.name)
        return settings

    def _groups(self, subject: Subject) -> list[Group]:
        return grouped(subject.model.to(self.device), self.references.files, self.batch_size)

    def _noisy_rows(self, subject: Subject, groups: list[Group], score: Score) -> list[dict[str, Any]]:
        estimates = [at_metric_rate(subject.model, group, group.noisy) for group in groups]
        told = {"checkpoint": "", "system": NOISY, "seed": None, "guidance_scale": 1.0, "N": 0}
        return self._rows(told, groups, estimates, [Cost(0, 0)] * len(groups), score)

    def _baseline_rows(self, subject: Subject, score: Score) -> list[dict[str, Any]]:
        groups = self._groups(subject)
        estimates, costs = self._enhanced(subject, groups, 1.0)
        return self._rows(self._told(subject, BASELINE, 1.0), groups, estimates, costs, score)

    def _protocol_rows(
        self, subject: Subject, groups: list[Group], protocol: Protocol, kept: Kept, score: Score
    ) -> list[dict[str, Any]]:
        """Rows of the files that have a reference under this protocol."""
        model, names = subject.model, self.references.files.names
        rate = model.settings["sample_rate"]
        found = {name: self.references.reference(protocol, place, rate) for place, name in enumerate(names)}
        groups = [
            replace(group, reference=encode_references(model, group.reference.peak, [found[n] for n in group.names]))
            for group in groups
        ]
        is_null: dict[str, bool] = {}
        for group in groups:
            is_null |= zip(group.names, group.reference.is_null.tolist(), strict=True)
        silent = sum(is_null[name] and found[name] is not None for name in names)
        if silent:
            tqdm.write(f"{protocol}: {silent} files have a silent reference and are left out")
        has_one = {name for name in names if protocol == "null" or not is_null[name]}
        scale = 0.0 if protocol == "null" else self.guidance_scale
        estimates, costs = self._enhanced(subject, groups, scale)
        rows = self._rows(self._told(subject, protocol, scale), groups, estimates, costs, score, has_one)
        leaks = self._leaks(protocol, kept, rate)
        return [row | leaks.get(row["file"], _NO_LEAK) for row in rows]

    def _leaks(self, protocol: Protocol, kept: Kept, rate: int) -> dict[str, dict[str, Any]]:
        """leak and leak_shared of each file; another seed of the model has the same references."""
        before = kept.frame[kept.frame["system"] == protocol]
        if len(before):
            columns = (before[name].tolist() for name in ("file", "leak", "leak_shared"))
            return {name: {"leak": peak, "leak_shared": shared} for name, peak, shared in zip(*columns, strict=True)}
        found: list[Leak | None] = self.references.leaks(protocol, rate, self.jobs)
        return {
            name: {"leak": round(one.peak, 4), "leak_shared": one.shared}
            for name, one in zip(self.references.files.names, found, strict=True)
            if one is not None
        }

    def _enhanced(
        self, subject: Subject, groups: list[Group], scale: float
    ) -> tuple[list[list[np.ndarray]], list[Cost]]:
        """Each group's waveforms at the rate of the metrics, and what they cost. Every system draws the same noise."""
        model, cell = subject.model, Cell(self.sampler(subject), scale)
        estimates, costs = [], []
        for group in groups:
            done = enhance(model, group, cell, model.t_eps, self.seed, "32")
            estimates.append(at_metric_rate(model, group, done.waveform))
            costs.append(Cost(done.nfe, done.passes))
        return estimates, costs

    def _told(self, subject: Subject, system: str, scale: float) -> dict[str, Any]:
        told = {"checkpoint": subject.model.checkpoint_sha256, "system": system, "seed": subject.seed}
        return told | {"guidance_scale": scale, "N": self.sampler(subject).N}

    def _rows(
        self,
        told: dict[str, Any],
        groups: list[Group],
        estimates: list[list[np.ndarray]],
        costs: list[Cost],
        score: Score,
        only: set[str] | None = None,
    ) -> list[dict[str, Any]]:
        """A row per file, of those in `only` if that is given."""
        waveforms = [waveform for some in estimates for waveform in some]
        clean = [waveform for group in groups for waveform in group.clean]
        named = [(name, cost) for group, cost in zip(groups, costs, strict=True) for name in group.names]
        chosen = [place for place, (name, _) in enumerate(named) if only is None or name in only]
        scores = score([clean[place] for place in chosen], [waveforms[place] for place in chosen])
        rows = []
        for place, found in zip(chosen, scores, strict=True):
            name, cost = named[place]
            row = told | {"file": name, **self.facts[name], **asdict(cost), **_NO_LEAK}
            rows.append(row | {column: found[column] for column in (*metrics.MAIN, "reason")})
        return rows


def select_scores(frame: pd.DataFrame, subjects: Sequence[Subject]) -> pd.DataFrame:
    """The rows of these checkpoints and of the noisy files, with the seeds that the checkpoints have by now."""
    seeds = {subject.model.checkpoint_sha256: subject.seed for subject in subjects}
    rows = frame[frame["checkpoint"].isin({"", *seeds})]
    return rows.assign(seed=rows["checkpoint"].map(seeds).astype("Int64"))


def describe_refused(references: SetReferences, has_baseline: bool) -> list[str]:
    """Which protocols do not run, or not for every file, and why."""
    lines = [f"{protocol} does not run: {reason}" for protocol, reason in references.refused.items()]
    for protocol, paths in references.given.items():
        lacking = sum(path is None for path in paths)
        if lacking and protocol not in references.refused:
            lines.append(f"{protocol} runs for {len(paths) - lacking} of {len(paths)} files, the others have no match")
    return lines if has_baseline else [*lines, "no baseline runs: name one with --baseline"]


def facts(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """kind, source and snr_db of each file, from the manifest of its set; a file of unknown source is its own."""
    found = {}
    for name, row in zip(names, manifest_rows(folder, names), strict=True):
        try:
            snr_db = float(row.get("snr_db") or "nan")
        except ValueError:
            snr_db = math.inf
        if math.isinf(snr_db):
            raise UserError(f"{folder / MANIFEST}: snr_db of {name} is {row['snr_db']}, no number; correct it")
        source = row.get("source") or row.get("noise") or name
        found[name] = {"kind": row.get("kind") or "", "source": source, "snr_db": snr_db}
    return found
