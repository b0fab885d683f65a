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

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sgmse.common.bounds import InputDir, InputModel
from sgmse.common.errors import UserError, run
from sgmse.common.files import require_own_folder
from sgmse.common.typed import print_next
from sgmse.settings.checks import check_sampler
from sgmse.settings.cli import positional, read_command_line
from sgmse.settings.config import Count, Seed

NO_ATTENTION = "the model has no cross-attention to tokens of its reference, so there is nothing to draw"


@dataclass(frozen=True)
class ProbeSettings:
    """What to look at, and how"""

    ckpt: InputModel = positional()
    """checkpoint of a conditioned model"""
    set: InputDir = positional()
    """folder with noisy/, clean/ and ref/"""
    parts: list[Literal["gap", "sensitivity", "attention"]] = field(
        default_factory=lambda: ["gap", "sensitivity", "attention"]
    )
    """what to look at"""
    out: Path = Path("probes")
    """folder of the results"""
    max_files: Count | None = None
    """so many files, spread over the set. Default: all"""
    attention_files: Count = 2
    """files of which attention is drawn"""
    N: Count | None = None
    """steps of the sampler. Default: the checkpoint's"""
    batch_size: Count = 8
    """times or references at once"""
    encoder_checkpoint: str | None = None
    """weights of a frozen clap or panns encoder"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs"""
    seed: Seed = 0
    """drives the noise"""


def main() -> None:
    """Run the parts that are asked for."""
    settings = read_command_line(ProbeSettings, __doc__)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.diagnostics.attention import has_attention, write_attention
    from sgmse.diagnostics.gap import write_gap
    from sgmse.diagnostics.items import load_conditioned, read_items
    from sgmse.diagnostics.sensitivity import write_sensitivity

    model = load_conditioned(settings.ckpt, settings.device, settings.encoder_checkpoint)
    if set(settings.parts) == {"attention"} and not has_attention(model):
        raise UserError(f"{settings.ckpt}: {NO_ATTENTION}; choose other --parts")
    sampler = model.sampler if settings.N is None else replace(model.sampler, N=settings.N)
    check_sampler(sampler, model.objective.name)
    items, reason = read_items(settings.set, model, settings.max_files)
    require_own_folder(settings.out, ["gap*", "sensitivity*", "attention*"])
    print(f"{len(items)} files of {settings.set}, encoder {model.settings['encoder']}")
    if "gap" in settings.parts:
        print("\ngap by time")
        if reason:
            print(f"without mismatched references ({reason})")
        if model.cond_drop_prob == 0:
            print("without the null condition: the model was trained without dropping references")
        print(write_gap(model, items, settings.seed, settings.batch_size, settings.out))
    if "sensitivity" in settings.parts:
        print("\n" + write_sensitivity(model, items, sampler, settings.seed, settings.batch_size, settings.out))
    if "attention" in settings.parts:
        print("\nattention")
        if not has_attention(model):
            print(NO_ATTENTION)
        else:
            print(
                *write_attention(model, items, sampler, settings.seed, settings.attention_files, settings.out), sep="\n"
            )
    print_next("scripts/guidance_sweep.py", "--ckpt", settings.ckpt, "--test_dir", settings.set)


if __name__ == "__main__":
    run(main)
