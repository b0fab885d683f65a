"""Finds the files of a test set, their clean partners and their noise references.

A test set is a folder SET/{noisy,clean,noise} with its disjoint references in SET/ref, those of other protocols in
SET/ref_PROTOCOL, and SET/manifest.csv, which names each item's `id`, `kind` of noise and `source` recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, references, streams
from sgmse.data.references import BorrowProtocol
from sgmse.data.testsets.build import MANIFEST, read_rows
from sgmse.enhancement.protocols import CHANGED, Protocol
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import scores as evaluation

_BORROWED: tuple[Protocol, ...] = ("same_class", "mismatched")
_PAIRING_SEED = 0  # not the sampler's: other seeds must not change which reference an item gets
Paths = dict[str, Path | None]  # by the name of the item


def open_test_set(
    folder: Path,
    protocol: Protocol | None = None,
    source: Path | None = None,
    is_scored: bool = False,
    max_files: int | None = None,
) -> TestSet:
    """The files of a folder, or of the folder noisy/ in it, with their references.

    Args:
        folder: a test set, or a folder with noisy files at any depth.
        protocol: None: disjoint if there is ref/ beside noisy/, else estimated.
        source: the recording of `file`, the folder of references of `folder`, that of clean files of `own_noise`.
        is_scored: clean partners are needed too.
        max_files: so many files, spread evenly over the set; None: all.

    Raises:
        UserError: files are missing, or partners are not unique.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check --test_dir")
    noisy_dir = folder / "noisy" if (folder / "noisy").is_dir() else folder
    if is_scored and not ((folder / "noisy").is_dir() and (folder / "clean").is_dir()):
        raise UserError(f"{folder}: holds no noisy/ and clean/ to enhance and score; name a test set with --test_dir")
    files = audio.find(noisy_dir, "noisy speech")
    rows = _read_manifest(noisy_dir, files) if is_scored or protocol in _BORROWED else [{} for _ in files]
    found = [Item(path.relative_to(noisy_dir).as_posix(), path, row=row) for path, row in zip(files, rows, strict=True)]
    if is_scored:
        partners = evaluation.match(folder / "clean", noisy_dir, "noisy speech")
        clean = audio.by_name(folder / "clean", "clean speech")
        clean_of = {noisy: clean[key] for key, noisy in partners.items()}
        found = [replace(item, clean=clean_of[item.noisy]) for item in found]
    has_own = noisy_dir.name == "noisy" and (noisy_dir.parent / "ref").is_dir()
    chosen: Protocol = protocol or ("disjoint" if has_own else "estimated")
    paths, reference_dir = _find_references(chosen, source, noisy_dir, found)
    places = np.linspace(0, len(found) - 1, min(max_files or len(found), len(found))).round().astype(int)
    items = [found[place] for place in np.unique(places)]
    return TestSet(noisy_dir, items, chosen, reference_dir, {} if paths is None else {chosen: paths})


def open_all_protocols(folder: Path, max_files: int | None = None) -> TestSet:
    """A scored test set with the references of every protocol that can run on it; `refused` says why others cannot.

    same_class and mismatched references that are borrowed from other items are brought to the level of the own ones.
    """
    has_own = (folder / "ref").is_dir()
    test_set = open_test_set(folder, "disjoint" if has_own else "none", is_scored=True, max_files=max_files)
    everything = open_test_set(folder, "none", is_scored=True).items
    paths, refused, levelled = dict(test_set.paths), dict[str, str](), set[str]()
    if not has_own:
        refused["disjoint"] = f"{folder} holds no ref/"
        refused |= dict.fromkeys(CHANGED, "it changes the disjoint reference, and there is none")
    for protocol in (*_BORROWED, "oracle"):
        beside = (folder / f"ref_{protocol}").is_dir()
        if protocol == "oracle" and not beside:
            continue  # it is cut from noisy − clean
        try:
            if beside:
                paths[protocol] = _match(everything, folder / f"ref_{protocol}", "noise references")
            else:
                paths[protocol] = _borrow(protocol, folder, everything)
                levelled.add(protocol)
            if all(paths[protocol][item.name] is None for item in test_set.items):
                raise UserError("no file has another item with fitting noise, by kind and source in manifest.csv")
        except UserError as error:
            paths.pop(protocol, None)
            refused[protocol] = str(error)
    return replace(test_set, paths=paths, levelled=frozenset(levelled), refused=refused)


def check_inputs(test_set: TestSet, items: Sequence[Item], protocol: Protocol, n_fft: int, rate: int) -> None:
    """Read every file once, before any is enhanced: each must be whole and long enough for a model at `rate`."""
    used = [(item, test_set.path(item, protocol)) for item in items]
    for item, path in used:
        noisy = audio.info(item.noisy)
        if noisy.num_frames * rate // noisy.sample_rate <= n_fft // 2:
            raise UserError(f"{item.noisy}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); remove it")
        streams.check(item.noisy)
        if protocol == "own_noise" and path is not None:
            _check_clean(audio.info(path), noisy)
    for path in sorted({path for _, path in used if path is not None}):
        info = audio.info(path)
        if info.num_frames * rate // info.sample_rate < n_fft:
            raise UserError(f"{path}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); use a longer recording")
        if streams.check(path) == 0 and protocol == "file":
            raise UserError(f"{path}: is silent, so it tells nothing of the noise; use another --noise_ref")


