"""Run experiments of configs/experiments/: train, choose on the validation set, enhance, score; and say what came out.

A plan is printed first. Then each training is done once, whatever the number of experiments that share it; guidance
scale, steps and checkpoint are chosen on the validation set, and the test sets enhanced once with these. A stopped run
goes on where it was when the command is repeated; what fails is reported and stops nothing but what rests on it.
docs/experiments.md tells what the IDs ask, how long they take, and how to add one.

Without folders, --scale paper looks for corpora of scripts/prepare.py below data/, and --scale mini takes the small
corpus that comes with the code.

examples:
  python scripts/run_experiments.py --list
  python scripts/run_experiments.py CFG-00 CFG-01 --scale mini
      with BASE-00, the baseline of both, on two cores and without any data
  python scripts/run_experiments.py XAttn-02 --scale mini --speech_dir SPEECH --noise_dir NOISE --ood_noise_dir OTHER
  python scripts/run_experiments.py --scale paper --seeds 0 1 2 --dry-run
  python scripts/run_experiments.py CFG-01 --seeds 0 1 --stage train --shard 2/4 --out RUN_DIR
      one task of a cluster (docs/experiments.md)
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sgmse.common import machine
from sgmse.common.bounds import ValueName
from sgmse.common.errors import UserError, run
from sgmse.common.typed import print_next
from sgmse.evaluation.metrics import select_metrics
from sgmse.experiments.catalogue import load_experiments, select_experiments
from sgmse.experiments.plan import Data, Plan, complete_data, join_plan, make_plan
from sgmse.experiments.scales import load_scale
from sgmse.experiments.work import Stage, Work, list_cells, list_shares
from sgmse.settings import cli
from sgmse.settings.cli import positional
from sgmse.settings.config import Count, Seed

if TYPE_CHECKING:
    from sgmse.experiments.runner import Runner

Words = list[str]  # named, since a setting is called `list`
Seeds = list[Seed]
COMMON = """ids list scale seeds out dry_run stage shard device jobs data_dir speech_dir noise_dir ood_noise_dir
test_sets""".split()
_OUTCOMES = {"there": "done already", "elsewhere": "left to another process"}
_OUTCOMES |= {name: name for name in ("done", "failed", "skipped")}


@dataclass(frozen=True)
class RunSettings:
    """Which experiments, on what, and where"""

    ids: Words = positional(default_factory=Words)
    """experiments. Default: all"""
    list: bool = False
    """print all IDs with their hypotheses"""
    scale: Annotated[str, ValueName("SCALE")] = "paper"
    """paper, mini, or a YAML file"""
    seeds: Seeds = field(default_factory=lambda: [0])
    """seeds of the trainings"""
    out: Path | None = None
    """RUN_DIR. Default: experiments/SCALE"""
    dry_run: bool = False
    """print the plan and what is missing; begin nothing"""
    stage: Stage = "all"
    """what is done"""
    shard: Annotated[str, ValueName("K/N")] | None = None
    """K/N: only the K-th of the N shares of the plan, K from 1"""
    metrics: Annotated[Words, ValueName("NAME")] = field(default_factory=Words)
    """metrics beside PESQ, ESTOI and SI-SDR, e.g. right_talker dnsmos"""
    encoder_checkpoint: str | None = None
    """of CLAP or PANNs; random: untrained, to try things out"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the networks run"""
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"
    """of the trainings"""
    jobs: Count | None = None
    """scoring processes. Default: one per core"""


def main() -> None:
    """The plan, and unless --dry-run is given, its cells."""
    parser = cli.make_parser([RunSettings, Data], __doc__ or "", with_files=False, common=COMMON)
    values = cli.parse(parser, sys.argv[1:])[-1].values
    settings = cli.take(RunSettings, values)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.experiments.forecast import check_plan, describe_plan, list_hypotheses
    from sgmse.experiments.runner import Runner
    from sgmse.experiments.training import Launcher
    from sgmse.training import loggers
    from sgmse.training.interruption import Preempted

    catalogue = load_experiments()
    if settings.list:
        print(list_hypotheses(catalogue))
        return
    machine.device(settings.device)
    asked = select_metrics(settings.metrics)
    if settings.logger == "wandb" and not settings.dry_run:
        loggers.check_wandb()
    scale = load_scale(settings.scale)
    data, seeds = complete_data(scale, cli.take(Data, values)), sorted(set(settings.seeds))
    experiments = select_experiments(catalogue, settings.ids)
    plan = make_plan(experiments, scale, data, seeds, settings.encoder_checkpoint)
    out = settings.out or Path("experiments") / scale.name
    print(describe_plan(plan, scale, out), flush=True)
    left_out = check_plan(plan, scale, out)
    for name, remedy in left_out.items():
        print(f"left out: the test set {name}; {remedy}")
    shares = choose_shares(plan, settings.shard)
    if settings.dry_run:
        print_next(
            "scripts/run_experiments.py", *[word for word in sys.argv[1:] if word not in ("--dry_run", "--dry-run")]
        )
        return
    launcher = Launcher()
    work = Work(join_plan(out, plan), out, launcher, settings.device, settings.logger, settings.jobs, asked)
    runner = Runner(work, patient=settings.stage != "train")
    try:
        with launcher.handling_signals():
            runner.run(list_cells(plan, shares, settings.stage, left_out))
    except Preempted:
        print("stopped as asked; the same command goes on from here", flush=True)
        raise
    conclude(work, runner)


def choose_shares(plan: Plan, text: str | None) -> list[tuple[str, int]]:
    """All shares of a plan, or the one that --shard names; prints how many there are."""
    from sgmse.enhancement.request import parse_shard

    shares = list_shares(plan)
    print(f"shares: {len(shares)}, each a training and its experiments (--shard K/{len(shares)})", flush=True)
    shard = parse_shard(text)
    if shard is not None and shard[1] != len(shares):
        raise UserError(f"--shard {text}: this plan has {len(shares)} shares; write K/{len(shares)}")
    return shares if shard is None else [shares[shard[0] - 1]]


def conclude(work: Work, runner: Runner) -> None:
    """What was done, what failed, the criteria, and what to type next; ends the process with 1 after a failure."""
    from sgmse.experiments import results
    from sgmse.experiments.criteria import judge_criteria, print_criteria
    from sgmse.experiments.scoring import ENHANCED

    counts = Counter(runner.outcomes.values())
    print(", ".join(f"{count} {_OUTCOMES[outcome]}" for outcome, count in counts.items()))
    for failure in runner.failures:
        print(f"failed: {failure}")
    frame, trainings = results.collect(work)
    if (frame["system"] == ENHANCED).any():
        print_criteria(judge_criteria(frame, trainings, work.plan))
        print(f"tables: {work.folder / results.RESULTS}")
        print_next("scripts/report.py", work.folder)
        if work.logger == "wandb":
            results.send_to_wandb(work)
    if counts["failed"] or counts["skipped"]:
        sys.exit(1)


command = partial(run, main)
