"""A small matrix on a real SLURM: submitted, taken its node in the middle, and there in the end."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

STEPS = 240
EMBEDDED = Path("sgmse/data/embedded/test/noisy")  # the set `id` where no corpus is named
SCALE = f"""
train: {{nf: 4, ch_mult: [1, 1], num_res_blocks: 1, frequency_fold: 8, num_frames: 24, batch_size: 2, num_workers: 1,
        num_valid_items: 2, num_eval_files: 1, max_steps: {STEPS}, val_every_n_steps: {STEPS // 3}, cond_dim: 16,
        encoder_channels: 2, accumulate_grad_batches: 1, warmup_steps: 1}}
sets: {{esc50: ood, urbansound8k: ood, stationary: id}}
items: {{id: 2, ood: 2, nonstationary: 2, talkers: 2, valid: 2}}
steps: {{bridge: [1], sgmse_plus: [2]}}
"""


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open())) if path.exists() else []


@pytest.fixture(scope="module")
def matrix(cluster, tmp_path_factory) -> tuple[list[str], Path]:
    """The jobs (trainings, evaluations, page) of CFG-02, of CFG-01 that it is compared with, of BASE-00; RUN_DIR."""
    folder = tmp_path_factory.mktemp("a matrix")
    out = folder / "run"
    (folder / "tiny.yaml").write_text(SCALE)
    flags = ["CFG-02", "--scale", folder / "tiny.yaml", "--out", out, "--device", "cpu"]
    said = cluster.call("bash", "scripts/slurm/submit.sh", "--partition", "long", "--", *flags)
    found = re.search(r"^jobs (\d+) (\d+) (\d+);", said, flags=re.MULTILINE)
    assert found is not None, said
    train, evaluate, page = jobs = list(found.groups())
    cluster.wait(f"{train}_1", lambda: len(curve(out, 0)) > 0)
    cluster.interrupt(f"{train}_1", "--signal=USR1")
    cluster.wait(f"{train}_2", lambda: len(curve(out, 1)) > 0)
    cluster.interrupt(f"{train}_2")
    cluster.wait(f"{evaluate}_2", lambda: "choose" in cluster.log(f"{evaluate}_2"))
    cluster.interrupt(f"{evaluate}_2")
    cluster.finish(page)
    return jobs, out


def curve(out: Path, share: int) -> list[int]:
    """The steps at which the training of a share was validated, so far."""
    plan = out / "plan.json"
    if not plan.exists():
        return []
    name = list(json.loads(plan.read_text())["trainings"])[share]
    return [int(row["step"]) for row in table(out / "trainings" / name / "seed0" / "validation.csv")]


def test_the_trainings_were_interrupted_and_went_on(cluster, matrix):
    (train, evaluate, _), out = matrix
    assert [cluster.tell(f"{train}_{task}", "Restarts") for task in (1, 2)] == ["1", "1"]
    assert cluster.tell(f"{evaluate}_2", "Restarts") == "1"
    assert curve(out, 0) == curve(out, 1) == [STEPS // 3, 2 * STEPS // 3, STEPS]


def test_what_several_experiments_share_is_trained_once(matrix):
    _, out = matrix
    assert [row["steps"] for row in table(out / "trainings.csv")] == [str(STEPS)] * 2
    assert sorted(row["experiments"] for row in table(out / "trainings.csv")) == ["BASE-00", "CFG-01 CFG-02"]


def test_the_table_holds_every_file_of_every_experiment_once(matrix):
    _, out = matrix
    rows = Counter((row["experiment"], row["set"], row["file"]) for row in table(out / "results.csv"))
    assert set(rows.values()) == {1}
    systems: dict[str, Counter[str]] = {}
    for experiment, test_set, _ in rows:
        systems.setdefault(experiment, Counter())[test_set] += 1
    assert set(systems) == {"noisy", "BASE-00", "CFG-01", "CFG-02"}
    assert all(sets == {"id": len(list(EMBEDDED.iterdir())), "ood": 2, "nonstationary": 2} for sets in systems.values())


def test_the_page_comes_out(matrix):
    _, out = matrix
    assert (out / "page" / "index.html").is_file()


def test_the_same_command_again_finds_everything_done(cluster, matrix):
    _, out = matrix
    before = (out / "results.csv").read_bytes()
    flags = ["CFG-02", "--scale", out.parent / "tiny.yaml", "--out", out, "--device", "cpu"]
    job = cluster.submit("--array=1-2", "experiments.sbatch", *flags, "--stage", "evaluate")
    cluster.finish(f"{job}_1")
    cluster.finish(f"{job}_2")
    assert "0 done already" not in cluster.log(f"{job}_1")
    assert (out / "results.csv").read_bytes() == before
