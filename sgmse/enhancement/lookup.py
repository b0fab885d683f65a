"""Finds the files of a test set, their clean partners and their noise references.

A test set is a folder SET/{noisy,clean,noise} with its disjoint references in SET/ref, those of other protocols in
SET/ref_PROTOCOL, and SET/manifest.csv, which names each item's `id`, `kind` of noise and `source` recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, listing, references
from sgmse.data.levels import Fault, find_faults, measure_level
from sgmse.data.references import HEAD_S, BorrowProtocol
from sgmse.data.testsets.build import MANIFEST, find_rows
from sgmse.enhancement.protocols import CHANGED, Protocol
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.baselines import load_baseline
from sgmse.evaluation.leakage import BLIND

_BORROWED: tuple[Protocol, ...] = ("same_class", "mismatched")
_PAIRING_SEED = 0  # not the sampler's: other seeds must not change which reference an item gets
Paths = dict[str, Path | None]  # by the name of the item
Key = TypeVar("Key")


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
    found, broken = listing.search(noisy_dir, "noisy speech")
    if is_scored:  # a set is whole, or its means are of another set
        listing.refuse_broken(broken)
    items = [Item(path.relative_to(noisy_dir).as_posix(), path) for path in found]
    if is_scored or protocol in _BORROWED:
        items = _with_rows(items, noisy_dir)
    if is_scored:
        partners = evaluation.match(folder / "clean", noisy_dir, "noisy speech")
        clean = listing.by_name(folder / "clean", "clean speech")
        clean_of = {noisy: clean[key] for key, noisy in partners.items()}
        items = [replace(item, clean=clean_of[item.noisy]) for item in items]
    has_own = noisy_dir.name == "noisy" and (noisy_dir.parent / "ref").is_dir()
    chosen: Protocol = protocol or ("disjoint" if has_own else "estimated")
    paths, reference_dir = _find_references(chosen, source, noisy_dir, items)
    known: dict[str, Paths] = {chosen: paths} if paths else {}
    return TestSet(noisy_dir, _spread(items, max_files), chosen, reference_dir, known, broken=broken)


def open_files(paths: Sequence[Path], protocol: Protocol | None = None, source: Path | None = None) -> TestSet:
    """Recordings that are named one by one (`listing.check_named`), with references that take no test set.

    These are `estimated` by default.
    """
    items, chosen = [Item(path.name, path) for path in paths], protocol or "estimated"
    found, reference_dir = _find_references(chosen, source, None, items)
    return TestSet(None, items, chosen, reference_dir, {chosen: found} if found else {})


def open_all_protocols(folder: Path, max_files: int | None = None) -> TestSet:
    """A scored test set with the references of every protocol that can run on it; `refused` says why others cannot.

    same_class and mismatched references that are borrowed from other items are brought to the level of the own ones.
    """
    has_own = (folder / "ref").is_dir()
    test_set = open_test_set(folder, "disjoint" if has_own else "none", is_scored=True)
    chosen = _spread(test_set.items, max_files)
    paths, refused, levelled = dict(test_set.paths), dict[str, str](), set[str]()
    if not has_own:
        refused["disjoint"] = f"{folder} holds no ref/"
        refused |= dict.fromkeys(CHANGED, "it changes the disjoint reference, and there is none")
    for protocol in (*_BORROWED, "oracle"):
        is_beside = (folder / f"ref_{protocol}").is_dir()
        if protocol == "oracle" and not is_beside:
            continue  # it is cut from noisy − clean
        try:
            found = _find_in_set(protocol, folder, test_set.items)
            if all(found[item.name] is None for item in chosen):
                raise UserError("no file has another item with fitting noise, by kind and source in manifest.csv")
        except UserError as error:
            refused[protocol] = str(error)
            continue
        paths[protocol] = found
        levelled |= set() if is_beside else {protocol}
    return replace(test_set, items=chosen, paths=paths, levelled=frozenset(levelled), refused=refused)


def check_inputs(test_set: TestSet, items: Sequence[Item], protocol: Protocol, n_fft: int, rate: int) -> None:
    """Raise `UserError` that names all files of a scored set that cannot be used: see `find_unusable`."""
    listing.refuse_broken(sorted(set(find_unusable(test_set, items, protocol, n_fft, rate).values())))


def find_unusable(
    test_set: TestSet, items: Sequence[Item], protocol: Protocol, n_fft: int, rate: int
) -> dict[str, str]:
    """Read every file once, before any is enhanced: each must be whole and long enough for a model at `rate`.

    Warns of recordings whose level spoils the result. Returns why an item cannot be enhanced, by its name.
    """
    unusable: dict[str, str] = {}
    spoiled: dict[Fault, list[Path]] = {}
    references: dict[Path, str] = {}  # why each cannot be used
    long: list[Path] = []
    for path in sorted({path for item in items if (path := test_set.path(item, protocol)) is not None}):
        with _kept(references, path, path):
            _check_reference(path, protocol, n_fft, rate)
            if audio.info(path).seconds > HEAD_S and protocol != "own_noise":
                long.append(path)
    for item in items:
        path = test_set.path(item, protocol)
        with _kept(unusable, item.name, item.noisy):
            for fault in _check_noisy(item, path, protocol, n_fft, rate):
                spoiled.setdefault(fault, []).append(item.noisy)
        if path in references:
            unusable.setdefault(item.name, references[path])
    if long:
        print(f"{len(long)} references are longer than {HEAD_S:g} s: their beginning is used, first {long[0]}")
    for fault, files in spoiled.items():
        print(f"warning: {len(files)} of {len(items)} files {fault.what}, first {files[0]}; {fault.remedy}")
    return unusable


@contextmanager
def _kept(broken: dict[Key, str], key: Key, path: Path) -> Iterator[None]:
    """Inside, what is wrong with a file is kept in `broken`."""
    try:
        yield
    except UserError as error:
        broken[key] = str(error)
    except OSError as error:
        broken[key] = f"{path}: cannot be read ({error.strerror}); check the path and its rights"


def _check_noisy(item: Item, reference: Path | None, protocol: Protocol, n_fft: int, rate: int) -> list[Fault]:
    """What spoils a noisy file; `UserError` where it cannot be used."""
    noisy = audio.info(item.noisy)
    if noisy.length_at(rate) <= n_fft // 2:
        frame_ms = n_fft / rate * 1000
        raise UserError(f"{item.noisy}: is shorter than one frame ({frame_ms:.0f} ms); take it out of the folder")
    level = measure_level(audio.read_blocks(item.noisy, None))
    partner = reference if protocol == "own_noise" else item.clean
    if partner is not None:
        clean = audio.info(partner)
        if (clean.num_frames, clean.sample_rate) != (noisy.num_frames, noisy.sample_rate):
            raise UserError(
                f"{partner}: holds {clean.num_frames} samples at {clean.sample_rate} Hz, its noisy file "
                f"{noisy.num_frames} at {noisy.sample_rate} Hz; a pair must agree, so cut or replace one"
            )
    return find_faults(noisy, level) if level.peak > 0 else []


def _check_reference(path: Path, protocol: Protocol, n_fft: int, rate: int) -> None:
    """Raise `UserError` where a reference cannot be used."""
    if audio.info(path).length_at(rate) < n_fft:
        raise UserError(f"{path}: is shorter than one frame ({n_fft / rate * 1000:.0f} ms); use a longer recording")
    if measure_level(audio.read_blocks(path, None)).peak == 0 and protocol == "file":
        raise UserError(f"{path}: is silent, so it tells nothing of the noise; use another --noise_ref")


def _spread(items: list[Item], max_files: int | None) -> list[Item]:
    """So many of `items`, spread evenly."""
    places = np.linspace(0, len(items) - 1, min(max_files or len(items), len(items))).round().astype(int)
    return [items[place] for place in np.unique(places)]


def _with_rows(items: Sequence[Item], noisy_dir: Path) -> list[Item]:
    """`items`, each with its row of the manifest beside the folder, where there is one."""
    is_set = noisy_dir.name == "noisy" and (noisy_dir.parent / MANIFEST).is_file()
    rows = find_rows(noisy_dir.parent if is_set else None, [item.key for item in items])
    return [replace(item, row=row) for item, row in zip(items, rows, strict=True)]


def _find_references(
    protocol: Protocol, source: Path | None, noisy_dir: Path | None, items: Sequence[Item]
) -> tuple[Paths, Path | None]:
    """The file of each item's reference (empty: the protocol needs none), and the folder where they are.

    noisy_dir: None for files that were named one by one.
    """
    if protocol == "file" and source is not None:
        if source.is_dir():
            raise UserError(f"{source}: is a folder; use --noise_ref_dir for a recording per file")
        if not source.is_file():
            raise UserError(f"{source}: no such file; check --noise_ref")
        if [item.noisy.resolve() for item in items] == [source.resolve()]:
            raise UserError(f"--noise_ref {source}: is the noisy file itself; name a recording of its noise alone")
        return {item.name: source for item in items}, None
    if protocol in ("folder", "own_noise") and source is not None:
        flag, what = ("clean_dir", "clean speech") if protocol == "own_noise" else ("noise_ref_dir", "noise references")
        if noisy_dir is not None and source.resolve() == noisy_dir.resolve():
            raise UserError(f"--{flag} {source} is the folder of the noisy files; name that of the {what}")
        return _match(items, source, what), source
    if protocol == "dtln":
        load_baseline("dtln")  # or refuse, before anything else is done
    if protocol in BLIND:
        return {}, None
    if noisy_dir is None or noisy_dir.name != "noisy":
        raise UserError(
            f"--reference {protocol}: {noisy_dir or items[0].noisy} is no test set with noisy/ and references in it; "
            "name its folder with --test_dir, or give --noise_ref_dir"
        )
    found, beside = _find_in_set(protocol, noisy_dir.parent, items), _folder_of(protocol, noisy_dir.parent)
    lacking = [name for name, path in found.items() if path is None]
    if lacking:
        kind = "the same kind from another source" if protocol == "same_class" else "another kind"
        raise UserError(
            f"{noisy_dir.parent / MANIFEST}: {len(lacking)} of {len(items)} files have no other item with noise of "
            f"{kind}, first {lacking[0]}; choose another --reference, or write references for all to {beside.name}/"
        )
    return found, beside if beside.is_dir() else noisy_dir.parent / "ref"


def _folder_of(protocol: str, folder: Path) -> Path:
    """Where a test set keeps the references of a protocol."""
    return folder / ("ref" if protocol == "disjoint" else f"ref_{protocol}")


def _find_in_set(protocol: str, folder: Path, items: Sequence[Item]) -> Paths:
    """The references of a test set: those in the protocol's own folder, else borrowed from other items.

    These are the disjoint references of other items, chosen by kind and source in the manifest; None: no item fits.
    """
    beside = _folder_of(protocol, folder)
    if beside.is_dir():
        return _match(items, beside, "noise references")
    if protocol not in _BORROWED:
        raise UserError(f"{folder}: holds no {beside.name} for --reference {protocol}; choose another --reference")
    missing = [name for name in ("ref", MANIFEST) if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder}: holds no {beside.name}/ for --reference {protocol}, and without {' and '.join(missing)} none "
            "is borrowed from other items; choose another --reference"
        )
    own = _match(items, folder / "ref", "noise references")
    for item in items:
        if not item.row:
            raise UserError(f"{folder / MANIFEST}: has no row whose id is {Path(item.name).stem}; add it")
        if not item.row.get("kind"):
            raise UserError(f"{folder / MANIFEST}: every row needs an id and a kind; fill in these columns")
    sources = [item.row.get("source") or item.row.get("noise") or item.row["id"] for item in items]
    reference_sources = [item.row.get("ref_source") or source for item, source in zip(items, sources, strict=True)]
    borrow: BorrowProtocol = next(name for name in get_args(BorrowProtocol) if name == protocol)
    kinds = [item.row["kind"] for item in items]
    chosen = references.partners(kinds, sources, borrow, _PAIRING_SEED, reference_sources)
    others = [None if place is None else own[items[place].name] for place in chosen]
    return {item.name: other for item, other in zip(items, others, strict=True)}


def _match(items: Sequence[Item], folder: Path, what: str) -> Paths:
    """For each item the file of the same path without suffix, else of the same stem."""
    found = listing.find_partners([item.key for item in items], folder, what)
    missing = [item.name for item in items if item.key not in found]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(items)} noisy files have no partner there (for {what}), first "
            f"{missing[0]}; partners have the same name"
        )
    return {item.name: found[item.key] for item in items}
