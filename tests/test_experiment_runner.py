"""The runner of experiments: what is done once, what is found again, what fails and what that stops; the tables."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_experiments import StandIn, plan, ready_sets, scale_file, work

from sgmse.common.errors import UserError
from sgmse.common.lock import hold
from sgmse.data import audio
from sgmse.enhancement.folder import enhance_folder
from sgmse.evaluation.metrics import si_sdr
from sgmse.experiments import results, scoring
from sgmse.experiments.plan import Plan, join_plan
from sgmse.experiments.runner import Runner
from sgmse.experiments.scoring import COLUMNS, rank_candidates
from sgmse.experiments.work import list_cells, list_shares, read_record
from sgmse.training.interruption import Preempted

ROOT = Path(__file__).parent.parent


def run(folder: Path, made: Plan, launch: StandIn, stage: str = "all") -> Runner:
    runner = Runner(work(folder, join_plan(folder, made), launch), patient=stage != "train")
    runner.run(list_cells(made, list_shares(made), stage))
    return runner


def outcomes(runner: Runner) -> set[str]:
    return set(runner.outcomes.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is complete: its folder, the plan, what was started."""
    folder = tmp_path_factory.mktemp("whole")
    made, launch = plan(folder), StandIn()
    runner = run(folder / "run", made, launch)
    assert outcomes(runner) == {"done"}, runner.failures
    return folder / "run", made, launch


def test_experiments_that_share_a_training_train_once(whole):
    _, made, launch = whole
    assert made.training_of["ONE"] == made.training_of["THREE"] != made.training_of["BASE"]
    assert [folder.parent.name for folder in launch.started] == [made.training_of["BASE"], made.training_of["ONE"]]


def test_every_file_of_every_experiment_has_one_row_and_the_noisy_files_one_in_all(whole):
    folder, made, _ = whole
    frame = pd.read_csv(folder / "results.csv", dtype={"file": str})
    assert list(frame.columns) == COLUMNS
    files = frame.groupby("experiment")["file"].apply(tuple)
    assert files.to_dict() == dict.fromkeys(["BASE", "ONE", "THREE", "noisy"], ("000", "001"))
    assert frame.loc[frame["experiment"] == "noisy", "seed"].isna().all()
    enhanced = frame[frame["system"] == "enhanced"]
    assert (enhanced["config_hash"] == enhanced["experiment"].map(made.config_hash)).all()
    assert set(enhanced["source"]) == {"pink_000", "pink_001"}
    assert not enhanced["smoke"].any()


def test_scores_are_those_of_the_sounds(whole):
    folder, _, _ = whole
    frame = pd.read_csv(folder / "results.csv", dtype={"file": str}).set_index(["experiment", "file"])
    clean, estimate = (
        audio.read(place / "000.wav", 16000) for place in (folder / "sets/id/clean", folder / "enhanced/ONE/seed0/id")
    )
    assert frame.loc[("ONE", "000"), "si_sdr"] == pytest.approx(si_sdr(clean, estimate), abs=1e-6)


def test_the_choice_is_the_best_of_validation_and_the_tests_are_enhanced_with_it(whole):
    folder, _, _ = whole
    chosen = json.loads((folder / "choices/THREE/seed0/choice.json").read_text())
    candidates = chosen.pop("candidates")
    assert len(candidates) == 2 * 2 * 2
    assert chosen["pesq"] == max(candidate["pesq"] for candidate in candidates)
    assert chosen.items() <= candidates[0].items()
    frame = pd.read_csv(folder / "results.csv")
    row = frame[frame["experiment"] == "THREE"].iloc[0]
    assert [row[name] for name in ("guidance_scale", "N", "checkpoint")] == list(chosen.values())[:3]


def test_trainings_are_told_with_their_size_and_their_minutes(whole):
    folder, made, _ = whole
    table = pd.read_csv(folder / "trainings.csv").set_index("training")
    assert list(table.reset_index().columns) == results.OF_TRAININGS
    row = table.loc[made.training_of["ONE"]]
    assert row["experiments"] == "ONE THREE"
    assert (row["steps"], row["minutes"], row["parameters_frozen"]) == (4, 1.5, 0)
    assert row["parameters_trained"] > table.loc[made.training_of["BASE"], "parameters_trained"]
    assert (folder / row["run_folder"] / "checkpoints" / "last.ckpt").is_file()


