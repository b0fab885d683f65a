"""The published noise corpora: where each comes from, how its metadata are read, and its way to a manifest."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgmse.common.download import Archive, obtain
from sgmse.common.errors import UserError
from sgmse.common.files import read_rows
from sgmse.data import listing
from sgmse.data.corpora.manifest import SPLITS, Clip, Entry, measure, require_files, require_present, write

_ZENODO = "https://zenodo.org/records/{record}/files/{name}?download=1"
_ESC50_SPLITS = {1: "train", 2: "train", 3: "train", 4: "valid", 5: "test"}  # of the folds
_URBANSOUND_SPLITS = {**{fold: "train" for fold in range(1, 8)}, 8: "valid", 9: "test", 10: "test"}
_YOUTUBE_ID = 11  # characters
_VALID_SHARE, _TEST_SHARE = 0.1, 0.1  # of AudioSet's ids
_WEIGHTS = ("", "train", "valid", "test")  # of splits, where tables of AudioSet disagree
# The first letter of an environment of DEMAND says where it was recorded.
DEMAND_KINDS = {"D": "domestic", "N": "nature", "O": "office", "P": "public", "S": "street", "T": "transportation"}
# The noises of VoiceBank-DEMAND's test set are DEMAND's test split here, those of its training set are in train.
DEMAND_SPLITS = {
    "train": "DKITCHEN NFIELD NRIVER OMEETING PCAFETER PRESTO PSTATION STRAFFIC TCAR TMETRO".split(),
    "valid": "DWASHING NPARK OHALLWAY".split(),
    "test": "DLIVING OOFFICE SCAFE SPSQUARE TBUS".split(),
}
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
    """A published corpus. With `own_splits` its splits stay as published even if they share recordings.

    read: the folder of the corpus → its files with class, source recording and split.
    """

    title: str
    read: Callable[[Path], list[Entry]]
    page: str
    licence: str
    archives: tuple[Archive, ...] = ()
    folds: tuple[int, ...] = ()
    own_splits: bool = False


def read_esc50(folder: Path) -> list[Entry]:
    """ESC-50 (Piczak 2015) or its subset ESC-10: audio/ and meta/esc50.csv. Folds 1-3 train, 4 validate, 5 test.

    The published folds keep all clips of one recording together.
    """
    table, files = _find_files(folder, "ESC-50", "esc50.csv")
    return _read_folds(table, "category", "src_file", _ESC50_SPLITS, lambda row: files[row["filename"]])


def read_urbansound8k(folder: Path) -> list[Entry]:
    """UrbanSound8K (Salamon et al. 2014): audio/foldN/ and metadata/UrbanSound8K.csv. Folds 1-7, 8 and 9-10."""
    table, files = _find_files(folder, "UrbanSound8K", "UrbanSound8K.csv")
    return _read_folds(table, "class", "fsID", _URBANSOUND_SPLITS, lambda row: files[row["slice_file_name"]])


def read_wham(folder: Path) -> list[Entry]:
    """WHAM! noise (Wichern et al. 2019): tr/, cv/, tt/ and, where present, metadata/noise_meta_{tr,cv,tt}.csv.

    With the metadata the class is the place of the recording, the source the long recording a clip was cut from.
    """
    root = _find_root(folder, "WHAM! noise", "tr", "cv", "tt")
    entries = []
    for part, split in (("tr", "train"), ("cv", "valid"), ("tt", "test")):
        table = root / "metadata" / f"noise_meta_{part}.csv"
        known = {}
        if table.is_file():
            known = {row["utterance_id"]: row for row in _read_table(table, "utterance_id", "File ID", "Location ID")}
        for path in listing.find(root / part, "WHAM! noise"):
            row = known.get(path.name)
            kind, source = (row["Location ID"], row["File ID"]) if row else ("noise", path.stem)
            entries.append(Entry(path, (kind,), source, split))
    return entries


def read_demand(folder: Path) -> list[Entry]:
    """DEMAND (Thiemann et al. 2013): a folder per environment with ch01.wav ... ch16.wav; the first channel is taken.

    Where an environment is there at both rates, the one at 48 kHz is left out.
    """
    splits = {name: split for split, names in DEMAND_SPLITS.items() for name in names}
    found: dict[str, Path] = {}
    paths = [path for path in listing.find(folder, "DEMAND") if path.name == "ch01.wav"]
    for path in sorted(paths, key=lambda path: ("48k" in path.as_posix(), path)):
        names = [part.removesuffix("_16k").removesuffix("_48k") for part in path.relative_to(folder).parts]
        environment = next((name for name in names if name in splits), folder.name.split("_")[0])
        if environment in splits:
            found.setdefault(environment, path)
    if not found:
        raise wrong_layout(folder, "DEMAND", "a folder per environment, e.g. DKITCHEN/ch01.wav")
    return [Entry(path, (DEMAND_KINDS[name[0]],), name, splits[name]) for name, path in sorted(found.items())]


def read_audioset(folder: Path) -> list[Entry]:
    """A local collection of AudioSet clips (Gemmeke et al. 2017) with one or more of its CSV files beside them.

    Clips are named by the YouTube id, with whatever behind it and an optional Y before it. The id is the source: it
    decides the split, unless the CSV is eval_segments.csv (test) or a training one (90 % train, 10 % valid by id).
    Of a clip's labels the rarest in the CSV comes first. Names come from class_labels_indices.csv where it is there.
    """
    labels, splits = _read_segments(folder)
    counts = Counter(label for found in labels.values() for label in found)
    entries = []
    for path in listing.find(folder, "AudioSet"):
        candidates = (path.stem[:_YOUTUBE_ID], path.stem[1 : _YOUTUBE_ID + 1] if path.stem[0] == "Y" else "")
        youtube_id = next((name for name in candidates if name in labels), None)
        if youtube_id is None:
            continue
        kinds = tuple(sorted(labels[youtube_id], key=lambda label: (counts[label], label)))
        entries.append(Entry(path, kinds, youtube_id, splits[youtube_id]))
    if not entries:
        raise UserError(f"{folder}: no audio file is named by a YouTube id of its CSV, e.g. {next(iter(labels))}.wav")
    return entries


def _read_segments(folder: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Labels and split of every YouTube id in AudioSet's CSV files (comment lines, then id, start, end, "labels")."""
    names: dict[str, str] = {}
    if (folder / "class_labels_indices.csv").is_file():
        rows = _read_table(folder / "class_labels_indices.csv", "mid", "display_name")
        names = {row["mid"]: row["display_name"] for row in rows}
    labels: dict[str, tuple[str, ...]] = {}
    splits: dict[str, str] = {}
    for path in sorted(folder.glob("*.csv")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not any(line.startswith("# YTID") for line in lines[:5]):
            continue
        for row in csv.reader((line for line in lines if not line.startswith("#")), skipinitialspace=True):
            if len(row) == 4:
                found = tuple(names.get(label, label) for label in row[3].split(","))
                labels[row[0]] = tuple(dict.fromkeys(labels.get(row[0], ()) + found))
                splits[row[0]] = max(_audioset_split(row[0], path.name), splits.get(row[0], ""), key=_WEIGHTS.index)
    if not labels:
        raise wrong_layout(folder, "AudioSet", "clips and a CSV file with '# YTID, start_seconds, ...' at its top")
    return labels, splits


def _audioset_split(youtube_id: str, table: str) -> str:
    place = int(hashlib.sha256(youtube_id.encode()).hexdigest()[:8], 16) / 16**8
    if table.startswith("eval"):
        return "test"
    if "train" in table:
        return "valid" if place < _VALID_SHARE else "train"
    return "valid" if place < _VALID_SHARE else "test" if place < _VALID_SHARE + _TEST_SHARE else "train"


def _find_root(folder: Path, corpus: str, *needed: str) -> Path:
    """`folder` or the folder directly below it that holds all of `needed`, files or folders."""
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for root in (folder, *below):
        if all((root / name).exists() for name in needed):
            return root
    raise wrong_layout(folder, corpus, ", ".join(needed))


class _Files(dict[str, Path]):
    """Paths by file name; that of a file that is not there is one beside the others."""

    def __missing__(self, name: str) -> Path:
        return next(iter(self.values())).with_name(name)


def _find_files(folder: Path, corpus: str, table: str) -> tuple[Path, _Files]:
    """The table of a corpus and its audio files, wherever they lie in `folder`: copies of it differ in their folders.

    Where a file is there at several rates, as `16000/a.wav` and `44100/a.wav`, the highest is taken.
    """
    tables = [path for pattern in ("", "*/", "*/*/") for path in sorted(folder.glob(pattern + table))]
    if not tables:
        raise wrong_layout(folder, corpus, f"audio and {table}")
    return tables[0], _Files({path.name: path for path in listing.find(folder, corpus)})


def wrong_layout(folder: Path, corpus: str, expected: str) -> UserError:
    """The error for a folder that is not there, or holds something else than a corpus."""
    if not folder.is_dir():
        return UserError(f"{folder}: no such folder (for {corpus}); check --source")
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
    return UserError(f"{folder}: is not laid out as {corpus}: expected {expected}; found {found}")


def _read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a corpus' own CSV file."""
    return read_rows(path, columns, "download it again")


def _read_folds(
    table: Path, kind: str, source: str, splits: Mapping[int, str], find_file: Callable[[dict[str, str]], Path]
) -> list[Entry]:
    """The files of a table with the column `fold`, which decides the split, and columns for class and recording."""
    known = {str(fold): fold for fold in splits}
    entries = []
    for row in _read_table(table, "fold", kind, source):
        if row["fold"] not in known:
            raise UserError(f"{table}: names the fold '{row['fold']}'; the corpus has {', '.join(known)}")
        fold = known[row["fold"]]
        entries.append(Entry(find_file(row), (row[kind],), row[source], splits[fold], fold))
    return entries


NOISE_CORPORA: dict[str, NoiseCorpus] = {
    "esc50": NoiseCorpus(
        "ESC-50",
        read_esc50,
        "https://github.com/karolpiczak/ESC-50",
        "CC BY-NC 3.0 (its subset ESC-10: CC BY 3.0)",
        (Archive("https://github.com/karolpiczak/ESC-50/archive/master.zip", "ESC-50-master.zip"),),
        folds=tuple(_ESC50_SPLITS),
    ),
    "urbansound8k": NoiseCorpus(
        "UrbanSound8K",
        read_urbansound8k,
        "https://urbansounddataset.weebly.com/urbansound8k.html",
        "CC BY-NC 4.0 (Zenodo record 1203745)",
        (
            Archive(
                _ZENODO.format(record=1203745, name="UrbanSound8K.tar.gz"),
                "UrbanSound8K.tar.gz",
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        folds=tuple(_URBANSOUND_SPLITS),
    ),
    "wham": NoiseCorpus(
        "WHAM! noise",
        read_wham,
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
        "AudioSet",
        read_audioset,
        "https://research.google.com/audioset/",
        "labels CC BY 4.0; each video has its own",
    ),
    "demand": NoiseCorpus(
        "DEMAND",
        read_demand,
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

    No audio is copied. Sources that two splits share are taken out of the one that counts less. A class or fold that
    the corpus does not hold is a `UserError`.
    """
    if source is None and not corpus.archives:
        raise UserError(
            f"{corpus.title} cannot be downloaded from here; collect its clips as {corpus.page} says and name their "
            f"folder with --source"
        )
    folder = source if source is not None else obtain(corpus.archives, out / "download")
    entries = corpus.read(folder)
    separate = _drop_shared_sources(entries)
    if len(separate) < len(entries):
        done = "they stay, as published" if corpus.own_splits else "they are left out"
        shared = len(entries) - len(separate)
        print(f"{shared} of {len(entries)} clips have recordings that another split has too: {done}")
    entries = entries if corpus.own_splits else separate
    kinds = {kind for entry in entries for kind in entry.kinds}
    require_present("classes", classes, kinds, folder)
    require_present("exclude_classes", exclude_classes, kinds, folder)
    require_present("folds", folds, {entry.fold for entry in entries} - {None}, folder)
    entries = [
        entry
        for entry in entries
        if (not classes or set(classes) & set(entry.kinds))
        and not set(exclude_classes) & set(entry.kinds)
        and (not folds or entry.fold in folds)
    ]
    if not entries:
        raise UserError("nothing is left of the corpus; widen --classes, --exclude_classes or --folds")
    require_files(f"the metadata of {corpus.title}", entries, "unpack or download it again")
    clips = measure(entries, out)
    write(out, clips)
    return clips


def _drop_shared_sources(entries: Sequence[Entry]) -> list[Entry]:
    """The entries less those whose source also has clips in a split that counts more: test, then valid, then train."""
    highest: dict[str, int] = {}
    for entry in entries:
        highest[entry.source] = max(SPLITS.index(entry.split), highest.get(entry.source, 0))
    return [entry for entry in entries if SPLITS.index(entry.split) == highest[entry.source]]
