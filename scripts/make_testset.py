"""Make a test set: speech mixed with noise that no training heard, its references under every protocol, a manifest.

  ood             one noise clip per item, classes and SNRs balanced
  nonstationary   noise that changes: two classes one after the other, a level that moves by 15 dB, sudden events
  talkers         one other talker, whose reference is another utterance: --noise_dir holds speech
  swap            two talkers at about one level; every mixture stands twice, and the reference, another utterance, says
                  which of them is to be removed: without it nobody could know. No --noise_dir

--noise_dir is a folder made by scripts/prepare.py, an ESC-50 tree, or a folder of recordings at any rate, whose
sub-folders are classes. Give --train_manifest (a manifest.csv of scripts/prepare.py, or the config.yaml of a run) to
have the set refused when something in it was trained on. An interrupted build goes on when the command is repeated.
What is in the folder afterwards: docs/testsets.md.

examples:
  python scripts/make_testset.py ood --speech_dir SPEECH/valid --noise_dir ESC-50-master --out sets/esc50 --num 800 \\
      --train_manifest logs/RUN/config.yaml
  python scripts/make_testset.py nonstationary --speech_dir SPEECH/valid --noise_dir ESC-50-master --folds 5 \\
      --out sets/changing --snr 0 5
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sgmse.common.bounds import Bounds, File, InputDir, Interval
from sgmse.common.errors import UserError, run
from sgmse.common.machine import cores
from sgmse.common.typed import print_next
from sgmse.data import corpora, listing
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import LARGEST_SNR_DB
from sgmse.data.noise.talkers import talker
from sgmse.data.testsets import build, heldout
from sgmse.data.testsets.make import MAX_SPEECH_S
from sgmse.data.testsets.plan import MIN_SPEECH_S, Recipe, make_plan, swap_recipe
from sgmse.settings.cli import positional, read_command_line
from sgmse.settings.config import Count, Seed


@dataclass(frozen=True)
class TestSetSettings:
    """What the set is made of"""

    name: Literal["ood", "nonstationary", "talkers", "swap"] = positional()
    """kind of set, see above"""
    speech_dir: InputDir = field(kw_only=True)
    """clean speech, at any depth"""
    noise_dir: InputDir | None = None
    """noise corpus"""
    out: Path = field(kw_only=True)
    """folder to make"""
    snr: Annotated[list[float], Bounds(-LARGEST_SNR_DB, LARGEST_SNR_DB)] | None = None
    """signal-to-noise ratios in dB, equally often in every class. Default: 0 5 10; of swap -2.5 0 2.5"""
    seconds: Annotated[list[float], Bounds(MIN_SPEECH_S, MAX_SPEECH_S)] = field(default_factory=list)
    """length of the items of ood or talkers, cut where the speech has the fewest pauses: speech without pauses tells
    least of the noise. Several make a set each, OUT/0.8s ..., of the same items. Default: whole files"""
    num: Count | None = None
    """items, of swap an even number. Default: as many as there are speech files"""
    seed: Seed = 0
    """drives every draw"""
    sample_rate: Annotated[int, Bounds(4000)] = 16000
    """of the set, in Hz"""
    classes: list[str] = field(default_factory=list)
    """noise classes. Default: all"""
    folds: list[int] = field(default_factory=list)
    """folds of the corpus. Default: all"""
    split: Literal["train", "valid", "test"] | None = None
    """split of the noise corpus. Default: all"""
    train_manifest: list[File] = field(default_factory=list)
    """what must not be in the set: a manifest.csv or a run's config.yaml"""
    reference_s: Annotated[list[float], Interval(0, excluded=(0,))] | None = None
    """shortest and longest reference in seconds. Default: 0.25 2; of swap 2 4"""
    jobs: Count = field(default_factory=cores)
    """processes"""


