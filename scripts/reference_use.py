"""Is the noise reference used, ignored, or does it leak? A verdict on a checkpoint, from a test set.

Enhances SET (noisy/, clean/, ref/, manifest.csv, as scripts/make_testset.py writes them) with one reference after the
other and compares the results file by file:

  matched     SET/ref: the same recording as the mixture's noise, no common sample
  same_class  another recording of the same kind of noise         mismatched  noise of another kind
  louder      the matched one 6 dB up                             softer      6 dB down
  shuffled    its segments of 50 ms in random order               estimated   made from the noisy file alone
  null        none (models trained with dropping)                 oracle      overlaps the mixture's noise: it leaks

and, with --baseline, with a model that was trained without any reference and otherwise alike. DIR gets

  scores.csv    a row per file and system, written after each of them; a rerun with the same settings goes on there
  table.md      the verdict, means, paired differences with 95 % intervals, all by noise class and by SNR
  use.png       the paired differences

Without references of its own for same_class or mismatched (ref_NAME/), a set lends those of its other items, by kind
and source in manifest.csv, at the level of the right one. What cannot run is said, and the rest runs.

examples:
  python scripts/reference_use.py CKPT SET --baseline BASE
  python scripts/reference_use.py CKPT_0 SET --more_seeds CKPT_1 CKPT_2 --baseline BASE_0 BASE_1 BASE_2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser, cores
from sgmse.diagnostics import subjects, verdict
from sgmse.diagnostics.subjects import Subject
from sgmse.diagnostics.use import USE, Use, describe_refused, facts, select_scores
from sgmse.enhancement.protocols import SetReferences, open_set
from sgmse.enhancement.sweep_scoring import scorer
from sgmse.evaluation.kept import Kept
from sgmse.training import run as runs


def main() -> None:
    arguments = parse_arguments()
    device = runs.device(arguments.device)
    models = subjects.load([arguments.ckpt, *arguments.more_seeds], arguments.encoder_checkpoint)
    model = models[0].model
    check_model(arguments, models[0])
    bare = subjects.baselines(arguments.baseline, models[0]) if arguments.baseline else []
    references = open_set(arguments.test_set, model, arguments.max_files, arguments.seed)
    use = Use(
        references,
        arguments.N,
        arguments.guidance_scale,
        arguments.batch_size,
        arguments.seed,
        arguments.jobs,
        torch.device(device),
        facts(arguments.test_set, references.files.names),
    )
    for subject in (*models, *bare):
        use.sampler(subject)
    names = subjects.name(arguments.ckpt), arguments.test_set.resolve().name
    title, out = " on ".join(names), arguments.out or Path("results", "reference_use", "_".join(names))
    kept = Kept(out, shared_settings(arguments, device, references), USE)
    say(arguments, references, models, bare, kept)
    with scorer(arguments.jobs) as score:
        use.run(models, bare, kept, score)
    unlike = subjects.differences_of(models[0], bare[0], arguments.N) if bare else []
    remarks = describe_refused(references, bool(bare)) + subjects.describe_training(models[0], bare, unlike)
    text, written = verdict.write_report(select_scores(kept.frame, [*models, *bare]), title, unlike, remarks, out)
    print(f"\n{text}\n{out}: {', '.join(['scores.csv', *written])}")


def say(
    arguments: argparse.Namespace, references: SetReferences, models: list[Subject], bare: list[Subject], kept: Kept
) -> None:
    """What is going to be done."""
    if kept.changed:
        print(f"everything is done again: {', '.join(kept.changed)} changed since the last run")
    print(f"model: {', '.join(str(s.path) for s in models)} ({models[0].model.settings['encoder']})")
    print(f"baseline: {', '.join(str(s.path) for s in bare) or 'none'}")
    print(f"{arguments.test_set}: {len(references.files.jobs)} files; references: {', '.join(references.runnable)}")
    for line in describe_refused(references, bool(bare)):
        print(f"  {line}")


def check_model(arguments: argparse.Namespace, subject: Subject) -> None:
    """Raise `UserError` for a model without encoder, and for guidance that it does not know."""
    model = subject.model
    if model.encoder is None:
        raise UserError(
            f"{subject.path}: has no noise encoder, so there is no reference to use; name a conditioned model, and "
            "this one with --baseline"
        )
    if arguments.guidance_scale != 1 and model.cond_drop_prob == 0:
        raise UserError(
            f"--guidance_scale {arguments.guidance_scale:g}: the checkpoint was trained without dropping references, "
            "so there is nothing to guide; leave it out"
        )


def shared_settings(arguments: argparse.Namespace, device: str, references: SetReferences) -> dict[str, Any]:
    """What all rows share; rows of other values are done again."""
    return {
        "test_set": str(arguments.test_set.resolve()),
        "files": references.files.names,
        "references": references.told(),
        "guidance_scale": arguments.guidance_scale,
        "N": arguments.N,
        "seed": arguments.seed,
        "device": device,
        "batch_size": arguments.batch_size,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, metavar="CKPT", help="checkpoint of a model with a noise encoder")
    parser.add_argument("test_set", type=Path, metavar="SET", help="folder with noisy/, clean/, ref/, manifest.csv")
    more = "checkpoints of the same model, trained with other seeds"
    parser.add_argument("--more_seeds", nargs="+", action="extend", type=Path, default=[], metavar="CKPT", help=more)
    baseline = "checkpoints of the model trained without reference (--encoder none), as many seeds as there are"
    parser.add_argument("--baseline", nargs="+", action="extend", type=Path, default=[], metavar="CKPT", help=baseline)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/reference_use/RUN_SET")
    parser.add_argument("--guidance_scale", type=float, default=1.0, metavar="W", help="default: 1, no guidance")
    parser.add_argument("--N", type=int, metavar="N", help="sampling steps (default: each checkpoint's own)")
    parser.add_argument("--max_files", type=int, metavar="N", help="so many files, spread over the set (default: all)")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="files at a time (default: 8)")
    parser.add_argument("--encoder_checkpoint", metavar="FILE", help="weights of a frozen clap or panns encoder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the networks run")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="drives sampling, cutting and shuffling")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="scoring processes (default: the cores)")
    arguments = parser.parse_args()
    for flag in ("max_files", "batch_size", "jobs", "N"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(f"--{flag} {getattr(arguments, flag)}: 1 or more is needed")
    if not -100 < arguments.guidance_scale < 100:
        raise UserError(f"--guidance_scale {arguments.guidance_scale}: a number such as 1 or 3 is needed")
    return arguments


if __name__ == "__main__":
    run(main)
