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

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser
from sgmse.experiments import results
from sgmse.experiments.catalogue import Experiment, load_experiments, select_experiments
from sgmse.experiments.cells import list_cells, list_shares
from sgmse.experiments.criteria import judge_criteria, print_criteria
from sgmse.experiments.forecast import check_plan
from sgmse.experiments.overview import describe_plan, list_hypotheses
from sgmse.experiments.plan import RANDOM, Plan, make_data, make_plan
from sgmse.experiments.processes import Launcher
from sgmse.experiments.runner import Runner
from sgmse.experiments.scales import Scale, load_scale
from sgmse.experiments.scoring import ENHANCED
from sgmse.experiments.work import Work, join_plan
from sgmse.training import loggers
from sgmse.training import run as runs
from sgmse.training.interruption import Preempted

_WORDS = {"there": "done already", "elsewhere": "left to another process"}
_WORDS |= {name: name for name in ("done", "failed", "skipped")}


def main() -> None:
    """The plan, and unless --dry-run is given, its cells."""
    arguments = parse_arguments()
    catalogue = load_experiments()
    if arguments.list:
        print(list_hypotheses(catalogue))
        return
    scale = load_scale(arguments.scale)
    plan = planned(arguments, catalogue, scale)
    out = arguments.out or Path("experiments") / scale.name
    print(describe_plan(plan, scale, out), flush=True)
    left_out = check_plan(plan, scale, out)
    for name, remedy in left_out.items():
        print(f"left out: the test set {name}; {remedy}")
    shares = list_shares(plan)
    print(f"shares: {len(shares)}, each a training and its experiments (--shard K/{len(shares)})", flush=True)
    mine = shares if arguments.shard is None else [shares[share(arguments.shard, len(shares))]]
    if arguments.dry_run:
        return
    launcher = Launcher()
    work = Work(join_plan(out, plan), out, launcher, arguments.device, arguments.logger, arguments.jobs)
    runner = Runner(work, patient=arguments.stage != "train")
    try:
        with launcher.handling_signals():
            runner.run(list_cells(plan, mine, arguments.stage, left_out))
    except Preempted:
        print("stopped as asked; the same command goes on from here", flush=True)
        raise
    conclude(work, runner)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("ids", nargs="*", metavar="ID", help="experiments (default: all)")
    parser.add_argument("--list", action="store_true", help="print all IDs with their hypotheses")
    parser.add_argument("--scale", default="paper", metavar="NAME", help="paper, mini, or a YAML file (default: paper)")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[0], metavar="N", help="default: 0")
    parser.add_argument("--out", type=Path, metavar="RUN_DIR", help="default: experiments/SCALE")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is missing; begin nothing")
    parser.add_argument("--stage", choices=("train", "evaluate", "all"), default="all", help="default: all")
    parser.add_argument("--shard", metavar="K/N", help="only the K-th of the N shares of the plan, K from 1")
    parser.add_argument("--data_dir", metavar="DIR", help="corpora prepared by scripts/prepare.py NAME --out DIR/NAME")
    for name in ("speech", "noise"):
        text = f"{name}, with train/ and valid/; repeatable"
        parser.add_argument(f"--{name}_dir", nargs="+", action="extend", default=[], metavar="DIR", help=text)
    parser.add_argument("--ood_noise_dir", metavar="DIR", help="noise that training never hears, for the test")
    parser.add_argument("--test_sets", metavar="DIR", help="ready-made DIR/SET/{noisy,clean,ref,manifest.csv}")
    parser.add_argument(
        "--encoder_checkpoint", metavar="FILE", help=f"of CLAP or PANNs; {RANDOM}: untrained, to try things out"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the networks run")
    parser.add_argument("--logger", choices=("csv", "tensorboard", "wandb"), default="csv", help="of the trainings")
    parser.add_argument("--jobs", type=int, metavar="N", help="scoring processes (default: one per core)")
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: 1 or more is needed")
    runs.device(arguments.device)
    if arguments.logger == "wandb" and not arguments.dry_run:
        loggers.check_wandb()
    return arguments


def seed(text: str) -> int:
    """A seed of --seeds."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on is needed")
    return int(text)


def share(text: str, count: int) -> int:
    """The place, from 0, of the share K/N among `count`."""
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UserError(f"--shard {text}: K/N is needed, with K from 1 to N, e.g. 1/{count}")
    if int(total) != count:
        raise UserError(f"--shard {text}: this plan has {count} shares; write K/{count}")
    return int(number) - 1


def planned(arguments: argparse.Namespace, catalogue: Mapping[str, Experiment], scale: Scale) -> Plan:
    """The plan for the IDs that were named, with those that they are compared with."""
    data = make_data(
        scale,
        arguments.data_dir,
        arguments.speech_dir,
        arguments.noise_dir,
        arguments.ood_noise_dir,
        arguments.test_sets,
    )
    experiments = select_experiments(catalogue, arguments.ids)
    return make_plan(experiments, scale, data, sorted(set(arguments.seeds)), arguments.encoder_checkpoint)


def conclude(work: Work, runner: Runner) -> None:
    """What was done, what failed, the criteria, and what to type next; ends the process with 1 after a failure."""
    counts = Counter(runner.outcomes.values())
    print(", ".join(f"{count} {_WORDS[outcome]}" for outcome, count in counts.items()))
    for failure in runner.failures:
        print(f"failed: {failure}")
    frame, trainings = results.collect(work)
    if (frame["system"] == ENHANCED).any():
        print_criteria(judge_criteria(frame, trainings, work.plan))
        print(
            f"tables: {work.folder / results.RESULTS}; page: python scripts/report.py {shlex.quote(str(work.folder))}"
        )
        if work.logger == "wandb":
            results.send_to_wandb(work)
    if counts["failed"] or counts["skipped"]:
        sys.exit(1)


command = partial(run, main)
