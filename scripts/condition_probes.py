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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sgmse.common.errors import UserError, run
from sgmse.common.files import write_csv
from sgmse.common.machine import Parser
from sgmse.diagnostics import attention, gap, probe_plots, sensitivity
from sgmse.diagnostics.items import Item, interval, read_items, require_encoder, require_writable
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_sampler
from sgmse.training import run as runs

PARTS = ("gap", "sensitivity", "attention")
NO_ATTENTION = "the model has no cross-attention to tokens of its reference, so there is nothing to draw"


def main() -> None:
    """Run the parts that are asked for."""
    arguments = parse_arguments()
    model = Enhancer.from_checkpoint(arguments.ckpt, "cpu", arguments.encoder_checkpoint)
    require_encoder(model, arguments.ckpt)
    if set(arguments.parts) == {"attention"} and not attention.has_attention(model):
        raise UserError(f"{arguments.ckpt}: {NO_ATTENTION}; choose other --parts")
    sampler = model.sampler if arguments.N is None else replace(model.sampler, N=arguments.N)
    check_sampler(sampler, model.objective.name)
    model = model.to(torch.device(runs.device(arguments.device)))
    items, reason = read_items(arguments.set, model, arguments.max_files)
    require_writable(arguments.out)
    print(f"{len(items)} files of {arguments.set}, encoder {model.settings['encoder']}")
    if "gap" in arguments.parts:
        show_gap(model, items, reason, arguments)
    if "sensitivity" in arguments.parts:
        show_sensitivity(model, items, sampler, arguments)
    if "attention" in arguments.parts:
        show_attention(model, items, sampler, arguments)


def show_gap(model: Enhancer, items: Sequence[Item], reason: str, arguments: argparse.Namespace) -> None:
    """Where in time the condition acts, and where to guide."""
    print("\ngap by time")
    if reason:
        print(f"without mismatched references ({reason})")
    if model.cond_drop_prob == 0:
        print("without the null condition: the model was trained without dropping references")
    rows = gap.measure(model, items, arguments.seed, arguments.batch_size)
    lines = gap.summary(rows)
    write_csv(rows, arguments.out / "gap.csv")
    write_csv(lines, arguments.out / "gap_by_time.csv")
    against = gap.NULL if gap.NULL in set(lines["against"]) else gap.MISMATCHED
    proposal = gap.propose(lines[lines["against"] == against])
    probe_plots.write_gap(lines, proposal, arguments.out / "gap.png")
    print(f"{'against':10}  {'t':>5}  {'Δ loss / loss':>24}  {'effect':>24}")
    for _, line in lines.iterrows():
        shares = [
            _with_interval(*line[[name, f"{name}_low", f"{name}_high"]], form)
            for name, form in (("relative_gap", "+.3f"), ("effect", ".4f"))
        ]
        print(f"{line['against']:10}  {line['t']:5.2f}  {shares[0]:>24}  {shares[1]:>24}")
    flags = "" if against == gap.NULL else " --guidance icg"
    if proposal.interval is None:
        print(f"no guidance interval is proposed: {proposal.reason}")
    else:
        low, high = proposal.interval
        print(f"--guidance_interval {low:g} {high:g}{flags}: {proposal.reason}")


def show_sensitivity(
    model: Enhancer, items: Sequence[Item], sampler: SamplerSettings, arguments: argparse.Namespace
) -> None:
    """What a louder band of the reference does."""
    rows = sensitivity.measure(model, items, sampler, arguments.seed, arguments.batch_size)
    write_csv(rows, arguments.out / "sensitivity.csv")
    probe_plots.write_sensitivity(rows, model.settings["sample_rate"], arguments.out / "sensitivity.png")
    files = sensitivity.selectivity(rows)
    score, own, elsewhere = (interval(files, name) for name in ("score", "own", "elsewhere"))
    print(f"\nsensitivity to {sensitivity.BOOST_DB:+.0f} dB in one band of the reference")
    print(f"attenuation of the noise in that band  {_with_interval(own.mean, own.low, own.high, '.2f')} dB more")
    print(
        f"in the other bands                     {_with_interval(elsewhere.mean, elsewhere.low, elsewhere.high, '.2f')}"
    )
    print(f"difference                             {_with_interval(score.mean, score.low, score.high, '.2f')}")


def show_attention(
    model: Enhancer, items: Sequence[Item], sampler: SamplerSettings, arguments: argparse.Namespace
) -> None:
    """Maps of a few files, spread over those that were read."""
    print("\nattention")
    if not attention.has_attention(model):
        print(NO_ATTENTION)
        return
    rows, rate = [], model.settings["sample_rate"]
    for place in np.unique(np.linspace(0, len(items) - 1, arguments.attention_files).round().astype(int)):
        item = items[place]
        found = attention.observe(model, item, sampler, arguments.seed)
        if found is None:
            print(f"{item.name}: its reference is silent")
            continue
        spectrum = 20 * model.transform.stft(item.noisy[None].to(model.device))[0].abs().clamp_min(1e-6).log10()
        path = arguments.out / f"attention_{Path(item.name).with_suffix('').as_posix().replace('/', '_')}.png"
        title, seconds = f"{item.name} {item.kind}", len(item.noisy) / rate
        probe_plots.write_attention(title, spectrum.cpu().numpy(), seconds, rate, item.timeline, found, path)
        rows.append([item.name, item.kind, found.tokens, found.tokens_used, found.own_band, len(found.by_band)])
        share = f", own band {found.own_band:.2f} (chance {1 / len(found.by_band):.2f})" * (len(found.by_band) > 1)
        print(f"{path}: {found.tokens_used:.1f} of {found.tokens} tokens share the attention{share}")
    columns = ["file", "kind", "tokens", "tokens_used", "own_band", "bands"]
    write_csv(pd.DataFrame(rows, columns=columns), arguments.out / "attention.csv")


def _with_interval(mean: float, low: float, high: float, form: str) -> str:
    return f"{mean:{form}}" if np.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


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
