"""What the runner of experiments keeps and makes of it: plan.json, locks, choices, minutes, tables for W&B."""

import dataclasses
import math
import sys
import types

import pandas as pd
import pytest
from tiny_experiments import StandIn, plan, work

from sgmse.common.errors import UserError
from sgmse.experiments import results, training
from sgmse.experiments.plan import join_plan, read_plan
from sgmse.experiments.scoring import rank_candidates


def rows(N: int, pesq: dict[str, float], checkpoint: str = "last") -> list[dict[str, object]]:
    common = {
        "guidance_scale": 1.0,
        "N": N,
        "checkpoint": checkpoint,
        "nfe": N,
        "passes": N,
        "seconds": 1,
        "audio_s": 1,
    }
    return [{**common, "file": file, "pesq": value, "estoi": 1, "si_sdr": 1} for file, value in pesq.items()]


def test_files_that_a_candidate_leaves_unscored_count_for_none():
    table = pd.DataFrame([*rows(1, {"a": 2.0, "b": math.nan}), *rows(3, {"a": 1.9, "b": 4.0})])
    found = rank_candidates(table)
    assert found[["N", "pesq", "files"]].to_numpy().tolist() == [[1, 2.0, 1], [3, 1.9, 1]]


def test_of_equal_candidates_the_cheaper_comes_first_then_the_checkpoint_that_validation_preferred():
    equal = [(3, "best_pesq"), (1, "last"), (1, "best_pesq")]
    found = rank_candidates(pd.DataFrame([row for N, name in equal for row in rows(N, {"a": 2.0}, name)]))
    assert list(zip(found["N"], found["checkpoint"], strict=True)) == [(1, "best_pesq"), (1, "last"), (3, "best_pesq")]


def test_a_folder_of_experiments_grows_but_takes_no_other_settings(tmp_path):
    folder = tmp_path / "run"
    small = plan(tmp_path, conditioned=("ONE",))
    join_plan(folder, small)
    whole = join_plan(folder, plan(tmp_path, seeds=(1,), conditioned=("THREE",)))
    assert (set(whole.experiments), whole.seeds) == ({"BASE", "ONE", "THREE"}, [0, 1])
    assert whole.experiments_of(whole.training_of["ONE"]) == ["ONE", "THREE"]
    assert read_plan(folder) == whole
    with pytest.raises(UserError, match="holds results with another scale"):
        join_plan(folder, dataclasses.replace(small, scale="paper"))
    with pytest.raises(UserError, match="another config hash of the settings of ONE"):
        join_plan(folder, dataclasses.replace(small, steps=small.steps | {"ONE": [7]}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis.tex and is no folder of experiments"):
        join_plan(tmp_path / "other", small)


def test_speech_for_mixing_is_listed_once_also_after_a_stop_in_between(tmp_path, monkeypatch):
    made = plan(tmp_path)
    mixing = {name: dataclasses.replace(t, corpora=["voicebank", "demand"]) for name, t in made.trainings.items()}
    made = dataclasses.replace(made, trainings=mixing, data=dataclasses.replace(made.data, data_dir=str(tmp_path)))
    listed = []
    monkeypatch.setattr(training, "write_speech", lambda voicebank, out: listed.append((voicebank, out)))
    out = tmp_path / "run" / "speech"
    out.mkdir(parents=True)
    training.prepare_speech(work(tmp_path / "run", made, StandIn()))
    assert listed == [(tmp_path / "voicebank", out)]
    (out / "manifest.csv").touch()
    training.prepare_speech(work(tmp_path / "run", made, StandIn()))
    assert len(listed) == 1


@pytest.mark.parametrize("works", [True, False])
def test_the_tables_go_to_wandb_and_stay_on_disk_whatever_it_does(tmp_path, capsys, monkeypatch, works):
    class Artifact(list):
        def __init__(self, name, type):
            sent.append(self)

        add_file = list.append

    class Run:
        def log_artifact(self, artifact):
            if not works:
                raise ConnectionError("no way")

        def finish(self):
            pass

    sent: list[Artifact] = []
    fake = types.SimpleNamespace(init=lambda **settings: Run(), Artifact=Artifact)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    results.send_to_wandb(work(tmp_path, plan(tmp_path), StandIn()))
    assert sent == [[str(tmp_path / "results.csv"), str(tmp_path / "trainings.csv")]]
    assert ("warning: W&B did not take the tables (ConnectionError: no way)" in capsys.readouterr().err) != works
