"""Scores of waveforms in processes that live as long as the sweep."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import repeat

import numpy as np

from sgmse.common.errors import UserError
from sgmse.evaluation import metrics
from sgmse.evaluation.metrics import Scores

Score = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Scores]]


@contextmanager
def scorer(processes: int) -> Iterator[Score]:
    """A function from clean and estimated waveforms [N] to their scores, computed by so many processes."""
    if processes == 1:
        yield lambda clean, estimates: list(map(metrics.score, clean, estimates, repeat(metrics.SAMPLE_RATE)))
        return
    # forking a process that holds threads or a CUDA context may hang
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:

        def score(clean: Sequence[np.ndarray], estimates: Sequence[np.ndarray]) -> list[Scores]:
            try:
                return list(pool.map(metrics.score, clean, estimates, repeat(metrics.SAMPLE_RATE)))
            except BrokenProcessPool:
                raise UserError("a scoring process died, maybe for lack of memory; try again with --jobs 1") from None

        yield score
