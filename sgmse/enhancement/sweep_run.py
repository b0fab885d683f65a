"""A sweep from cell to cell: enhance, score, keep; what is done already with the same settings is not done again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from sgmse.enhancement.acceleration import Precision
from sgmse.enhancement.old.settings import Cell, Key
from sgmse.enhancement.sweep_groups import Group, at_metric_rate, enhance
from sgmse.enhancement.sweep_scoring import Score
from sgmse.evaluation import metrics
from sgmse.evaluation.kept import KEY, Kept
from sgmse.model.enhancer import Enhancer

NOISY: Key = ("noisy", 0, 1.0, "none")

Waveforms = list[np.ndarray]


class Cost(NamedTuple):
    """Of one group: seconds, evaluations that the sampler asked for, network passes per file."""

    seconds: float
    nfe: int
    passes: int


@dataclass(frozen=True)
class Sweep:
    """What all cells share."""

    model: Enhancer
    groups: list[Group]
    t_eps: float
    seed: int
    precision: Precision

    def run(self, cells: Sequence[Cell], kept: Kept, score: Score) -> None:
        """Enhance and score the cells that are not there yet; the noisy files first of all."""
        left = [cell for cell in cells if not kept.has(cell.key)]
        if not kept.has(NOISY):
            estimates = [at_metric_rate(self.model, group, group.noisy) for group in self.groups]
            kept.add(self._rows(NOISY, estimates, [Cost(0.0, 0, 0)] * len(self.groups), score))
        if left:  # what the first call costs (memory, kernels, compiling) must not be charged to a cell
            enhance(self.model, self.groups[0], left[0], self.t_eps, self.seed, self.precision)
        for cell in tqdm(left, desc="cells", unit="cell", disable=None):
            kept.add(self._cell(cell, score))

    def _cell(self, cell: Cell, score: Score) -> list[dict[str, Any]]:
        estimates, costs = [], []
        for group in self.groups:
            start = self._now()
            result = enhance(self.model, group, cell, self.t_eps, self.seed, self.precision)
            costs.append(Cost(self._now() - start, result.nfe, result.passes))
            estimates.append(at_metric_rate(self.model, group, result.waveform))
        return self._rows(cell.key, estimates, costs, score)

    def _rows(self, key: Key, estimates: list[Waveforms], costs: list[Cost], score: Score) -> list[dict[str, Any]]:
        """A row per file; the seconds of a group are shared among its files by their length."""
        clean = [waveform for group in self.groups for waveform in group.clean]
        scores = iter(score(clean, [waveform for some in estimates for waveform in some]))
        rows = []
        for group, cost in zip(self.groups, costs, strict=True):
            audio_s = float(group.length.sum()) / self.model.settings["sample_rate"]
            for name, share in zip(group.names, (group.length / group.length.sum()).tolist(), strict=True):
                found = next(scores)
                row = {**dict(zip(KEY, key, strict=True)), "file": name, "nfe": cost.nfe, "passes": cost.passes}
                row |= {"audio_s": round(share * audio_s, 4), "seconds": round(share * cost.seconds, 5)}
                rows.append(row | {column: found[column] for column in (*metrics.MAIN, "reason")})
        return rows

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
