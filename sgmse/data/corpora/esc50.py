"""ESC-50: environmental sounds in five published folds."""

from __future__ import annotations

from pathlib import Path

from sgmse.common.download import Archive
from sgmse.data.corpora.layouts import NoiseCorpus, entries_with_fold, find_root
from sgmse.data.corpora.manifest import Entry

_SPLITS = {1: "train", 2: "train", 3: "train", 4: "valid", 5: "test"}  # of the folds


def read(folder: Path) -> list[Entry]:
    """ESC-50 (Piczak 2015) or its subset ESC-10: audio/ and meta/esc50.csv. Folds 1-3 train, 4 validate, 5 test.

    The published folds keep all clips of one recording together.
    """
    root = find_root(folder, "ESC-50", ("audio", "meta/esc50.csv"))
    table = root / "meta" / "esc50.csv"
    return entries_with_fold(table, "category", "src_file", _SPLITS, lambda row: root / "audio" / row["filename"])


CORPUS = NoiseCorpus(
    "ESC-50",
    read,
    "https://github.com/karolpiczak/ESC-50",
    "CC BY-NC 3.0 (its subset ESC-10: CC BY 3.0)",
    (Archive("https://github.com/karolpiczak/ESC-50/archive/master.zip", "ESC-50-master.zip"),),
    folds=tuple(_SPLITS),
)
