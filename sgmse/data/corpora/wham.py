"""WHAM! noise: long recordings in cafes, restaurants and bars, cut into clips."""

from __future__ import annotations

from pathlib import Path

from sgmse.common.download import Archive
from sgmse.data import audio
from sgmse.data.corpora.layouts import NoiseCorpus, find_root, rows_of
from sgmse.data.corpora.manifest import Entry


def read(folder: Path) -> list[Entry]:
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


CORPUS = NoiseCorpus(
    "WHAM! noise",
    read,
    "http://wham.whisper.ai",
    "CC BY-NC 4.0",
    (Archive("https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/wham_noise.zip", "wham_noise.zip"),),
    own_splits=True,
)
