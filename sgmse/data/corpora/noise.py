"""Published noise corpora: where they are got, and their way from a folder or a download to a manifest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgmse.common.download import Archive, obtain
from sgmse.common.errors import UserError
from sgmse.data.corpora import layouts, manifest
from sgmse.data.corpora.audioset import audioset
from sgmse.data.corpora.manifest import Clip, Entry

_ZENODO = "https://zenodo.org/records/{record}/files/{name}?download=1"
_DEMAND_MD5: dict[str, str | None] = {  # as the Zenodo record states them
    "DKITCHEN_16k": "7ffbf52d7f4699f96927846103dc8788",
    "DLIVING_16k": "46741384d9e434a0bd8b3ec1830b6052",
    "DWASHING_16k": "7e5ee9437ce9409c5f9a779b6212a240",
    "NFIELD_16k": "a740046c6f4e174e16f5d568aaec5024",
    "NPARK_16k": "80f1385a34d7f1705758926b57f138ce",
    "NRIVER_16k": "54264db61d3fe073fb81f2e40e0d19b5",
    "OHALLWAY_16k": "fe918bbb0e63e73d09ba7f4843ef33f1",
    "OMEETING_16k": "62f7cfe7fe6d30b7d8a215fe37c2dfd2",
    "OOFFICE_16k": "7b61cc2d182d5a654cb9c3101ddd4041",
    "PCAFETER_16k": "99927d148128254141a9417d051510bb",
    "PRESTO_16k": "b98d2e6854eeebb397f29a8ad7457092",
    "PSTATION_16k": "d7448009f6c2aeb6ba570375df1750a3",
    "SPSQUARE_16k": "205d0e7b8fe74504a2f8d252fc414b9e",
    "STRAFFIC_16k": "2efa87262f272bbf9ba578088e81939c",
    "TBUS_16k": "706b11b0d8504f9f3b3f3211e91b3863",
    "TCAR_16k": "4d930012796bd298932245a26189f973",
    "TMETRO_16k": "95daf4df678e13b120e14211e6d89571",
    "SCAFE_48k": None,  # published at 48 kHz only
}


@dataclass(frozen=True)
class NoiseCorpus:
    """A published corpus. With `own_splits` its splits stay as published even if they share recordings."""

    title: str
    read: Callable[[Path], list[Entry]]
    page: str
    licence: str
    archives: tuple[Archive, ...] = ()
    folds: tuple[int, ...] = ()
    own_splits: bool = False


NOISE_CORPORA = {
    "esc50": NoiseCorpus(
        "ESC-50",
        layouts.esc50,
        "https://github.com/karolpiczak/ESC-50",
        "CC BY-NC 3.0 (its subset ESC-10: CC BY 3.0)",
        (Archive("https://github.com/karolpiczak/ESC-50/archive/master.zip", "ESC-50-master.zip"),),
        folds=tuple(range(1, 6)),
    ),
    "urbansound8k": NoiseCorpus(
        "UrbanSound8K",
        layouts.urbansound8k,
        "https://urbansounddataset.weebly.com/urbansound8k.html",
        "CC BY-NC 4.0 (Zenodo record 1203745)",
        (
            Archive(
                _ZENODO.format(record=1203745, name="UrbanSound8K.tar.gz"),
                "UrbanSound8K.tar.gz",
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        folds=tuple(range(1, 11)),
    ),
    "wham": NoiseCorpus(
        "WHAM! noise",
        layouts.wham,
        "http://wham.whisper.ai",
        "CC BY-NC 4.0",
        (
            Archive(
                "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/wham_noise.zip", "wham_noise.zip"
            ),
        ),
        own_splits=True,
    ),
    "audioset": NoiseCorpus(
        "AudioSet", audioset, "https://research.google.com/audioset/", "labels CC BY 4.0; each video has its own"
    ),
    "demand": NoiseCorpus(
        "DEMAND",
        layouts.demand,
        "https://zenodo.org/records/1227121",
        "CC BY-SA 3.0 in its text, CC BY 4.0 in its Zenodo record",
        tuple(
            Archive(_ZENODO.format(record=1227121, name=f"{name}.zip"), f"{name}.zip", md5 and f"md5:{md5}")
            for name, md5 in _DEMAND_MD5.items()
        ),
    ),
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
    entries = corpus.read(source if source is not None else obtain(corpus.archives, out / "download"))
    alone = without_shared_sources(entries)
    if len(alone) < len(entries):
        done = "they stay, as published" if corpus.own_splits else "they are left out"
        print(f"{len(entries) - len(alone)} of {len(entries)} clips have recordings that another split has too: {done}")
    entries = select(entries if corpus.own_splits else alone, classes, exclude_classes, folds)
    absent = [entry.path for entry in entries if not entry.path.is_file()]
    if absent:
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(
            f"{absent[0]}{others}: missing, though the metadata of {corpus.title} name {len(entries)} files; unpack or "
            f"download it again"
        )
    clips = manifest.measure(entries, out)
    manifest.write(out, clips)
    manifest.finish(out)
    return clips


def select(
    entries: Sequence[Entry], classes: Iterable[str], exclude_classes: Iterable[str], folds: Iterable[int]
) -> list[Entry]:
    """The entries of some classes and folds. A class or fold that does not exist is a `UserError`."""
    classes, exclude_classes, folds = set(classes), set(exclude_classes), set(folds)
    present = {kind for entry in entries for kind in entry.kinds}
    for flag, names in (("--classes", classes), ("--exclude_classes", exclude_classes)):
        for name in sorted(names - present):
            near = difflib.get_close_matches(name, present, 3) or sorted(present)[:10]
            raise UserError(f"{flag} {name}: no such class here; there are {len(present)}, e.g. {', '.join(near)}")
    there = {entry.fold for entry in entries if entry.fold is not None}
    for fold in sorted(folds - there):
        raise UserError(f"--folds {fold}: no such fold; there are {', '.join(map(str, sorted(there)))}")
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
    rank = {"train": 0, "valid": 1, "test": 2}
    highest: dict[str, int] = {}
    for entry in entries:
        highest[entry.source] = max(rank[entry.split], highest.get(entry.source, 0))
    return [entry for entry in entries if rank[entry.split] == highest[entry.source]]
