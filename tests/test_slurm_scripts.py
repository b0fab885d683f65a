"""The SLURM scripts with stand-ins for sbatch, sinfo, srun and scontrol; tests/slurm runs them on a real cluster."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts" / "slurm"
SBATCH = """n=$(($(cat "$HOME/n" 2>/dev/null || echo 0) + 1)); echo $n >"$HOME/n"
[ "$n" = "$FAIL_AT" ] && echo "sbatch: error: Invalid account" >&2 && exit 1
echo "$@" >>"$HOME/submitted"; echo "$n"
"""


@dataclass(frozen=True)
class Place:
    """A repository with a space in its name, and a PATH on which nothing but stand-ins and the shell's tools lie."""

    root: Path
    home: Path

    def replace(self, name: str, text: str, folder: str = "home/bin") -> None:
        """A command that is this shell script."""
        path = self.root.parent / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)

    def start(self, command: Sequence[object], **variables: str) -> subprocess.Popen[str]:
        environment = {"PATH": f"{self.home / 'bin'}:/usr/bin:/bin", "HOME": str(self.home), **variables}
        return subprocess.Popen(
            ["/bin/bash", *map(str, command)],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *command: object, **variables: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a script."""
        process = self.start(command, **variables)
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err

    def told(self, name: str) -> list[str]:
        """The lines that a stand-in wrote."""
        path = self.home / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "re po"
    (root / "scripts").mkdir(parents=True)
    (root / "scripts" / "slurm").symlink_to(SCRIPTS)
    (root / "train.py").touch()
    where = Place(root, tmp_path / "home")
    where.replace("sbatch", SBATCH)
    where.replace("sinfo", "printf 'gpu\\ncpu\\ngpu\\n'")
    where.replace("scancel", 'echo "$@" >>"$HOME/cancelled"')
    where.replace("scontrol", 'echo "$@" >>"$HOME/requeued"')
    where.replace("srun", 'shift; exec "$@"')
    where.replace("python", 'echo "$@" >"$HOME/python"; echo "shares: 12 (3 trainings)"', "re po/.venv/bin")
    (root / ".venv" / "bin" / "activate").write_text(f'PATH="{root}/.venv/bin:$PATH"\n')
    return where


def submit(place: Place, arguments: str, **variables: str) -> tuple[int, str, str]:
    return place.run("scripts/slurm/submit.sh", *arguments.split(), **variables)


def refusal(place: Place, arguments: str, **variables: str) -> str:
    status, _, err = submit(place, arguments, **variables)
    assert status == 2
    assert err.startswith("error: ")
    assert place.told("submitted") == [], "refused before anything was submitted"
    return err.removeprefix("error: ").strip()


@pytest.mark.parametrize("path", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_every_script_is_valid_bash(path):
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0


def test_trainings_then_their_evaluations_then_the_page_are_submitted(place):
    status, out, err = submit(place, "--partition gpu --gres gpu:1 --max_running 4 -- CFG-01 --seeds 0 1 --out runs/a")
    assert (status, err) == (0, "")
    train, evaluate, page = place.told("submitted")
    assert train.startswith("--parsable --partition gpu --gres gpu:1 --array=1-12%4 ")
    assert train.endswith("experiments.sbatch CFG-01 --seeds 0 1 --out runs/a --stage train")
    assert "--dependency=aftercorr:1 " in evaluate
    assert evaluate.endswith("--stage evaluate")
    assert "--dependency=afterany:2 " in page
    assert page.endswith("report.sbatch runs/a")
    assert (place.root / "runs" / "a" / "slurm").is_dir(), "SLURM makes no folder for its logs"
    assert "jobs 1 2 3;" in out


def test_a_dry_run_prints_the_commands_and_submits_nothing(place):
    status, out, _ = submit(place, "--dry-run --partition=cpu -- CFG-01 --out=runs/a")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["sbatch"] * 3
    assert place.told("submitted") == []
    assert not (place.root / "runs").exists()
    for spelled in ("--dry-run", "--dry_run", "--dry_run=true"):
        assert submit(place, f"--partition cpu -- CFG-01 --out runs/a {spelled}")[1].count("sbatch --parsable") == 3
    assert place.told("submitted") == []


def test_a_partition_that_the_cluster_lacks_is_refused_with_those_it_has(place):
    sentence = "--partition tpu: this cluster has no such partition; it has cpu, gpu"
    assert refusal(place, "--partition tpu -- CFG-01 --out runs") == sentence
    assert refusal(place, "-p gpu,tpu -- CFG-01 --out runs") == sentence


def test_submission_is_refused_where_it_cannot_work(place):
    assert "login node" in refusal(place, "-- CFG-01 --out runs", PATH=str(place.home))
    assert "write `--`" in refusal(place, "CFG-01 --out runs")
    assert "--out is missing" in refusal(place, "-- CFG-01")
    assert "no such virtual environment" in refusal(place, "-- CFG-01 --out runs", VENV="elsewhere")


def test_a_plan_that_is_refused_submits_nothing(place):
    place.replace("python", "echo 'error: CFG-1: no such experiment' >&2; exit 2", "re po/.venv/bin")
    assert refusal(place, "-- CFG-1 --out runs") == "CFG-1: no such experiment"


def test_jobs_already_submitted_are_cancelled_when_a_later_one_is_refused(place):
    status, _, err = submit(place, "-- CFG-01 --out runs", FAIL_AT="2")
    assert status == 2
    assert "nothing is left in the queue" in err
    assert place.told("cancelled") == ["1"]


def test_a_job_script_passes_its_arguments_on_as_they_are(place):
    status, _, _ = place.run("scripts/slurm/train.sbatch", "--run_dir", "my runs/a", SLURM_NTASKS_PER_NODE="4")
    assert status == 0
    assert place.told("python") == ["train.py --devices 4 --num_nodes 1 --run_dir my runs/a"]
    status, _, err = place.run("scripts/slurm/train.sbatch", "--encoder", "cnn")
    assert status == 2
    assert "needs --run_dir" in err


def test_a_task_of_an_array_takes_its_share(place):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "1"}
    whole = array | {"SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert place.run("scripts/slurm/enhance.sbatch", "--ckpt", "c", **whole)[0] == 0
    assert place.told("python") == ["enhancement_noise_cond.py --ckpt c --shard 2/3"]
    holes = array | {"SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
    for variables in (holes, {}):
        status, _, err = place.run("scripts/slurm/enhance.sbatch", "--ckpt", "c", **variables)
        assert (status, "--array=1-N" in err) == (2, True)


STOPPABLE = 'trap "exit {}" USR1 TERM; touch "$HOME/started"; for i in $(seq 100); do sleep 0.1; done'


def stopped(place: Place, number: signal.Signals, code: int = 85, **variables: str) -> int:
    """The exit status of a training job whose shell gets a signal, and whose command answers it with `code`."""
    place.replace("python", STOPPABLE.format(code), "re po/.venv/bin")
    (place.home / "started").unlink(missing_ok=True)
    process = place.start(["scripts/slurm/train.sbatch", "--run_dir", "a"], SLURM_JOB_ID="5", **variables)
    while not (place.home / "started").exists():
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode


def test_a_preempted_job_is_queued_again(place):
    assert stopped(place, signal.SIGUSR1) == 0
    assert place.told("requeued") == ["requeue 5"]


def test_of_a_preempted_array_only_the_task_is_queued_again(place):
    assert stopped(place, signal.SIGUSR1, SLURM_ARRAY_JOB_ID="5", SLURM_ARRAY_TASK_ID="3") == 0
    assert place.told("requeued") == ["requeue 5_3"]


def test_a_job_that_is_cancelled_or_fails_or_was_restarted_too_often_is_not_queued_again(place):
    assert stopped(place, signal.SIGTERM) == 85
    assert stopped(place, signal.SIGUSR1, code=1) == 1
    assert stopped(place, signal.SIGUSR1, SLURM_RESTART_COUNT="2", MAX_REQUEUES="2") == 85
    assert place.told("requeued") == []