def main() -> None:
    """Check everything, build, say what came out and how to score it."""
    settings = read_command_line(TestSetSettings, __doc__)
    is_swap = settings.name == "swap"
    noise_dir = settings.speech_dir if is_swap else settings.noise_dir
    if noise_dir is None:
        raise UserError(f"{settings.name} needs a noise corpus; give --noise_dir")
    if is_swap and settings.noise_dir is not None:
        raise UserError("the noise of swap is speech of --speech_dir; leave --noise_dir out")
    if settings.seconds and settings.name not in ("ood", "talkers"):
        raise UserError(f"--seconds is for ood and talkers, not for {settings.name}; leave it out")
    speech, clips = read_speech(settings.speech_dir), choose_clips(settings, noise_dir)
    if settings.train_manifest:
        heldout.check_held_out(settings.train_manifest, clips, speech)
    else:
        print("warning: without --train_manifest nothing is compared with what the model was trained on")
    common: dict[str, Any] = {"num": settings.num, "seed": settings.seed, "sample_rate": settings.sample_rate}
    common |= {"snr_db": tuple(settings.snr)} if settings.snr else {}
    common |= {"reference_s": (settings.reference_s[0], settings.reference_s[1])} if settings.reference_s else {}
    recipe = swap_recipe(**common) if is_swap else Recipe(settings.name, **common)
    lengths: list[float | None] = [*settings.seconds] or [None]
    ladder_s = max(settings.seconds, default=None)
    for seconds in lengths:
        recipe = replace(recipe, seconds=seconds, ladder_s=ladder_s)
        plan = make_plan(recipe, settings.speech_dir, speech, noise_dir, clips)
        origin = {
            "set": settings.name,
            "speech_dir": str(settings.speech_dir),
            "noise_dir": str(noise_dir),
            "compared_with": [str(path) for path in settings.train_manifest],
        }
        out = settings.out / f"{seconds:g}s" if len(lengths) > 1 else settings.out
        report(out, build.build(plan, out, origin, settings.jobs))


def read_speech(folder: Path) -> list[AudioInfo]:
    """Headers of the clean files."""
    if (folder / "noisy").is_dir() and (folder / "clean").is_dir():
        raise UserError(f"--speech_dir {folder}: holds clean/ and noisy/; name {folder / 'clean'}")
    return listing.read_headers(listing.find(folder, "clean speech"))


def choose_clips(settings: TestSetSettings, noise_dir: Path) -> list[Clip]:
    """The clips of the corpus in the classes, folds and split that were asked for."""
    clips = corpora.clips(noise_dir)
    if settings.name in ("talkers", "swap"):
        clips = [replace(clip, kind=talker(clip.path), source=clip.path.stem) for clip in clips]
    splits = [settings.split] if settings.split else []
    for flag, name, wanted in (
        ("classes", "kind", settings.classes),
        ("folds", "fold", settings.folds),
        ("split", "split", splits),
    ):
        if wanted:
            present = {getattr(clip, name) for clip in clips} - {None}
            manifest.require_present(flag, wanted, present, noise_dir)
            clips = [clip for clip in clips if getattr(clip, name) in wanted]
    return clips


def report(out: Path, summary: dict[str, Any]) -> None:
    """What the set is, what it lacks, and the commands that come next."""
    rows = build.read_rows(out)
    minutes = sum(float(row["seconds"]) for row in rows) / 60
    kinds = Counter(kind for row in rows for kind in row["kind"].split("+"))
    print(f"{out}: {'was there already, ' if 'was_there' in summary else ''}{len(rows)} items, {minutes:.1f} min")
    fewest, most = min(kinds.values()), max(kinds.values())
    print(f"  {len(kinds)} classes of noise, each in {fewest if fewest == most else f'{fewest} to {most}'} items")
    print(f"  {summary['looped']} items with noise shorter than the speech (looped), {summary['redrawn']} drawn anew")
    print(f"  references: {', '.join(summary['protocols'])}")
    for protocol, why in summary["not_built"].items():
        print(f"  no {protocol} references: {why}")
    if summary["leak_shared"]:
        print(f"  warning: {summary['leak_shared']} references share samples with their noise, see leak_shared")
    if summary["references_attenuated"]:
        print(f"  {summary['references_attenuated']} references of other items were attenuated to fit into 16 bit")
    print(f"  sha256 {summary['sha256']}")
    print_next("enhancement_noise_cond.py", out, "--ckpt", "CKPT", "-o", f"enhanced/{out.name}")


if __name__ == "__main__":
    run(main)
