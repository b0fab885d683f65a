"""Prepare a corpus: find or download it, check it, and write what training and test sets read.

VoiceBank-DEMAND becomes DIR/{train,valid,test}/{clean,noisy} (for --base_dir), with references for its test set. Of a
noise corpus only DIR/manifest.csv is written, the audio stays where it is: train with --noise_dir DIR. An interrupted
download or build goes on where it stopped when the command is repeated. docs/corpora.md says where each corpus comes
from, under which licence, and how it is split.

examples:
  python scripts/prepare.py voicebank --out data/voicebank --check
      download 5 GB, resample to 16 kHz, and check that the unprocessed test set scores PESQ 1.97
  python scripts/prepare.py esc50 --source ESC-50-master --out data/esc50 --exclude_classes crying_baby laughing
  python scripts/prepare.py audioset --source clips --out data/audioset --classes Engine Rain
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser
from sgmse.data.corpora import voicebank
from sgmse.data.corpora.manifest import MANIFEST, SPLITS, Clip
from sgmse.data.corpora.noise import NOISE_CORPORA, prepare


def main() -> None:
    arguments = parse_arguments()
    out = arguments.out
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, but a folder is needed")
    if arguments.name == "voicebank":
        voicebank.prepare(arguments.source, out, arguments.sample_rate)
        print(f"{out}: {counts(voicebank.pairs_per_split(out))}; train with --base_dir {out}")
        if arguments.check:
            check_pesq(out)
        return
    clips = prepare(
        NOISE_CORPORA[arguments.name],
        arguments.source,
        out,
        arguments.classes,
        arguments.exclude_classes,
        getattr(arguments, "folds", ()),
    )
    print(f"{out / MANIFEST}: {described(clips)}; train with --noise_dir {out}")


def parse_arguments() -> argparse.Namespace:
    """The command line: one sub-command for each corpus, with the options that it has."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME", title="corpora")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    common.add_argument("--source", type=Path, metavar="DIR", help="the corpus as published (default: download it)")
    speech = _add(names, common, "voicebank", "VoiceBank-DEMAND", voicebank.PAGE, voicebank.LICENCE)
    speech.add_argument("--sample_rate", type=int, default=16000, metavar="HZ", help="default: %(default)s")
    speech.add_argument("--check", action="store_true", help="score the unprocessed test set: PESQ has to be 1.97")
    for name, corpus in NOISE_CORPORA.items():
        noise = _add(names, common, name, corpus.title, corpus.page, corpus.licence)
        noise.add_argument("--classes", nargs="+", default=(), metavar="CLASS", help="only these classes")
        noise.add_argument("--exclude_classes", nargs="+", default=(), metavar="CLASS", help="without these classes")
        if corpus.folds:
            folds = f"only these folds of {corpus.folds[0]}-{corpus.folds[-1]}"
            noise.add_argument("--folds", nargs="+", type=int, default=(), metavar="FOLD", help=folds)
    arguments = parser.parse_args()
    if arguments.name == "voicebank" and not 8000 <= arguments.sample_rate <= 48000:
        raise UserError(f"--sample_rate {arguments.sample_rate}: must lie between 8000 and 48000 Hz, e.g. 16000")
    return arguments


def _add(
    names: argparse._SubParsersAction[Parser],
    common: argparse.ArgumentParser,
    name: str,
    title: str,
    page: str,
    licence: str,
) -> Parser:
    text = f"{title}: {page}, licence: {licence}"
    return names.add_parser(name, parents=[common], help=title, description=text)


def check_pesq(out: Path) -> None:
    """Score the unprocessed test set; a mean PESQ other than the published one is a `UserError`."""
    from sgmse.evaluation import scores as evaluation  # pandas and the metrics are needed here alone

    frame = evaluation.evaluate(out / "test" / "clean", {}, out / "test" / "noisy")
    mean = float(frame["pesq"].mean())
    print(f"PESQ of the unprocessed test set: {mean:.3f} (published: {voicebank.NOISY_PESQ})")
    if not abs(mean - voicebank.NOISY_PESQ) <= voicebank.PESQ_TOLERANCE:
        raise UserError(
            f"{out / 'test'}: the unprocessed files score PESQ {mean:.3f} instead of {voicebank.NOISY_PESQ}, so their "
            f"rate or pairing is wrong; prepare the corpus anew from the published files"
        )


def described(clips: list[Clip]) -> str:
    """Number of clips per split, of classes, of recordings, hours, and rates."""
    hours = sum(clip.seconds for clip in clips) / 3600
    rates = "/".join(f"{rate / 1000:g}" for rate in sorted({clip.sample_rate for clip in clips}))
    kinds, sources = ({getattr(clip, name) for clip in clips} for name in ("kind", "source"))
    per_split = counts(Counter(clip.split for clip in clips))
    return f"{per_split} clips, {len(kinds)} classes, {len(sources)} recordings, {hours:.1f} h at {rates} kHz"


def counts(splits: Counter[str]) -> str:
    return ", ".join(f"{splits[name]} {name}" for name in SPLITS if splits[name])


if __name__ == "__main__":
    run(main)
