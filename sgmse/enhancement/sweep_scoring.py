"""Scores of waveforms in processes that live as long as the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from sgmse.common.workers import Workers
from sgmse.evaluation import metrics
from sgmse.evaluation.scores import crashed_row

Row = dict[str, float | str]
Score = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Row]]


@contextmanager
def scorer(processes: int) -> Iterator[Score]:
    """A function from clean and estimated waveforms [N] to their scores, computed by so many processes."""
    with Workers(processes) as workers:
        yield lambda clean, estimates: list(
            workers.map(_score_pair, list(zip(clean, estimates, strict=True)), crashed_row)
        )


def _score_pair(pair: tuple[np.ndarray, np.ndarray]) -> Row:
    """Runs in a worker process."""
    return metrics.score(*pair, metrics.SAMPLE_RATE)
