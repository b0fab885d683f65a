"""Which noise reference each noisy file is enhanced with.

A test set is a folder SET/{noisy,clean,noise} with its disjoint references in SET/ref, those of other protocols in
SET/ref_PROTOCOL, and SET/manifest.csv, which names each item's `id`, `kind` of noise and `source` recording.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sgmse.common.errors import UserError
from sgmse.data import audio, references
from sgmse.data.references import BorrowProtocol
from sgmse.settings.config import EnhanceConfig

Protocol = Literal[
    "none",
    "file",
    "folder",
    "own_noise",
    "disjoint",
    "same_class",
    "other_take",
    "mismatched",
    "oracle",
    "estimated",
    "self",
]
_PAIRING_SEED = 0  # not the sampler's: other seeds must not change which reference an item gets


@dataclass(frozen=True)
class Lookup:
    """folder: where references are, if in a folder. files: one per noisy file; None: it has none, or needs no file.

    For `own_noise` they are the clean files.
    """

    protocol: Protocol
    folder: Path | None
    files: list[Path | None]


def look_up(config: EnhanceConfig, noisy_dir: Path, names: list[Path]) -> Lookup:
    """The references that `config` asks for; `names` are the noisy files' paths below `noisy_dir`."""
    if config.noise_ref is not None:
        if Path(config.noise_ref).is_dir():
            raise UserError(f"{config.noise_ref}: is a folder; use --noise_ref_dir for a recording per file")
        return Lookup("file", None, [Path(config.noise_ref)] * len(names))
    if config.noise_ref_dir is not None:
        return _from_folder("folder", Path(config.noise_ref_dir), names)
    if config.oracle_noise:
        clean_dir = Path(str(config.clean_dir))
        if clean_dir.resolve() == noisy_dir.resolve():
            raise UserError(f"--clean_dir {clean_dir} is the folder of the noisy files; name that of the clean ones")
        return Lookup("own_noise", clean_dir, [*_partners(names, clean_dir, "clean speech")])
    in_set = noisy_dir.name == "noisy"
    asked = config.reference or ("disjoint" if in_set and (noisy_dir.parent / "ref").is_dir() else "estimated")
    if asked in ("none", "estimated", "self"):
        return Lookup(asked, None, [None] * len(names))
    if not in_set:
        raise UserError(
            f"--reference {asked}: {noisy_dir} is no test set with noisy/ and references in it; name its folder with "
            f"--test_dir, or give --noise_ref_dir"
        )
    return _from_set(asked, noisy_dir.parent, names)


def _from_set(protocol: Protocol, folder: Path, names: list[Path]) -> Lookup:
    """The references of a test set, written beside it or borrowed from its other items."""
    beside = "ref" if protocol == "disjoint" else f"ref_{protocol}"
    if (folder / beside).is_dir():
        return _from_folder(protocol, folder / beside, names)
    if protocol == "same_class" or protocol == "mismatched":
        if (folder / "ref").is_dir() and (folder / "manifest.csv").is_file():
            return _borrowed(protocol, folder, names)
        beside += "/, nor ref/ with manifest.csv"
    raise UserError(f"{folder}: holds no {beside} for --reference {protocol}; choose another --reference")


def _from_folder(protocol: Protocol, folder: Path, names: list[Path]) -> Lookup:
    return Lookup(protocol, folder, [*_partners(names, folder, "noise references")])


def _borrowed(protocol: BorrowProtocol, folder: Path, names: list[Path]) -> Lookup:
    """For each file the disjoint reference of another item of the set."""
    found = borrowed(protocol, folder, names)
    alone = [name for name, other in zip(names, found, strict=True) if other is None]
    if alone:
        kind = "the same kind from another source" if protocol == "same_class" else "another kind"
        raise UserError(
            f"{folder / 'manifest.csv'}: {len(alone)} of {len(names)} files have no other item with noise of {kind}, "
            f"first {alone[0]}; choose another --reference, or write references for all to ref_{protocol}/"
        )
    return Lookup(protocol, folder / "ref", found)


def borrowed(protocol: BorrowProtocol, folder: Path, names: list[Path]) -> list[Path | None]:
    """For each file of SET/noisy the disjoint reference of another item, by the manifest; None: no item fits."""
    own, rows = _partners(names, folder / "ref", "noise references"), _rows(folder / "manifest.csv", names)
    sources = [row.get("source") or row.get("noise") or row["id"] for row in rows]
    reference_sources = [row.get("ref_source") or source for row, source in zip(rows, sources, strict=True)]
    kinds = [row["kind"] for row in rows]
    chosen = references.partners(kinds, sources, protocol, _PAIRING_SEED, reference_sources)
    return [None if other is None else own[other] for other in chosen]


def _rows(manifest: Path, names: Sequence[Path]) -> list[dict[str, str]]:
    """The manifest's row of each noisy file, found by its path without suffix or by its stem."""
    try:
        with open(manifest, newline="", encoding="utf-8") as file:
            by_id = {row.get("id", ""): row for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{manifest}: cannot be read as a CSV table; write it again") from None
    if not all(row.get("id") and row.get("kind") for row in by_id.values()) or not by_id:
        raise UserError(f"{manifest}: every row needs an id and a kind; fill in these columns")
    rows = []
    for name in names:
        row = by_id.get(name.with_suffix("").as_posix()) or by_id.get(name.stem)
        if row is None:
            raise UserError(f"{manifest}: has no row whose id is {name.stem}; add it or remove that noisy file")
        rows.append(row)
    return rows


def _partners(names: list[Path], folder: Path, what: str) -> list[Path]:
    """For each relative path the file of the same path without suffix, else of the same stem."""
    by_path: dict[Path, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in audio.find(folder, what):
        by_path.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
        by_stem.setdefault(path.stem, []).append(path)
    partners: list[Path] = []
    missing = []
    for name in names:
        found = by_path.get(name.with_suffix("")) or by_stem.get(name.stem) or []
        if len(found) > 1:
            raise UserError(f"{name}: both {found[0]} and {found[1]} could be its partner; remove or rename one")
        partners += found
        missing += [] if found else [name]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} noisy files have no partner there (for {what}), first "
            f"{missing[0]}; partners have the same name"
        )
    return partners
