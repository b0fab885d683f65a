"""Look into a conditioned model: when the condition acts, what it does, and what of the reference is attended to.

SET holds noisy/, clean/ and ref/, as scripts/make_testset.py writes them. Parts (--parts, default: all):

  gap          loss with the null or a mismatched reference minus that with the right one, and how far the condition
               moves the estimate, over diffusion time; proposes a --guidance_interval
               gap.csv (a row per file, time and condition), gap_by_time.csv (means with intervals), gap.png
  sensitivity  each of 8 bands of the reference in turn 6 dB louder: how much more of the noise goes in each band
               sensitivity.csv, sensitivity.png
  attention    which tokens of the reference each frame of a few files attends to, for models with cross-attention
               attention.csv, attention_NAME.png

Intervals are 95 % over files and the recordings that their noise comes from.

examples:
  python scripts/condition_probes.py CKPT SET --out probes
  python scripts/condition_probes.py CKPT SET --parts attention --attention_files 3
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser
from sgmse.diagnostics.attention import has_attention, write_attention
from sgmse.diagnostics.gap import write_gap
from sgmse.diagnostics.items import read_items, require_encoder, require_writable
from sgmse.diagnostics.sensitivity import write_sensitivity
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_sampler

PARTS = ("gap", "sensitivity", "attention")
NO_ATTENTION = "the model has no cross-attention to tokens of its reference, so there is nothing to draw"


def main() -> None:
    """Run the parts that are asked for."""
    arguments = parse_arguments()
    model = Enhancer.from_checkpoint(arguments.ckpt, arguments.device, arguments.encoder_checkpoint)
    require_encoder(model, arguments.ckpt)
    if set(arguments.parts) == {"attention"} and not has_attention(model):
        raise UserError(f"{arguments.ckpt}: {NO_ATTENTION}; choose other --parts")
    sampler = model.sampler if arguments.N is None else replace(model.sampler, N=arguments.N)
    check_sampler(sampler, model.objective.name)
    items, reason = read_items(arguments.set, model, arguments.max_files)
    require_writable(arguments.out)
    print(f"{len(items)} files of {arguments.set}, encoder {model.settings['encoder']}")
    seed, batch_size, out = arguments.seed, arguments.batch_size, arguments.out
    if "gap" in arguments.parts:
        print("\ngap by time")
        if reason:
            print(f"without mismatched references ({reason})")
        if model.cond_drop_prob == 0:
            print("without the null condition: the model was trained without dropping references")
        print(write_gap(model, items, seed, batch_size, out))
    if "sensitivity" in arguments.parts:
        print("\n" + write_sensitivity(model, items, sampler, seed, batch_size, out))
    if "attention" in arguments.parts:
        print("\nattention")
        if not has_attention(model):
            print(NO_ATTENTION)
            return
        for line in write_attention(model, items, sampler, seed, arguments.attention_files, out):
            print(line)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, metavar="CKPT", help="checkpoint of a conditioned model")
    parser.add_argument("set", type=Path, metavar="SET", help="folder with noisy/, clean/ and ref/")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to look at (default: all)")
    parser.add_argument("--out", type=Path, default=Path("probes"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--max_files", type=int, metavar="N", help="so many files, spread over the set (default: all)")
    parser.add_argument("--attention_files", type=int, default=2, metavar="N", help="files to draw (default: 2)")
    parser.add_argument("--N", type=int, metavar="N", help="steps of the sampler (default: the checkpoint's)")
    parser.add_argument(
        "--batch_size", type=int, default=8, metavar="N", help="times or references at once (default: 8)"
    )
    parser.add_argument("--encoder_checkpoint", metavar="FILE", help="weights of a frozen clap or panns encoder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="drives the noise (default: 0)")
    arguments = parser.parse_args()
    for flag in ("max_files", "attention_files", "batch_size"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(f"--{flag} {getattr(arguments, flag)}: 1 or more is needed")
    return arguments


if __name__ == "__main__":
    run(main)
