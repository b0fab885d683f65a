"""DEMAND: eighteen environments, five minutes each, sixteen channels."""

from __future__ import annotations

from pathlib import Path

from sgmse.common.download import Archive
from sgmse.data.corpora.layouts import ZENODO, NoiseCorpus, wrong_layout
from sgmse.data.corpora.manifest import Entry

# DEMAND: the first letter of an environment says where it was recorded
KINDS = {"D": "domestic", "N": "nature", "O": "office", "P": "public", "S": "street", "T": "transportation"}
# The noises of VoiceBank-DEMAND's test set are DEMAND's test split here, those of its training set are in train.
SPLITS = {
    "train": "DKITCHEN NFIELD NRIVER OMEETING PCAFETER PRESTO PSTATION STRAFFIC TCAR TMETRO".split(),
    "valid": "DWASHING NPARK OHALLWAY".split(),
    "test": "DLIVING OOFFICE SCAFE SPSQUARE TBUS".split(),
}
_MD5: dict[str, str | None] = {  # as the Zenodo record states them
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


def read(folder: Path) -> list[Entry]:
    """DEMAND (Thiemann et al. 2013): a folder per environment with ch01.wav ... ch16.wav; the first channel is taken.

    Where an environment is there at both rates, the one at 48 kHz is left out.
    """
    splits = {name: split for split, names in SPLITS.items() for name in names}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("ch01.wav"), key=lambda path: ("48k" in path.as_posix(), path)):
        names = [part.removesuffix("_16k").removesuffix("_48k") for part in path.relative_to(folder).parts]
        environment = next((name for name in names if name in splits), folder.name.split("_")[0])
        if environment in splits:
            found.setdefault(environment, path)
    if not found:
        raise wrong_layout(folder, "DEMAND", "a folder per environment, e.g. DKITCHEN/ch01.wav")
    return [Entry(path, (KINDS[name[0]],), name, splits[name]) for name, path in sorted(found.items())]


CORPUS = NoiseCorpus(
    "DEMAND",
    read,
    "https://zenodo.org/records/1227121",
    "CC BY-SA 3.0 in its text, CC BY 4.0 in its Zenodo record",
    tuple(
        Archive(ZENODO.format(record=1227121, name=f"{name}.zip"), f"{name}.zip", md5 and f"md5:{md5}")
        for name, md5 in _MD5.items()
    ),
)
