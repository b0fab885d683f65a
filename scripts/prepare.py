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

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sgmse.common.bounds import Bounds, OneOf
from sgmse.common.errors import UserError, run
from sgmse.common.typed import print_next
from sgmse.data.corpora import manifest, voicebank
from sgmse.data.corpora.manifest import MANIFEST
from sgmse.data.corpora.published import NOISE_CORPORA, prepare
from sgmse.settings.cli import positional, read_command_line

VOICEBANK = "voicebank"


@dataclass(frozen=True)
class PrepareSettings:
    """Which corpus, from where to where"""

    name: Annotated[str, OneOf((VOICEBANK, *NOISE_CORPORA))] = positional()
    """corpus"""
    out: Path = field(kw_only=True)
    """folder to write to"""
    source: Path | None = None
    """the corpus as published. Default: download it"""
    sample_rate: Annotated[int, Bounds(8000, 48000)] = 16000
    """of voicebank, in Hz; noise keeps its own"""
    splits: list[Literal["train", "test"]] = field(default_factory=lambda: ["train", "test"])
    """of voicebank: only these of the published sets; train becomes train and valid"""
    check: bool = False
    """voicebank: score the unprocessed test set, whose PESQ has to be 1.97"""
    classes: list[str] = field(default_factory=list)
    """noise: only these classes"""
    exclude_classes: list[str] = field(default_factory=list)
    """noise: without these classes"""
    folds: list[int] = field(default_factory=list)
    """esc50 and urbansound8k: only these folds"""


def main() -> None:
    settings = read_command_line(PrepareSettings, f"{__doc__}\ncorpora:\n{list_corpora()}")
    refuse_foreign_flags(settings)
    out = settings.out
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, but a folder is needed")
    manifest.require_own(out)
    if settings.name == VOICEBANK:
        voicebank.prepare(settings.source, out, settings.sample_rate, settings.splits)
        print(f"{out}: {manifest.count_per_split(manifest.read(out / MANIFEST))}")
        if settings.check:
            check_pesq(out)
        print_next("scripts/doctor.py", "--data", out)
        if "train" in settings.splits:
            print_next("train.py", "--base_dir", out)
        return
    corpus = NOISE_CORPORA[settings.name]
    clips = prepare(corpus, settings.source, out, settings.classes, settings.exclude_classes, settings.folds)
    print(f"{out / MANIFEST}: {manifest.describe(clips)}")
    print_next("scripts/doctor.py", "--speech_dir", "SPEECH", "--noise_dir", out)
    print_next("train.py", "--speech_dir", "SPEECH", "--noise_dir", out)


def list_corpora() -> str:
    """A line for each corpus: where it comes from and under which licence."""
    rows = {VOICEBANK: ("VoiceBank-DEMAND", voicebank.PAGE, voicebank.LICENCE)}
    rows |= {name: (corpus.title, corpus.page, corpus.licence) for name, corpus in NOISE_CORPORA.items()}
    return "\n".join(f"  {name:13}{title}: {page}, licence: {licence}" for name, (title, page, licence) in rows.items())


def refuse_foreign_flags(settings: PrepareSettings) -> None:
    """Raise `UserError` for a flag that the corpus does not have."""
    default = PrepareSettings(settings.name, out=settings.out)
    known = {"sample_rate", "splits", "check"} if settings.name == VOICEBANK else {"classes", "exclude_classes"}
    if settings.name != VOICEBANK and NOISE_CORPORA[settings.name].folds:
        known.add("folds")
    if settings.check and "test" not in settings.splits:
        raise UserError("--check scores the test set; leave it out, or prepare the test set with --splits test")
    for flag in ("sample_rate", "splits", "check", "classes", "exclude_classes", "folds"):
        if flag not in known and getattr(settings, flag) != getattr(default, flag):
            raise UserError(f"--{flag}: {settings.name} has no such setting; leave it out")


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


if __name__ == "__main__":
    run(main)
