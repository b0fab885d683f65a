"""The runner of experiments: what is done once, what is found again, what fails and what that stops; the tables."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from tiny_experiments import StandIn, plan, ready_sets, scale_file, work

from sgmse.common.errors import UserError
from sgmse.common.lock import hold
from sgmse.data import audio
from sgmse.enhancement.folder import enhance_folder
from sgmse.evaluation.metrics import si_sdr
from sgmse.experiments import results, scoring, training
from sgmse.experiments.plan import Plan, join_plan, read_plan
from sgmse.experiments.runner import Runner
from sgmse.experiments.scoring import COLUMNS, rank_candidates
from sgmse.experiments.work import list_cells, list_shares, read_record
from sgmse.training.interruption import Preempted

NO_PRODUCT = '{"cell": "c", "status": "done", "hash": "h", "started": "s", "product": [1]}'
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


def test_every_file_of_every_experiment_has_one_row_with_its_scores_and_the_noisy_files_one_in_all(whole):
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
    places = (folder / "sets/id/clean/000.wav", folder / "enhanced/ONE/seed0/id/000.wav")
    row = frame[(frame["experiment"] == "ONE") & (frame["file"] == "000")].iloc[0]
    assert row["si_sdr"] == pytest.approx(si_sdr(*(audio.read(place, 16000) for place in places)), abs=1e-6)


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


def test_a_metric_asked_for_later_needs_no_training_or_choice_and_takes_nothing_out_of_the_table(tmp_path, whole):
    shutil.copytree(whole[0], tmp_path / "run")
    cells, again = list_cells(whole[1], list_shares(whole[1])), StandIn()
    for chosen in ([c for c in cells if c.kind != "score" or c.name == "BASE"], cells):
        runner = Runner(replace(work(tmp_path / "run", whole[1], again), asked=("right_talker",)), patient=True)
        runner.run(chosen)
        frame = pd.read_csv(tmp_path / "run" / "results.csv")
        assert list(frame.columns) == [*COLUMNS, "right_talker"]
        assert set(frame["right_talker"].dropna()) <= {0, 0.5, 1}
        assert len(frame) == len(pd.read_csv(whole[0] / "results.csv"))
        scored = {"noisy", "BASE"} if len(chosen) < len(cells) else {*frame["experiment"]}
        assert {*frame["experiment"][frame["right_talker"].notna()]} == scored
    done = {key.partition("_")[0] for key, outcome in runner.outcomes.items() if outcome == "done"}
    assert (done, again.started) == ({"score"}, [])
    assert outcomes(run(tmp_path / "run", whole[1], again)) == {"there"}, "nobody asked this time"
    assert "right_talker" in pd.read_csv(tmp_path / "run" / "results.csv")


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


def test_another_choice_makes_the_scores_anew_and_says_so(tmp_path, whole, capsys, monkeypatch):
    folder, made, _ = whole
    copied = Path(shutil.copytree(folder, tmp_path / "run", symlinks=True))
    path = copied / "choices/THREE/seed0/choice.json"
    before = json.loads(path.read_text())
    path.unlink()
    monkeypatch.setattr(scoring, "rank_candidates", lambda rows: rank_candidates(rows)[::-1])  # the worst
    run(copied, made, StandIn())
    assert "score THREE, seed 0, id: what it rests on has changed" in capsys.readouterr().out
    after = json.loads(path.read_text())
    row = pd.read_csv(copied / "results.csv").set_index("experiment").loc["THREE"].iloc[0]
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


def test_a_set_that_changed_since_it_was_scored_is_refused(tmp_path, whole):
    folder, made, _ = whole
    copied = Path(shutil.copytree(folder, tmp_path / "run"))
    path = copied / "sets" / "id" / "noisy" / "000.wav"
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")
    with pytest.raises(UserError, match="is another test set than the one that was built or scored here"):
        run(copied, made, StandIn())


@pytest.mark.parametrize(
    ("column", "complaint"),
    [("config_hash", "other settings"), ("set_sha256", "different"), ("scale", "scale other"), ("leak", "column leak")],
)
def test_scores_that_belong_to_other_settings_or_to_no_table_are_refused(tmp_path, whole, column, complaint):
    folder, made, _ = whole
    copied = Path(shutil.copytree(folder, tmp_path / "run", symlinks=True))
    path = copied / "scores" / "ONE" / "seed0" / "id.csv"
    frame = pd.read_csv(path, dtype=str)
    frame = frame.drop(columns=column) if column == "leak" else frame.assign(**{column: "other"})
    frame.to_csv(path, index=False)
    with pytest.raises(UserError, match=complaint):
        results.collect(work(copied, made, StandIn()))


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


def test_a_set_is_compared_with_data_that_join_the_plan_later_and_scores_stay(tmp_path, whole):
    folder, made, _ = whole
    copied = Path(shutil.copytree(folder, tmp_path / "run", symlinks=True))
    path = copied / "state" / "set_id.json"
    record = json.loads(path.read_text())
    record["product"]["compared"] = []
    path.write_text(json.dumps(record))
    assert len(results.collect(work(copied, made, StandIn()))[0]) == 2 * 4
    again = run(copied, made, StandIn())
    assert [key for key, outcome in again.outcomes.items() if outcome == "done"] == ["set_id"]
    assert json.loads(path.read_text())["product"]["compared"]


def test_a_folder_of_experiments_grows_but_takes_no_other_settings(tmp_path):
    folder = tmp_path / "run"
    small = plan(tmp_path, conditioned=("ONE",))
    join_plan(folder, small)
    whole = join_plan(folder, plan(tmp_path, seeds=(1,), conditioned=("THREE",)))
    assert (set(whole.experiments), whole.seeds) == ({"BASE", "ONE", "THREE"}, [0, 1])
    assert whole.experiments_of(whole.training_of["ONE"]) == ["ONE", "THREE"]
    assert read_plan(folder) == whole
    with pytest.raises(UserError, match="holds results with another scale"):
        join_plan(folder, replace(small, scale="paper"))
    with pytest.raises(UserError, match="another config hash of the settings of ONE"):
        join_plan(folder, replace(small, steps=small.steps | {"ONE": [7]}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis.tex and is no folder of experiments"):
        join_plan(tmp_path / "other", small)
    for out in ("other/thesis.tex", "other/thesis.tex/run"):
        with pytest.raises(UserError, match=r"thesis\.tex.*cannot be written"):
            join_plan(tmp_path / out, small)


def test_speech_for_mixing_is_listed_once_also_after_a_stop_in_between(tmp_path, monkeypatch):
    made = plan(tmp_path)
    mixing = {name: replace(t, corpora=["voicebank", "demand"]) for name, t in made.trainings.items()}
    made = replace(made, trainings=mixing, data=replace(made.data, data_dir=str(tmp_path)))
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
    wandb = MagicMock()
    wandb.init.return_value.log_artifact.side_effect = None if works else ConnectionError("no way")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    results.send_to_wandb(work(tmp_path, plan(tmp_path), StandIn()))
    sent = [call.args[0] for call in wandb.Artifact.return_value.add_file.call_args_list]
    assert sent == [str(tmp_path / "results.csv"), str(tmp_path / "trainings.csv")]
    assert ("warning: W&B did not take the tables (ConnectionError: no way)" in capsys.readouterr().err) != works


@pytest.mark.parametrize("text", ["", "[1]", '{"cell": "c"}', b"\xff\xfe", NO_PRODUCT])
def test_a_cell_whose_record_is_damaged_was_never_begun(tmp_path, text):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "c.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_record(tmp_path, "c") is None


@pytest.mark.slow
def test_a_runner_killed_in_the_middle_of_a_training_goes_on_there(tmp_path):
    scale = scale_file(tmp_path)
    scale.write_text(
        scale.read_text().replace("max_steps: 2, val_every_n_steps: 1", "max_steps: 400, val_every_n_steps: 20")
    )
    where = ["--scale", scale, "--out", tmp_path / "run", "--test_sets", ready_sets(tmp_path / "ready")]
    words = ["BASE-00", *where, "--stage", "train", "--device", "cpu"]
    command = [sys.executable, "scripts/run_experiments.py", *map(str, words)]
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
