"""A SLURM cluster of one node on this machine, and what tests ask it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SCRIPTS = Path("scripts") / "slurm"
PATIENCE_S = 600  # two busy cores


@dataclass(frozen=True)
class Cluster:
    """Its commands, run in the root of the repository with the virtual environment of this test.

    folder: of the logs of its jobs.
    """

    folder: Path
    environment: dict[str, str]

    def call(self, *command: object) -> str:
        """What a command prints. Fails the test where the command fails."""
        done = subprocess.run([*map(str, command)], cwd=ROOT, env=self.environment, text=True, capture_output=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, options: str, script: str, *arguments: object) -> str:
        """The number of a job, or of an array."""
        log = f"--output={self.folder}/%x_%j.log"
        return self.call("sbatch", "--parsable", log, *options.split(), SCRIPTS / script, *arguments).strip()

    def tell(self, job: str, key: str) -> str:
        """A field of `scontrol show job`, such as JobState, Restarts or StdOut."""
        value = ".*" if key == "StdOut" else r"\S*"
        found = re.search(rf"\b{key}=({value})", self.call("scontrol", "show", "job", job))
        assert found is not None, f"job {job} has no {key}"
        return found[1]

    def log(self, job: str) -> str:
        path = Path(self.tell(job, "StdOut"))
        return path.read_text() if path.exists() else ""

    def wait(self, job: str, condition: Callable[[], bool]) -> None:
        """Until `condition` holds. Fails the test where the job ends, or does nothing for `PATIENCE_S`, before."""
        start = time.monotonic()
        while not condition():
            over = self.tell(job, "JobState") in ("FAILED", "CANCELLED", "COMPLETED", "TIMEOUT")
            assert not over or condition(), f"job {job} ended: {self.log(job)}"
            assert time.monotonic() - start < PATIENCE_S, f"job {job}: {self.log(job)}"
            time.sleep(0.2)

    def finish(self, job: str) -> None:
        """Wait until the job is complete."""
        self.wait(job, lambda: self.tell(job, "JobState") == "COMPLETED")

    def interrupt(self, job: str, *signal: str) -> None:
        """Take the job its node, with `signal` of scancel or else by requeuing it."""
        self.call(*(("scancel", *signal) if signal else ("scontrol", "requeue")), job)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.getuid() != 0 or (shutil.which("slurmctld") is None and shutil.which("apt-get") is None):
        pytest.skip("the test cluster needs root, and Debian's slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("cluster")
    script = [Path(__file__).parent / "cluster.sh"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    environment = kept | {"SLURM_CONF": f"{folder}/slurm.conf", "VENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    subprocess.run([*script, "start", folder], check=True, timeout=600)
    (folder / "logs").mkdir()
    try:
        yield Cluster(folder / "logs", environment)
    finally:
        subprocess.run([*script, "stop", folder], check=True, timeout=120)