def test_a_complete_run_is_not_done_again(whole):
    folder, made, _ = whole
    again = StandIn()
    assert outcomes(run(folder, made, again)) == {"there"}
    assert again.started == []


def test_a_failed_cell_stops_only_what_rests_on_it_and_is_tried_again(tmp_path, capsys):
    made = plan(tmp_path)
    failing = run(tmp_path / "run", made, StandIn(fails=f"trainings/{made.training_of['ONE']}/seed0 --device"))
    states = failing.outcomes
    assert states["score_BASE_seed0_id"] == "done"
    assert states[f"train_{made.training_of['ONE']}_seed0"] == "failed"
    assert {states[key] for key in states if "ONE" in key or "THREE" in key} == {"skipped"}
    (failure,) = failing.failures
    log = tmp_path / "run" / "logs" / f"train_{made.training_of['ONE']}_seed0.log"
    assert failure.endswith(f"the moon is full; wait (exit code 2); log: {log}")
    assert "skipped, as is what rests on it, since this is not done: training" in capsys.readouterr().out
    mended = StandIn()
    assert outcomes(run(tmp_path / "run", made, mended)) == {"done", "there"}
    assert len(mended.started) == 1


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    made = plan(tmp_path, conditioned=("ONE",))

    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    def die(config, *_):
        if "enhanced/ONE" in config.enhanced_dir:
            raise Killed
        enhance_folder(config, *_)

    before = StandIn()
    monkeypatch.setattr(scoring, "enhance_folder", die)
    with pytest.raises(Killed):
        run(tmp_path / "run", made, before)
    assert read_record(tmp_path / "run", "score_ONE_seed0_id")["status"] == "running"
    monkeypatch.undo()
    after = StandIn()
    assert outcomes(run(tmp_path / "run", made, after)) == {"done", "there"}
    assert not {*before.started} & {*after.started}
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 2 * 3


def test_another_choice_makes_the_scores_anew_and_says_so(tmp_path, capsys, monkeypatch):
    made = plan(tmp_path)
    run(tmp_path / "run", made, StandIn())
    before = json.loads((tmp_path / "run/choices/THREE/seed0/choice.json").read_text())
    (tmp_path / "run/choices/THREE/seed0/choice.json").unlink()
    monkeypatch.setattr(scoring, "rank_candidates", lambda rows: rank_candidates(rows)[::-1])  # the worst
    run(tmp_path / "run", made, StandIn())
    assert "score THREE, seed 0, id: what it rests on has changed" in capsys.readouterr().out
    after = json.loads((tmp_path / "run/choices/THREE/seed0/choice.json").read_text())
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    row = frame[frame["experiment"] == "THREE"].iloc[0]
    assert [row[name] for name in ("guidance_scale", "N", "checkpoint")] == list(after.values())[:3]
    assert before["candidates"] == after["candidates"][::-1]


def test_what_was_done_with_other_settings_is_not_done(whole):
    folder, made, _ = whole
    other = work(folder, replace(made, steps=made.steps | {"ONE": [2]}), StandIn())
    planned = list_cells(other.plan, list_shares(made))
    assert {cell.name for cell in planned if not other.is_done(cell)} == {"ONE"}


def test_stages_divide_the_work_and_evaluation_waits_for_training(tmp_path):
    made = plan(tmp_path, conditioned=("ONE",))
    early = run(tmp_path / "run", made, StandIn(), "evaluate")
    assert {early.outcomes[f"choose_{name}_seed0"] for name in made.experiments} == {"skipped"}
    first, second = StandIn(), StandIn()
    run(tmp_path / "run", made, first, "train")
    assert len(first.started) == 2
    run(tmp_path / "run", made, second, "evaluate")
    assert second.started == []
    assert len(pd.read_csv(tmp_path / "run" / "results.csv")) == 2 * 3


def test_a_stop_ends_the_run_at_once_and_is_no_failure(tmp_path):
    class Stopped(StandIn):
        def __call__(self, command, log):
            raise Preempted

    with pytest.raises(Preempted):
        run(tmp_path / "run", plan(tmp_path), Stopped())
    statuses = {json.loads(path.read_text())["status"] for path in (tmp_path / "run/state").glob("train_*.json")}
    assert statuses == {"running"}


