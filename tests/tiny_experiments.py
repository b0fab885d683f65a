"""Experiments small enough for tests: a plan of three IDs, two of which share a training; a stand-in for training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from commands import saved_run
from short_set import short_set

from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.plan import Data, Plan, make_plan
from sgmse.experiments.scales import load_scale
from sgmse.experiments.training import Failed
from sgmse.experiments.work import Work

SCALE = """
train: {nf: 4, ch_mult: [1, 1], num_res_blocks: 1, frequency_fold: 8, num_frames: 24, batch_size: 2, num_workers: 0,
        num_valid_items: 2, num_eval_files: 1, max_steps: 2, val_every_n_steps: 1, cond_dim: 16, encoder_channels: 2,
        accumulate_grad_batches: 1, warmup_steps: 1}
bases: {sgmse_plus: {N: 2}}
sets: {esc50: ood, urbansound8k: ood, stationary: id}
items: {id: 2, ood: 2, nonstationary: 3, talkers: 2, valid: 2}
steps: {bridge: [1, 2], sgmse_plus: [2]}
"""


def scale_file(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(SCALE)
    return path


def ready_sets(folder: Path) -> Path:
    """folder/{id,valid}: two short files each, with a manifest."""
    for name in ("id", "valid"):
        made = short_set(folder / name, 2, 1.0)
        stems = sorted(path.stem for path in (made / "noisy").iterdir())
        with open(made / "manifest.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "kind", "noise", "snr_db"])
            writer.writerows([stem, "pink", f"pink_{stem}", 5] for stem in stems)
    return folder


def plan(folder: Path, seeds: Sequence[int] = (0,), conditioned: tuple[str, ...] = ("ONE", "THREE")) -> Plan:
    """BASE without encoder; ONE and THREE, which differ in guidance alone and share a training."""
    facts = {"hypothesis": "-", "sets": ["id"]}
    experiments = {"BASE": Experiment(id="BASE", train={"encoder": "none"}, reference="none", **facts)}
    facts |= {"train": {"encoder": "cnn"}, "baseline": "BASE"}
    for name in conditioned:
        experiments[name] = Experiment(id=name, guidance_scale=[1.0, 3.0] if name == "THREE" else [1.0], **facts)
    sets = folder / "ready"
    data = Data(test_sets=str(sets if sets.is_dir() else ready_sets(sets)))
    return make_plan(experiments, load_scale(str(scale_file(folder))), data, seeds)


class StandIn:
    """Trains in moments: `Launch`. What it leaves is a tiny network with random weights.

    started: the run folders. fails: the part of a command that makes it fail.
    """

    def __init__(self, fails: str | None = None) -> None:
        self.started: list[Path] = []
        self.fails = fails

    def __call__(self, command: Sequence[str], log: Path) -> None:
        assert list(command[:2]) == ["-m", "sgmse.commands.train"]
        folder = Path(command[list(command).index("--run_dir") + 1])
        self.started.append(folder)
        if self.fails is not None and self.fails in " ".join(command):
            raise Failed("the moon is full; wait (exit code 2)")
        if folder.exists():  # a training that goes on
            return
        encoder = "none" if "none" in folder.parent.name else "cnn"
        ckpt = saved_run(folder, encoder=encoder, cond_drop_prob=0.1 if encoder == "cnn" else 0.0)
        content = torch.load(ckpt, weights_only=True)
        torch.save(content | {"global_step": 2}, ckpt.with_name("best_pesq.ckpt"))
        (folder / "validation.csv").write_text("step,seconds\n2,30\n4,90\n")


def work(folder: Path, made: Plan, launch: StandIn) -> Work:
    return Work(made, folder, launch, "cpu", jobs=1)
