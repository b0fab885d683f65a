"""The command that runs experiments, and the processes that it starts."""

import os
import signal
import threading
import time
from functools import cache

import pandas as pd
import pytest
from commands import call, refusal
from small_corpora import save
from tiny_experiments import StandIn, ready_sets, scale_file

from sgmse.commands import experiments as run_experiments
from sgmse.experiments.training import Failed, Launcher
from sgmse.training.interruption import Preempted


@pytest.fixture(scope="module", autouse=True)
def _one_catalogue():
    """Reading it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_experiments, "load_experiments", cache(run_experiments.load_experiments))
        yield


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Flags of a run in moments, whose commands are stand-ins."""
    started = StandIn()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *arguments: started(*arguments))
    sets = ready_sets(tmp_path / "ready")
    flags = ["--scale", scale_file(tmp_path), "--out", tmp_path / "run", "--test_sets", sets, "--jobs", 1]
    return [*flags, "--device", "cpu"], started


def test_the_list_gives_every_id_with_its_hypothesis(capsys):
    lines = call(run_experiments.main, capsys, "--list").splitlines()
    assert any(line.startswith("CFG-01 ") and len(line) > 40 for line in lines)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path, tiny, capsys):
    flags, started = tiny
    said = call(run_experiments.main, capsys, "CFG-01", "CFG-02", *flags, "--seeds", 0, 1, "--dry-run")
    assert "shares: 6, each a training and its experiments (--shard K/6)" in said
    assert "CFG-01 CFG-02" in said, "they share a training"
    assert started.started == []
    assert not (tmp_path / "run").exists()


def test_a_run_ends_with_tables_criteria_and_the_command_for_the_page(tmp_path, tiny, capsys, monkeypatch):
    flags, started = tiny
    said = call(run_experiments.main, capsys, "XAttn-03", *flags)
    assert "next: python scripts/report.py" in said
    assert "verdict" in said
    assert len(started.started) == 2
    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert {"noisy", "BASE-00", "XAttn-03"} == set(frame["experiment"])
    # a complete run is found done in a folder that is read-only by now
    monkeypatch.setattr("sgmse.common.lock.os.access", lambda *_, **__: False)
    monkeypatch.setattr("sgmse.common.files.temporary_file", None)
    again = call(run_experiments.main, capsys, "XAttn-03", *flags)
    assert again[again.index("verdict") :] == said[said.index("verdict") :]
    assert len(started.started) == 2


def test_shares_together_are_the_whole(tmp_path, tiny, capsys):
    flags, started = tiny
    for share in ("2/2", "1/2"):
        call(run_experiments.main, capsys, "CFG-00", *flags, "--stage", "train", "--shard", share)
    assert len(started.started) == 2
    assert len(pd.read_csv(tmp_path / "run" / "trainings.csv")) == 2
    said = call(run_experiments.main, capsys, "CFG-00", *flags, "--stage", "evaluate", "--shard", "1/2")
    assert "failed" not in said


def test_a_failure_ends_with_another_exit_code(tiny, capsys):
    flags, started = tiny
    started.fails = "--seed 0"
    with pytest.raises(SystemExit) as stop:
        call(run_experiments.main, capsys, "BASE-00", *flags)
    assert stop.value.code == 1
    assert "the moon is full; wait" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["CFG-1"], "CFG-1: no such experiment; did you mean CFG-01?"),
        (["CFG-01", "--scale", "mni"], "--scale mni"),
        (["CFG-01", "--seeds", "-1"], "seeds"),
        (["CFG-01", "--shard", "0/3"], "--shard 0/3"),
        (["CFG-01", "--shard", "1/7"], "--shard 1/7: this plan has 3 shares"),
        (["CFG-01", "--speech_dir", "x"], "--noise_dir"),
        (["CLAP-01"], "scripts/fetch_encoder.py clap"),
        (["CFG-01", "--data_dir", "nowhere"], "scripts/prepare.py voicebank --out nowhere/voicebank"),
        (["CFG-01", "--jobs", "0"], "--jobs 0"),
        (["CFG-01", "--dry"], "--dry"),
        (["CFG-01", "--test_sets", "nowhere"], "--test_sets nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_before_any_work(tmp_path, tiny, capsys, monkeypatch, arguments, culprit):
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path))
    flags, started = tiny
    if "--data_dir" in arguments:
        flags = [flag for flag in flags if flag not in ("--test_sets", tmp_path / "ready")]
    assert culprit in refusal(run_experiments.main, capsys, *flags, *arguments)
    assert started.started == []
    assert not (tmp_path / "run").exists()


def test_empty_folders_and_a_full_disk_are_refused_before_any_work(tmp_path, tiny, capsys, monkeypatch):
    flags, _ = tiny
    for kind in ("speech", "noise"):
        save(tmp_path / kind / "train" / "a.wav", 2.0)
    (tmp_path / "noise" / "valid").mkdir()
    folders = ["--speech_dir", tmp_path / "speech", "--noise_dir", tmp_path / "noise"]
    said = refusal(run_experiments.main, capsys, "CFG-00", *flags, *folders)
    assert "no speech for the split 'valid'" in said
    usage = os.statvfs(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000, "total": usage.f_blocks})())
    assert "its disk has 1.00kB free" in refusal(run_experiments.main, capsys, "CFG-00", *flags)


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> list[str]:
        path = tmp_path / "command.py"
        path.write_text(text)
        return [str(path)]

    return write


def test_a_process_leaves_its_lines_but_not_its_progress_in_the_log(tmp_path, script):
    log = tmp_path / "cell.log"
    command = script(r"print('one'); print('10%\r20%\r', end=''); print('two')")
    Launcher()(command, log)
    lines = log.read_text().splitlines()
    assert lines[0] == f"$ python {command[0]}"
    assert lines[1:] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit('error: no such file; check it')", "error: no such file"),
        ("import sys; print('error: no; do'); print('bye'); sys.exit(2)", r"no; do \(exit code 2\)"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(exit code 1\)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL, maybe for lack of memory"),
    ],
)
def test_a_process_that_fails_is_told_by_its_last_words(tmp_path, script, text, words):
    with pytest.raises(Failed, match=words):
        Launcher()(script(text), tmp_path / "cell.log")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_runner_lets_the_training_save_itself(tmp_path, script, number):
    command = script(
        "import signal, sys, time\n"
        "def save(*_):\n    print('saved', flush=True)\n    sys.exit(85)\n"
        "signal.signal(signal.SIGUSR1, save)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    log = tmp_path / "cell.log"

    def send() -> None:
        while not log.is_file() or "ready" not in log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    launcher = Launcher()
    with launcher.handling_signals(), pytest.raises(Preempted):
        launcher(command, log)
    assert log.read_text().endswith("saved\n")


def test_a_signal_between_trainings_stops_at_once():
    with Launcher().handling_signals(), pytest.raises(Preempted):
        signal.raise_signal(signal.SIGUSR1)