def test_a_set_that_changed_since_it_was_scored_is_refused(tmp_path):
    made = plan(tmp_path, conditioned=("ONE",))
    run(tmp_path / "run", made, StandIn())
    path = next((tmp_path / "ready" / "id" / "noisy").iterdir())
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")
    with pytest.raises(UserError, match="is another test set than the one that was built or scored here"):
        run(tmp_path / "run", made, StandIn())


def test_scores_of_other_settings_or_another_set_are_refused_in_one_table(tmp_path):
    made = plan(tmp_path, conditioned=("ONE",))
    runner = run(tmp_path / "run", made, StandIn())
    path = tmp_path / "run" / "scores" / "ONE" / "seed0" / "id.csv"
    kept = path.read_text()
    for column in ("config_hash", "set_sha256", "scale"):
        frame = pd.read_csv(path, dtype=str)
        frame[column] = "other"
        frame.to_csv(path, index=False)
        with pytest.raises(UserError, match=f"was made with {column} other"):
            results.collect(runner.work)
        path.write_text(kept)


def test_two_processes_never_train_the_same(tmp_path, capsys):
    made = plan(tmp_path)
    name, launch = made.training_of["ONE"], StandIn()
    with hold(tmp_path / "run" / "state" / f"train_{name}_seed0.lease"):
        runner = run(tmp_path / "run", made, launch, "train")
    assert runner.outcomes[f"train_{name}_seed0"] == "elsewhere"
    assert [folder.parent.name for folder in launch.started] == [made.training_of["BASE"]]
    assert f"process {os.getpid()} on" in capsys.readouterr().out
    assert run(tmp_path / "run", made, StandIn(), "train").outcomes[f"train_{name}_seed0"] == "done"


def test_who_waited_for_another_process_finds_its_work_done(tmp_path, capsys):
    made = plan(tmp_path)
    join_plan(tmp_path / "run", made)
    name, launch, other = made.training_of["BASE"], StandIn(), StandIn()

    class Slow(StandIn):
        """Trains while another runner waits for it."""

        def __call__(self, command, log):
            waiting.start()
            while "waiting" not in capsys.readouterr().out:
                time.sleep(0.05)
            other(command, log)

    second = Runner(work(tmp_path / "run", made, launch), patient=True)
    waiting = threading.Thread(target=second.run, args=[list_cells(made, [(name, 0)], "train")])
    Runner(work(tmp_path / "run", made, Slow()), patient=True).run(list_cells(made, [(name, 0)], "train"))
    waiting.join()
    assert (outcomes(second), launch.started, len(other.started)) == ({"there"}, [], 1)


def test_a_set_is_compared_with_data_that_join_the_plan_later_and_scores_stay(tmp_path, capsys):
    made = plan(tmp_path, conditioned=("ONE",))
    runner = run(tmp_path / "run", made, StandIn())
    path = tmp_path / "run" / "state" / "set_id.json"
    record = json.loads(path.read_text())
    record["product"]["compared"] = []
    path.write_text(json.dumps(record))
    assert len(results.collect(runner.work)[0]) == 2 * 3
    again = run(tmp_path / "run", made, StandIn())
    assert [key for key, outcome in again.outcomes.items() if outcome == "done"] == ["set_id"]
    assert json.loads(path.read_text())["product"]["compared"]


@pytest.mark.slow
def test_a_runner_killed_in_the_middle_of_a_training_goes_on_there(tmp_path):
    scale = scale_file(tmp_path)
    scale.write_text(
        scale.read_text().replace("max_steps: 2, val_every_n_steps: 1", "max_steps: 400, val_every_n_steps: 20")
    )
    command = [
        sys.executable,
        "scripts/run_experiments.py",
        "BASE-00",
        "--scale",
        str(scale),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--test_sets", str(ready_sets(tmp_path / "ready")), "--stage", "train", "--device", "cpu"]
    with subprocess.Popen(command, cwd=ROOT) as runner:
        while not list((tmp_path / "run").glob("trainings/*/seed0/checkpoints/last.ckpt")):
            assert runner.poll() is None
            time.sleep(0.1)
        runner.kill()
    subprocess.run(command, cwd=ROOT, check=True)
    table = pd.read_csv(tmp_path / "run" / "trainings.csv")
    assert table["steps"].tolist() == [400]
    steps = pd.read_csv(next((tmp_path / "run").glob("trainings/*/seed0/validation.csv")))["step"]
    assert steps.is_monotonic_increasing
    assert "$ python" in (next((tmp_path / "run" / "logs").glob("train_*.log"))).read_text()
