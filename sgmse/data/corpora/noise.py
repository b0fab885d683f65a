"""The noise corpora that can be prepared, and the way of one from a folder or a download to a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sgmse.common.download import obtain
from sgmse.common.errors import UserError
from sgmse.data.corpora import audioset, demand, esc50, manifest, urbansound8k, wham
from sgmse.data.corpora.layouts import NoiseCorpus
from sgmse.data.corpora.manifest import Clip, Entry

NOISE_CORPORA: dict[str, NoiseCorpus] = {
    "esc50": esc50.CORPUS,
    "urbansound8k": urbansound8k.CORPUS,
    "wham": wham.CORPUS,
    "audioset": audioset.CORPUS,
    "demand": demand.CORPUS,
}


def prepare(
    corpus: NoiseCorpus,
    source: Path | None,
    out: Path,
    classes: Sequence[str] = (),
    exclude_classes: Sequence[str] = (),
    folds: Sequence[int] = (),
) -> list[Clip]:
    """Write `out`/manifest.csv for the corpus in `source`, or below `out` after downloading it (None).

    No audio is copied. Sources that two splits share are taken out of the one that counts less.
    """
    if source is None and not corpus.archives:
        raise UserError(
            f"{corpus.title} cannot be downloaded from here; collect its clips as {corpus.page} says and name their "
            f"folder with --source"
        )
    folder = source if source is not None else obtain(corpus.archives, out / "download")
    entries = corpus.read(folder)
    alone = without_shared_sources(entries)
    if len(alone) < len(entries):
        done = "they stay, as published" if corpus.own_splits else "they are left out"
        print(f"{len(entries) - len(alone)} of {len(entries)} clips have recordings that another split has too: {done}")
    entries = select(entries if corpus.own_splits else alone, classes, exclude_classes, folds, folder)
    manifest.require_files(f"the metadata of {corpus.title}", entries, "unpack or download it again")
    clips = manifest.measure(entries, out)
    manifest.write(out, clips)
    return clips


def select(
    entries: Sequence[Entry],
    classes: Iterable[str],
    exclude_classes: Iterable[str],
    folds: Iterable[int],
    folder: Path,
) -> list[Entry]:
    """The entries of some classes and folds. A class or fold that `folder` does not hold is a `UserError`."""
    classes, exclude_classes, folds = set(classes), set(exclude_classes), set(folds)
    present = {kind for entry in entries for kind in entry.kinds}
    manifest.require_present("classes", sorted(classes), present, folder)
    manifest.require_present("exclude_classes", sorted(exclude_classes), present, folder)
    manifest.require_present("folds", sorted(folds), {e.fold for e in entries if e.fold is not None}, folder)
    chosen = [
        entry
        for entry in entries
        if (not classes or classes & set(entry.kinds))
        and not exclude_classes & set(entry.kinds)
        and (not folds or entry.fold in folds)
    ]
    if not chosen:
        raise UserError("nothing is left of the corpus; widen --classes, --exclude_classes or --folds")
    return chosen


def without_shared_sources(entries: Sequence[Entry]) -> list[Entry]:
    """The entries less those whose source also has clips in a split that counts more: test, then valid, then train."""
    highest: dict[str, int] = {}
    for entry in entries:
        highest[entry.source] = max(manifest.SPLITS.index(entry.split), highest.get(entry.source, 0))
    return [entry for entry in entries if manifest.SPLITS.index(entry.split) == highest[entry.source]]
