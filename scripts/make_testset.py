"""Make a test set: speech mixed with noise that no training heard, its references under every protocol, a manifest.

  ood             one noise clip per item, classes and SNRs balanced
  nonstationary   noise that changes: two classes one after the other, a level that moves by 15 dB, sudden events
  talkers         one other talker, whose reference is another utterance: --noise_dir holds speech

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

import argparse
import collections
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser, cores
from sgmse.data import audio, corpora
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import LARGEST_SNR_DB
from sgmse.data.noise.talkers import talker
from sgmse.data.testsets import build, heldout
from sgmse.data.testsets.plan import Recipe, make_plan


def main() -> None:
    """Check everything, build, say what came out and how to score it."""
    arguments = parse_arguments()
    recipe = Recipe(
        arguments.name,
        tuple(arguments.snr),
        arguments.num,
        arguments.seed,
        arguments.sample_rate,
        tuple(arguments.reference_s),
    )
    speech = speech_files(arguments.speech_dir)
    clips = chosen_clips(arguments)
    if arguments.train_manifest:
        compare(arguments, speech, clips)
    else:
        print("warning: without --train_manifest nothing is compared with what the model was trained on")
    plan = make_plan(recipe, arguments.speech_dir, speech, arguments.noise_dir, clips)
    origin = {
        "set": arguments.name,
        "speech_dir": str(arguments.speech_dir),
        "noise_dir": str(arguments.noise_dir),
        "compared_with": [str(path) for path in arguments.train_manifest],
    }
    report(arguments.out, build.build(plan, arguments.out, origin, arguments.jobs))


def parse_arguments() -> argparse.Namespace:
    """The command line; numbers are checked before any file is looked at."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("ood", "nonstationary", "talkers"))
    parser.add_argument("--speech_dir", type=Path, metavar="DIR", required=True, help="clean speech, at any depth")
    parser.add_argument("--noise_dir", type=Path, metavar="DIR", required=True, help="noise corpus")
    parser.add_argument("--out", type=Path, metavar="SET", required=True, help="folder to make")
    parser.add_argument("--snr", type=float, nargs="+", default=[0, 5, 10], metavar="DB", help="default: 0 5 10")
    parser.add_argument("--num", type=count, default=None, metavar="N|all", help="items (default: all, one per speech)")
    parser.add_argument("--seed", type=int, default=0, help="drives every draw (default: 0)")
    parser.add_argument("--sample_rate", type=int, default=16000, metavar="HZ", help="of the set (default: 16000)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="noise classes (default: all)")
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="folds of the corpus (default: all)")
    parser.add_argument("--split", choices=manifest.SPLITS, help="split of the noise corpus (default: all)")
    parser.add_argument(
        "--train_manifest", type=Path, nargs="+", default=[], metavar="FILE", help="what must not be in the set"
    )
    parser.add_argument(
        "--reference_s",
        type=float,
        nargs=2,
        default=(0.25, 2.0),
        metavar=("MIN", "MAX"),
        help="shortest and longest reference in seconds (default: 0.25 2)",
    )
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="processes (default: one per core)")
    arguments = parser.parse_args()
    shortest, longest = arguments.reference_s
    if not 0 < shortest <= longest or not math.isfinite(longest):
        raise UserError(f"--reference_s {shortest:g} {longest:g}: needs 0 < MIN <= MAX; change them")
    for snr_db in arguments.snr:
        if not abs(snr_db) <= LARGEST_SNR_DB:
            raise UserError(f"--snr {snr_db:g}: one of the two would be inaudible; stay within ±{LARGEST_SNR_DB} dB")
    for name, least in (("seed", 0), ("sample_rate", 4000), ("jobs", 1)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name} {getattr(arguments, name)}: {least} or more is needed")
    return arguments


