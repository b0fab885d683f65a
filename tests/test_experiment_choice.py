"""Which guidance, steps and checkpoint the validation set chooses."""

import math

import pandas as pd

from sgmse.experiments.scoring import rank_candidates


def candidate(N: int, pesq: dict[str, float], checkpoint: str = "last") -> pd.DataFrame:
    cost = {"guidance_scale": 1.0, "N": N, "checkpoint": checkpoint, "nfe": N, "passes": N, "seconds": 1, "audio_s": 1}
    return pd.DataFrame({"file": pesq.keys(), "pesq": pesq.values()}).assign(estoi=1, si_sdr=1, **cost)


def test_files_that_a_candidate_leaves_unscored_count_for_none():
    found = rank_candidates(pd.concat([candidate(1, {"a": 2.0, "b": math.nan}), candidate(3, {"a": 1.9, "b": 4.0})]))
    assert found[["N", "pesq", "files"]].to_numpy().tolist() == [[1, 2.0, 1], [3, 1.9, 1]]


def test_of_equal_candidates_the_cheaper_comes_first_then_the_checkpoint_that_validation_preferred():
    equal = [(3, "best_pesq"), (1, "last"), (1, "best_pesq")]
    found = rank_candidates(pd.concat([candidate(N, {"a": 2.0}, name) for N, name in equal]))
    assert list(zip(found["N"], found["checkpoint"], strict=True)) == [(1, "best_pesq"), (1, "last"), (3, "best_pesq")]
