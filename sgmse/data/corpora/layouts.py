"""The folder layouts and metadata of published noise corpora: folder in, entries (path, classes, source, split) out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora.manifest import Entry

# DEMAND: the first letter of an environment says where it was recorded
DEMAND_KINDS = {"D": "domestic", "N": "nature", "O": "office", "P": "public", "S": "street", "T": "transportation"}
# The noises of VoiceBank-DEMAND's test set are DEMAND's test split here, those of its training set are in train.
DEMAND_SPLITS = {
    "train": "DKITCHEN NFIELD NRIVER OMEETING PCAFETER PRESTO PSTATION STRAFFIC TCAR TMETRO".split(),
    "valid": "DWASHING NPARK OHALLWAY".split(),
    "test": "DLIVING OOFFICE SCAFE SPSQUARE TBUS".split(),
}
_ESC50_SPLITS = {1: "train", 2: "train", 3: "train", 4: "valid", 5: "test"}
_URBANSOUND_SPLITS = {**{fold: "train" for fold in range(1, 8)}, 8: "valid", 9: "test", 10: "test"}


def esc50(folder: Path) -> list[Entry]:
    """ESC-50 (Piczak 2015) or its subset ESC-10: audio/ and meta/esc50.csv. Folds 1-3 train, 4 validate, 5 test.

    The published folds keep all clips of one recording together.
    """
    root = find_root(folder, "ESC-50", ("audio", "meta/esc50.csv"))
    rows = rows_of(root / "meta" / "esc50.csv", ("filename", "fold", "category", "src_file"))
    return [
        Entry(root / "audio" / row["filename"], (row["category"],), row["src_file"], _ESC50_SPLITS[fold], fold)
        for row, fold in _with_fold(rows, root / "meta" / "esc50.csv", _ESC50_SPLITS)
    ]


def urbansound8k(folder: Path) -> list[Entry]:
    """UrbanSound8K (Salamon et al. 2014): audio/foldN/ and metadata/UrbanSound8K.csv. Folds 1-7, 8 and 9-10."""
    root = find_root(folder, "UrbanSound8K", ("audio/fold1", "metadata/UrbanSound8K.csv"))
    table = root / "metadata" / "UrbanSound8K.csv"
    rows = rows_of(table, ("slice_file_name", "fsID", "fold", "class"))
    return [
        Entry(
            root / f"audio/fold{fold}" / row["slice_file_name"],
            (row["class"],),
            row["fsID"],
            _URBANSOUND_SPLITS[fold],
            fold,
        )
        for row, fold in _with_fold(rows, table, _URBANSOUND_SPLITS)
    ]


def wham(folder: Path) -> list[Entry]:
    """WHAM! noise (Wichern et al. 2019): tr/, cv/, tt/ and, where present, metadata/noise_meta_{tr,cv,tt}.csv.

    With the metadata the class is the place of the recording, the source the long recording a clip was cut from.
    """
    root = find_root(folder, "WHAM! noise", ("tr", "cv", "tt"))
    entries = []
    for part, split in (("tr", "train"), ("cv", "valid"), ("tt", "test")):
        table = root / "metadata" / f"noise_meta_{part}.csv"
        known = {}
        if table.is_file():
            known = {row["utterance_id"]: row for row in rows_of(table, ("utterance_id", "File ID", "Location ID"))}
        for path in audio.find(root / part, "WHAM! noise"):
            row = known.get(path.name)
            kind, source = (row["Location ID"], row["File ID"]) if row else ("noise", path.stem)
            entries.append(Entry(path, (kind,), source, split))
    return entries


def demand(folder: Path) -> list[Entry]:
    """DEMAND (Thiemann et al. 2013): a folder per environment with ch01.wav ... ch16.wav; the first channel is taken.

    Where an environment is there at both rates, the one at 48 kHz is left out.
    """
    splits = {name: split for split, names in DEMAND_SPLITS.items() for name in names}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("ch01.wav"), key=lambda path: ("48k" in path.as_posix(), path)):
        names = [part.removesuffix("_16k").removesuffix("_48k") for part in path.relative_to(folder).parts]
        environment = next((name for name in names if name in splits), folder.name.split("_")[0])
        if environment in splits:
            found.setdefault(environment, path)
    if not found:
        raise wrong_layout(folder, "DEMAND", "a folder per environment, e.g. DKITCHEN/ch01.wav")
    return [Entry(path, (DEMAND_KINDS[name[0]],), name, splits[name]) for name, path in sorted(found.items())]


def find_root(folder: Path, corpus: str, needed: Sequence[str]) -> Path:
    """`folder` or the folder directly below it that holds all of `needed`, files or folders."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder (for {corpus}); check --source")
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if all((root / name).exists() for name in needed):
            return root
    raise wrong_layout(folder, corpus, ", ".join(needed))


def wrong_layout(folder: Path, corpus: str, expected: str) -> UserError:
    if not folder.is_dir():
        return UserError(f"{folder}: no such folder (for {corpus}); check --source")
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
    return UserError(f"{folder}: is not laid out as {corpus}: expected {expected}; found {found}")


def rows_of(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a corpus' own CSV file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file; download it again") from error
    missing = [name for name in columns if name not in (reader.fieldnames or [])]
    if missing or not rows:
        wanted = f"the column {missing[0]}" if missing else "any row"
        raise UserError(f"{path}: lacks {wanted}; expected the columns {', '.join(columns)}; download it again")
    return rows


def _with_fold(rows: Iterable[dict[str, str]], path: Path, folds: Iterable[int]) -> list[tuple[dict[str, str], int]]:
    known = {str(fold): fold for fold in folds}
    for row in rows:
        if row["fold"] not in known:
            raise UserError(f"{path}: names the fold '{row['fold']}'; the corpus has {', '.join(known)}")
    return [(row, known[row["fold"]]) for row in rows]
