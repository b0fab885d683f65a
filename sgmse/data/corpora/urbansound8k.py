"""UrbanSound8K: slices of street recordings in ten published folds."""

from __future__ import annotations

from pathlib import Path

from sgmse.common.download import Archive
from sgmse.data.corpora.layouts import ZENODO, NoiseCorpus, entries_with_fold, find_root
from sgmse.data.corpora.manifest import Entry

_SPLITS = {**{fold: "train" for fold in range(1, 8)}, 8: "valid", 9: "test", 10: "test"}


def read(folder: Path) -> list[Entry]:
    """UrbanSound8K (Salamon et al. 2014): audio/foldN/ and metadata/UrbanSound8K.csv. Folds 1-7, 8 and 9-10."""
    root = find_root(folder, "UrbanSound8K", ("audio/fold1", "metadata/UrbanSound8K.csv"))
    return entries_with_fold(
        root / "metadata" / "UrbanSound8K.csv",
        "class",
        "fsID",
        _SPLITS,
        lambda row: root / f"audio/fold{row['fold']}" / row["slice_file_name"],
    )


CORPUS = NoiseCorpus(
    "UrbanSound8K",
    read,
    "https://urbansounddataset.weebly.com/urbansound8k.html",
    "CC BY-NC 4.0 (Zenodo record 1203745)",
    (
        Archive(
            ZENODO.format(record=1203745, name="UrbanSound8K.tar.gz"),
            "UrbanSound8K.tar.gz",
            "md5:9aa69802bbf37fb986f71ec1483a196e",
        ),
    ),
    folds=tuple(_SPLITS),
)