def _check_clean(clean: audio.AudioInfo, noisy: audio.AudioInfo) -> None:
    if (clean.num_frames, clean.sample_rate) != (noisy.num_frames, noisy.sample_rate):
        raise UserError(
            f"{clean.path}: holds {clean.num_frames} samples at {clean.sample_rate} Hz, its noisy file "
            f"{noisy.num_frames} at {noisy.sample_rate} Hz; a pair must agree, so check --clean_dir"
        )


def _read_manifest(noisy_dir: Path, files: Sequence[Path]) -> list[Mapping[str, str]]:
    """The manifest's row of each file, found by its path without suffix or by its stem; {} without one."""
    manifest = noisy_dir.parent / MANIFEST
    is_set = noisy_dir.name == "noisy" and manifest.is_file()
    by_id = {row["id"]: row for row in read_rows(noisy_dir.parent)} if is_set else {}
    keys = [path.relative_to(noisy_dir).with_suffix("") for path in files]
    return [by_id.get(key.as_posix()) or by_id.get(key.name) or {} for key in keys]


def _find_references(
    protocol: Protocol, source: Path | None, noisy_dir: Path, items: Sequence[Item]
) -> tuple[Paths | None, Path | None]:
    """The file of each item's reference (None: the protocol needs none), and the folder where they are."""
    if protocol == "file" and source is not None:
        if source.is_dir():
            raise UserError(f"{source}: is a folder; use --noise_ref_dir for a recording per file")
        if not source.is_file():
            raise UserError(f"{source}: no such file; check --noise_ref")
        return {item.name: source for item in items}, None
    if protocol in ("folder", "own_noise") and source is not None:
        if protocol == "own_noise" and source.resolve() == noisy_dir.resolve():
            raise UserError(f"--clean_dir {source} is the folder of the noisy files; name that of the clean ones")
        return _match(items, source, "clean speech" if protocol == "own_noise" else "noise references"), source
    if protocol in ("none", "estimated", "self"):
        return None, None
    if noisy_dir.name != "noisy":
        raise UserError(
            f"--reference {protocol}: {noisy_dir} is no test set with noisy/ and references in it; name its folder "
            "with --test_dir, or give --noise_ref_dir"
        )
    folder = noisy_dir.parent
    beside = "ref" if protocol == "disjoint" else f"ref_{protocol}"
    if (folder / beside).is_dir():
        return _match(items, folder / beside, "noise references"), folder / beside
    if protocol not in _BORROWED:
        raise UserError(f"{folder}: holds no {beside} for --reference {protocol}; choose another --reference")
    found = _borrow(protocol, folder, items)
    alone = [name for name, path in found.items() if path is None]
    if alone:
        kind = "the same kind from another source" if protocol == "same_class" else "another kind"
        raise UserError(
            f"{folder / MANIFEST}: {len(alone)} of {len(items)} files have no other item with noise of {kind}, "
            f"first {alone[0]}; choose another --reference, or write references for all to {beside}/"
        )
    return found, folder / "ref"


def _borrow(protocol: str, folder: Path, items: Sequence[Item]) -> Paths:
    """For each item the disjoint reference of another one, by kind and source in the manifest; None: no item fits."""
    missing = [name for name in ("ref", MANIFEST) if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder}: holds no ref_{protocol}/ for --reference {protocol}, and without {' and '.join(missing)} none "
            "is borrowed from other items; choose another --reference"
        )
    own = _match(items, folder / "ref", "noise references")
    for item in items:
        if not item.row:
            raise UserError(f"{folder / MANIFEST}: has no row whose id is {Path(item.name).stem}; add it")
        if not item.row.get("kind"):
            raise UserError(f"{folder / MANIFEST}: every row needs an id and a kind; fill in these columns")
    sources = [row.get("source") or row.get("noise") or row["id"] for row in (item.row for item in items)]
    reference_sources = [item.row.get("ref_source") or source for item, source in zip(items, sources, strict=True)]
    kinds = [item.row["kind"] for item in items]
    borrow: BorrowProtocol = next(name for name in get_args(BorrowProtocol) if name == protocol)
    chosen = references.partners(kinds, sources, borrow, _PAIRING_SEED, reference_sources)
    return {
        item.name: None if other is None else own[items[other].name] for item, other in zip(items, chosen, strict=True)
    }


def _match(items: Sequence[Item], folder: Path, what: Literal["clean speech", "noise references"]) -> Paths:
    """For each item the file of the same path without suffix, else of the same stem."""
    by_path: dict[Path, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in audio.find(folder, what):
        by_path.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
        by_stem.setdefault(path.stem, []).append(path)
    partners: Paths = {}
    for name in (item.name for item in items):
        found = by_path.get(Path(name).with_suffix("")) or by_stem.get(Path(name).stem) or []
        if len(found) > 1:
            raise UserError(f"{name}: both {found[0]} and {found[1]} could be its partner; remove or rename one")
        if found:
            partners[name] = found[0]
    missing = [item.name for item in items if item.name not in partners]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(items)} noisy files have no partner there (for {what}), first "
            f"{missing[0]}; partners have the same name"
        )
    return partners
