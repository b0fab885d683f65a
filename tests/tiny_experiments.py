"""Experiments small enough for tests: a plan of three IDs, two of which share a training; a stand-in for commands."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from commands import saved_run
from short_set import short_set

from sgmse.experiments.catalogue import Experiment
from sgmse.experiments.plan import Data, Plan, make_plan
from sgmse.experiments.processes import Failed
from sgmse.experiments.scales import load_scale
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
    """Does in moments what the commands do, without a network: `Launch`.

    started: the commands, as (kind, --run_dir, --out or --enhanced_dir). fails: the part of a command that makes it
    fail. best: the guidance scale that the validation set likes best.
    """

    def __init__(self, fails: str | None = None, best: float = 1.0) -> None:
        self.started: list[tuple[str, str]] = []
        self.fails, self.best = fails, best

    def __call__(self, command: Sequence[str], log: Path) -> None:
        script, flags = command[1], list(command[2:])  # after "-m"
        target = next(flags[flags.index(flag) + 1] for flag in _TARGETS if flag in flags)
        self.started.append((script, target))
        if self.fails is not None and self.fails in " ".join(command):
            raise Failed("the moon is full; wait (exit code 2)")
        {"sgmse.commands.train": self._train, "scripts.guidance_sweep": self._sweep}.get(script, self._enhance)(
            Path(target), flags
        )

    def _train(self, folder: Path, flags: list[str]) -> None:
        if folder.exists():  # a training that goes on
            return
        conditioned = "none" not in folder.parent.name
        ckpt = saved_run(folder, encoder="cnn" if conditioned else "none")
        content = torch.load(ckpt, weights_only=True)
        torch.save(content | {"global_step": 2}, ckpt.with_name("best_pesq.ckpt"))
        (folder / "validation.csv").write_text("step,seconds\n2,30\n4,90\n")

    def _sweep(self, folder: Path, flags: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        scales = [float(w) for w in _values(flags, "--scales")]
        rows = ["sampler,N,guidance_scale,interval,file,audio_s,seconds,nfe,passes,pesq,estoi,si_sdr,reason"]
        rows += ["noisy,0,1.0,none,000.wav,1,0,0,0,1.0,0.5,3,"]
        for w in scales:
            for steps in map(int, _values(flags, "--steps")):
                pesq = 2.0 - abs(w - self.best) / 10
                rows.append(f"bridge_ode,{steps},{w},none,000.wav,1,0.1,{steps},{steps * (1 + (w != 1))},{pesq},0.5,3,")
        (folder / "sweep.csv").write_text("\n".join(rows) + "\n")

    def _enhance(self, folder: Path, flags: list[str]) -> None:
        test_set = Path(_values(flags, "--test_dir")[0])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(test_set / "noisy", folder)
        conditioned = "--reference" in flags
        told = {"rtf": 0.1, "nfe": 1, "passes": 1, "N": 1, "checkpoint_sha256": "00", "encoder": "cnn"}
        told |= {"guidance_scale": float(_values(flags, "--guidance_scale")[0]) if conditioned else 1.0}
        told |= {"encoder_weights": None, "reference": "disjoint" if conditioned else "none"}
        names = {path.name: str(test_set / "ref" / path.name) for path in folder.iterdir()}
        told |= {"files": dict.fromkeys(names, ""), "references": names if conditioned else {}}
        (folder / "run.json").write_text(json.dumps(told))


_TARGETS = ("--run_dir", "--out", "--enhanced_dir")


def _values(flags: list[str], flag: str) -> list[str]:
    """What follows a flag, up to the next one."""
    rest = flags[flags.index(flag) + 1 :]
    return rest[: next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))]


def work(folder: Path, made: Plan, launch: StandIn) -> Work:
    return Work(made, folder, launch, "cpu", jobs=1)