def count(text: str) -> int | None:
    """A number of items, or None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on, or all, is needed")
    return int(text)


def speech_files(folder: Path) -> list[AudioInfo]:
    """Headers of the clean files."""
    if (folder / "noisy").is_dir() and (folder / "clean").is_dir():
        raise UserError(f"--speech_dir {folder}: holds clean/ and noisy/; name {folder / 'clean'}")
    return [audio.info(path) for path in audio.find(folder, "clean speech")]


def chosen_clips(arguments: argparse.Namespace) -> list[Clip]:
    """The clips of the corpus in the classes, folds and split that were asked for."""
    clips = corpora.clips(arguments.noise_dir)
    if arguments.name == "talkers":
        clips = [replace(clip, kind=talker(clip.path), source=clip.path.stem) for clip in clips]
    for flag, field in (("classes", "kind"), ("folds", "fold"), ("split", "split")):
        wanted = getattr(arguments, flag)
        if wanted is None:
            continue
        wanted = wanted if isinstance(wanted, list) else [wanted]
        present = {getattr(clip, field) for clip in clips}
        refuse_absent(flag, wanted, present - {None}, arguments.noise_dir)
        clips = [clip for clip in clips if getattr(clip, field) in wanted]
    return clips


def refuse_absent(flag: str, wanted: Sequence[object], present: set[object], folder: Path) -> None:
    """Raise `UserError` for a class, fold or split that no clip has (any more, after the flags before)."""
    for value in wanted:
        if value not in present:
            names = sorted(map(str, present))
            listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise UserError(f"--{flag} {value}: {folder} has none; it has {listed or 'no such information'}")


def compare(arguments: argparse.Namespace, speech: Sequence[AudioInfo], clips: Sequence[Clip]) -> None:
    """Raise `UserError` when something was trained on; warn where it served validation, which chose the checkpoint."""
    named = heldout.names_sources(arguments.noise_dir)
    for split in ("train", "valid"):
        seen = heldout.used_by(arguments.train_manifest, split)
        for what, candidates, by_source, remedy in (
            ("noise", clips, named, "choose others with --split, --folds or --classes"),
            ("speech", heldout.speech_clips(speech), False, "name another --speech_dir"),
        ):
            found = heldout.overlap(candidates, by_source, seen, what)
            if found and split == "train":
                raise UserError(
                    f"{found[0][0].path}: was trained on ({found[0][1]}), one of {len(found)} among the "
                    f"{len(candidates)} {what} files for the test set; {remedy}"
                )
            if found:
                first = found[0][0].path
                print(f"warning: {len(found)} of {len(candidates)} {what} files served validation, first {first}")


def report(out: Path, told: dict) -> None:
    """What the set is, what it lacks, and the commands that come next."""
    rows = build.read_rows(out)
    minutes = sum(float(row["seconds"]) for row in rows) / 60
    kinds = collections.Counter(kind for row in rows for kind in row["kind"].split("+"))
    print(f"{out}: {'was there already, ' if 'was_there' in told else ''}{len(rows)} items, {minutes:.1f} min")
    fewest, most = min(kinds.values()), max(kinds.values())
    print(f"  {len(kinds)} classes of noise, each in {fewest if fewest == most else f'{fewest} to {most}'} items")
    print(f"  {told['looped']} items with noise shorter than the speech (looped), {told['redrawn']} drawn anew")
    print(f"  references: {', '.join(told['protocols'])}")
    for protocol, why in told["not_built"].items():
        print(f"  no {protocol} references: {why}")
    if told["leak_shared"]:
        print(f"  warning: {told['leak_shared']} references share samples with their noise, see leak_shared")
    if told["references_attenuated"]:
        print(f"  {told['references_attenuated']} references of other items were attenuated to fit into 16 bit")
    print(f"  sha256 {told['sha256']}")
    print(f"score:   python scripts/evaluate.py --clean_dir {out}/clean --noisy_dir {out}/noisy")
    print(f"enhance: python enhancement_noise_cond.py --ckpt CKPT --test_dir {out} --enhanced_dir DIR")


if __name__ == "__main__":
    run(main)
