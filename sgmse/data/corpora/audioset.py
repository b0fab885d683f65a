"""AudioSet: clips that the user collected, and the CSV files that say what is in them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora.layouts import NoiseCorpus, rows_of, wrong_layout
from sgmse.data.corpora.manifest import Entry

_YOUTUBE_ID = 11  # characters
_VALID_SHARE, _TEST_SHARE = 0.1, 0.1
_WEIGHTS = ("", "train", "valid", "test")  # of splits, where tables disagree


def read(folder: Path) -> list[Entry]:
    """A local collection of AudioSet clips (Gemmeke et al. 2017) with one or more of its CSV files beside them.

    Clips are named by the YouTube id, with whatever behind it and an optional Y before it. The id is the source: it
    decides the split, unless the CSV is eval_segments.csv (test) or a training one (90 % train, 10 % valid by id).
    Of a clip's labels the rarest in the CSV comes first. Names come from class_labels_indices.csv where it is there.
    """
    labels, splits = _segments(folder)
    counts = Counter(label for found in labels.values() for label in found)
    entries = []
    for path in audio.find(folder, "AudioSet"):
        candidates = (path.stem[:_YOUTUBE_ID], path.stem[1 : _YOUTUBE_ID + 1] if path.stem[0] == "Y" else "")
        youtube_id = next((name for name in candidates if name in labels), None)
        if youtube_id is None:
            continue
        kinds = tuple(sorted(labels[youtube_id], key=lambda label: (counts[label], label)))
        entries.append(Entry(path, kinds, youtube_id, splits[youtube_id]))
    if not entries:
        raise UserError(f"{folder}: no audio file is named by a YouTube id of its CSV, e.g. {next(iter(labels))}.wav")
    return entries


def _segments(folder: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Labels and split of every YouTube id in AudioSet's CSV files (comment lines, then id, start, end, "labels")."""
    names: dict[str, str] = {}
    if (folder / "class_labels_indices.csv").is_file():
        rows = rows_of(folder / "class_labels_indices.csv", ("mid", "display_name"))
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


CORPUS = NoiseCorpus(
    "AudioSet", read, "https://research.google.com/audioset/", "labels CC BY 4.0; each video has its own"
)
