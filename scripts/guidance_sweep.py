"""Sweep guidance scale × guidance interval × steps (× sampler) with one checkpoint on one test set, in one go.

SET holds noisy/, clean/ and references, as scripts/make_testset.py writes them. Every reference is encoded once, files
of equally many frames are enhanced as one batch, every cell draws the same noise for a file. DIR gets

  sweep.csv    a row per cell and file, written after every cell; a rerun with the same settings goes on there
  table.md     a line per cell: cost, PESQ, ESTOI and SI-SDR with 95 % intervals over files, paired differences to w = 1
  curves.png   PESQ and SI-SDR over evaluations and over network passes
  pareto.png   the cells that no cheaper one surpasses

Choose on validation mixtures, then report the chosen cell on the test set: the best of many cells is biased upwards.

examples:
  python scripts/guidance_sweep.py --ckpt CKPT --test_dir SET --out sweep
  python scripts/guidance_sweep.py --ckpt CKPT --test_dir SET --scales 1 3 --intervals none 0.2:0.8 --steps 3 5
  python scripts/guidance_sweep.py --ckpt OUVE --test_dir SET --scales 1 --samplers pc dpm1 dpm2 dpm2:quadratic
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError, run
from sgmse.common.files import write_text
from sgmse.common.machine import Parser, cores
from sgmse.enhancement.old.settings import SCALES, cells
from sgmse.enhancement.old.test_set import Files, find_files
from sgmse.enhancement.sweep_groups import grouped
from sgmse.enhancement.sweep_run import Sweep
from sgmse.enhancement.sweep_scoring import scorer
from sgmse.evaluation import sweep_plots as plots
from sgmse.evaluation import sweep_table as table
from sgmse.evaluation.kept import Kept
from sgmse.evaluation.scores import find_sources
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig
from sgmse.training import run as runs

REFERENCES = ("disjoint", "same_class", "other_take", "mismatched")


def main() -> None:
    arguments = parse_arguments()
    model = Enhancer.from_checkpoint(arguments.ckpt, arguments.device)
    planned = cells(model, arguments.samplers, arguments.steps, arguments.scales, arguments.intervals)
    config = EnhanceConfig(test_dir=str(arguments.test_dir), reference=arguments.reference)
    files = find_files(config, arguments.out, model, arguments.max_files)
    kept = Kept(arguments.out, shared_settings(arguments, model, files))
    if kept.changed:
        print(f"all cells are done again: {', '.join(kept.changed)} changed since the last run")
    done = sum(kept.has(cell.key) for cell in planned)
    print(f"{len(planned)} cells of {len(files.jobs)} files, {done} done already; references: {files.protocol}")
    with scorer(arguments.jobs) as score:
        groups = grouped(model, files, arguments.batch_size)
        Sweep(model, groups, model.t_eps, arguments.seed, arguments.precision).run(planned, kept, score)
    report(kept, arguments.out, arguments.test_dir)


def report(kept: Kept, out_dir: Path, test_dir: Path) -> None:
    """Print the table and write it with its pictures."""
    lines = table.per_cell(kept.frame.assign(source=find_sources(test_dir, kept.frame["file"])))
    text = table.markdown(lines)
    print(f"\n{text}")
    write_text(out_dir / "table.md", text)
    plots.write_curves(lines, out_dir / "curves.png")
    plots.write_pareto(lines, out_dir / "pareto.png")
    missing = int(kept.frame["pesq"].isna().sum())
    if missing:
        print(f"{missing} rows have no PESQ; the column reason of sweep.csv says why")
    print(f"{out_dir}: sweep.csv, table.md, curves.png, pareto.png")


def shared_settings(arguments: argparse.Namespace, model: Enhancer, files: Files) -> dict[str, Any]:
    """What all cells share; cells done with other values are done again."""
    return {
        "checkpoint_sha256": model.checkpoint_sha256,
        "averaged_weights": model.averaged,
        "test_dir": str(arguments.test_dir.resolve()),
        "reference": files.protocol,
        "files": files.names,
        "seed": arguments.seed,
        "t_eps": model.t_eps,
        "precision": arguments.precision,
        "device": runs.device(arguments.device),
        "batch_size": arguments.batch_size,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True, metavar="FILE", help="checkpoint")
    parser.add_argument("--test_dir", type=Path, required=True, metavar="SET", help="folder with noisy/, clean/, ref/")
    parser.add_argument("--out", type=Path, default=Path("sweep"), metavar="DIR", help="default: %(default)s")
    scales = " ".join(f"{scale:g}" for scale in SCALES)
    parser.add_argument("--scales", nargs="+", type=float, metavar="W", help=f"guidance scales (default: {scales})")
    intervals = "diffusion times between which guidance acts, e.g. none 0.2:0.8 (default: none, it acts everywhere)"
    parser.add_argument("--intervals", nargs="+", default=["none"], metavar="LO:HI", help=intervals)
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 3, 5, 10], metavar="N", help="default: 1 3 5 10")
    samplers = "samplers, each with or without a schedule, e.g. dpm2:quadratic (default: the checkpoint's)"
    parser.add_argument("--samplers", nargs="+", default=["auto"], metavar="NAME", help=samplers)
    parser.add_argument("--reference", choices=REFERENCES, help="where references come from (default: SET/ref)")
    parser.add_argument("--max_files", type=int, metavar="N", help="so many files, spread over the set (default: all)")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="files at a time (default: 8)")
    parser.add_argument("--precision", choices=("32", "bf16-mixed"), default="32", help="arithmetic of the network")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="drives sampling (default: 0)")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="scoring processes (default: the cores)")
    arguments = parser.parse_args()
    for flag in ("max_files", "batch_size", "jobs"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(f"--{flag} {getattr(arguments, flag)}: 1 or more is needed")
    if min(arguments.steps) < 1:
        raise UserError(f"--steps {min(arguments.steps)}: steps are counted; use 1 or more")
    return arguments


if __name__ == "__main__":
    run(main)
