"""A test set on disk: built beside its final place in parallel, resumed where it stopped, renamed when it is whole."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest, write_json, write_rows
from sgmse.data import audio, references
from sgmse.data.testsets import items
from sgmse.data.testsets.make import Row, make_item
from sgmse.data.testsets.plan import Draw, Plan

SET, MANIFEST, INCOMPLETE = "set.json", "manifest.csv", ".incomplete"
SUBTYPE = "PCM_16"
PROTOCOLS = ("disjoint", "same_class", "other_take", "mismatched", "oracle")
_SCRATCH = ".build"  # in the unfinished set: what was asked for, rows of the items that are whole, their parts
_NOT_SHOWN = ("gain", "parts", "other_take", "kinds", "sources", "ref_sources")  # of a row, in the manifest
_STATE, _ROWS, _PARTS = f"{_SCRATCH}/arguments.json", f"{_SCRATCH}/rows", f"{_SCRATCH}/parts"


def folder_of(protocol: str) -> str:
    """The sub-folder of a set that holds the references of one protocol."""
    return "ref" if protocol == "disjoint" else f"ref_{protocol}"


def build(plan: Plan, out: Path, origin: dict[str, Any], jobs: int = 1) -> dict[str, Any]:
    """Write the set of `plan` to `out` and return the content of its set.json, to which `origin` is added.

    A set that is there already with the same arguments is left as it is. Everything is made in `out`.incomplete; what
    an interrupted build finished there is kept. Raises `UserError` where another build is in the way.
    """
    if out.name.endswith(INCOMPLETE):
        raise UserError(f"--out {out}: names that end in {INCOMPLETE} are for unfinished sets; choose another")
    if out.exists():
        return _finished(plan, out)
    folder = out.with_name(out.name + INCOMPLETE)
    _start(plan, folder, out)
    try:
        rows = _write_items(plan, folder, jobs)
        summary = _write_partners(plan, folder, rows)
        _write_manifest(folder / MANIFEST, rows)
        for leftover in folder.rglob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()
        arguments = {**asdict(plan.recipe), "num": len(rows)}
        told = {**origin, "arguments": arguments, "fingerprint": plan.fingerprint(), **summary}
        told["sha256"] = set_digest(folder)
        write_json(folder / SET, told)
        folder.replace(out)
        shutil.rmtree(out / _SCRATCH, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); check the folder and the disk") from error
    return told


def set_digest(folder: Path) -> str:
    """SHA-256 over the lines "hash  path" of all files of a set but set.json, sorted by path, as sha256sum prints."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in paths if name != SET and not name.startswith("."))
    lines = [f"{file_digest(paths[name])}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a set's manifest. Raises `UserError` for a folder that holds none."""
    path = folder / MANIFEST
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: cannot be read; name the folder of a test set, with noisy/ and {MANIFEST}") from None
    if not rows or "id" not in rows[0]:
        raise UserError(f"{path}: is no manifest of a test set, it has no column id; build the set anew")
    return rows


def _finished(plan: Plan, out: Path) -> dict[str, Any]:
    try:
        told = json.loads((out / SET).read_text(encoding="utf-8"))
        same = told["fingerprint"] == plan.fingerprint()
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(f"{out}: exists and is not this test set; choose another --out or remove it")
    return {**told, "was_there": True}


def _start(plan: Plan, folder: Path, out: Path) -> None:
    """Make the folder, or check that the build found there is this one."""
    state = {"fingerprint": plan.fingerprint(), "arguments": asdict(plan.recipe)}
    try:
        if (folder / _STATE).is_file():
            found = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if found.get("fingerprint") != state["fingerprint"]:
                raise UserError(
                    f"{folder}: holds an unfinished build of other files or arguments; repeat the command that began "
                    f"it, or remove that folder"
                )
            return
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty and not of this command; remove it or choose another --out")
        for name in (_ROWS, _PARTS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(folder / _STATE, state)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder}: is damaged; remove it or choose another --out") from error


def _write_items(plan: Plan, folder: Path, jobs: int) -> list[Row]:
    """Make what is missing, `jobs` at a time, and return the rows of all items."""
    paths = [folder / _ROWS / f"{draw.id}.json" for draw in plan.draws]
    left = [draw for draw, path in zip(plan.draws, paths, strict=True) if _row(path) is None]
    if len(left) < len(paths):
        print(f"{len(paths) - len(left)} of {len(paths)} items are there from an earlier start")
    for _ in tqdm(_run(plan, folder, left, jobs), total=len(left), desc="Mixing", unit="item"):
        pass
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _row(path: Path) -> Row | None:
    """The row of an item that is whole; None: it has to be made."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and row.keys() >= {"id", *_NOT_SHOWN} else None


def _run(plan: Plan, folder: Path, draws: list[Draw], jobs: int) -> Iterator[None]:
    if jobs == 1 or len(draws) < 2:
        yield from map(partial(_write_item, plan, folder), draws)
        return
    context = multiprocessing.get_context("spawn")  # forked processes may hang where a library runs threads
    with ProcessPoolExecutor(jobs, context, initializer=_receive, initargs=(plan, folder)) as pool:
        waiting = [pool.submit(_write_received, draw) for draw in draws]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool as error:
            raise UserError("a process died, maybe for lack of memory; run the command again with --jobs 1") from error
        finally:
            for future in waiting:
                future.cancel()


_received: tuple[Plan, Path] | None = None  # in a worker process: sent once, not with every item


def _receive(plan: Plan, folder: Path) -> None:
    global _received
    _received = plan, folder


def _write_received(draw: Draw) -> None:
    assert _received is not None
    _write_item(*_received, draw)


def _write_item(plan: Plan, folder: Path, draw: Draw) -> None:
    """The files of one item, and at last its row, which says that they are whole."""
    item = make_item(plan, draw)
    signals = {"clean": item.clean, "noise": item.noise, "noisy": item.clean + item.noise}
    signals |= {folder_of(protocol): reference for protocol, reference in item.references.items()}
    for name, waveform in signals.items():
        audio.write(folder / name / f"{draw.id}.flac", waveform, plan.recipe.sample_rate, SUBTYPE)
    for number, part in enumerate(item.parts):
        audio.write(folder / _PARTS / f"{draw.id}_{number}.wav", part, plan.recipe.sample_rate)
    extra = {"gain": item.gain, "parts": len(item.parts), "other_take": "other_take" in item.references}
    write_json(folder / _ROWS / f"{draw.id}.json", {**item.row, **extra})


def _write_partners(plan: Plan, folder: Path, rows: list[Row]) -> dict[str, Any]:
    """References that come from other items, at the level that they would have in this one; what set.json says."""
    heard = [(number, part) for number, row in enumerate(rows) for part in range(row["parts"])]
    columns = ("kinds", "sources", "ref_sources")
    kinds, sources, reference_sources = ([rows[number][name][part] for number, part in heard] for name in columns)
    same = references.partners(kinds, sources, "same_class", plan.recipe.seed, reference_sources)
    same_class: list[list[tuple[int, int] | None]] = [[] for _ in rows]
    for (number, _), partner in zip(heard, same, strict=True):
        same_class[number].append(None if partner is None else heard[partner])
    kinds, sources, reference_sources = ([row[name] for row in rows] for name in ("kind", "source", "ref_source"))
    others = references.partners(kinds, sources, "mismatched", plan.recipe.seed, reference_sources)
    mismatched: list[list[tuple[int, int] | None]] = [
        [None] if other is None else [(other, part) for part in range(rows[other]["parts"])] for other in others
    ]
    lacking = {"other_take": [row for row in rows if not row["other_take"]]}
    attenuated = 0
    for protocol, chosen in (("same_class", same_class), ("mismatched", mismatched)):
        lacking[protocol] = [row for row, parts in zip(rows, chosen, strict=True) if None in parts]
        for row, parts in zip(rows, chosen, strict=True) if not lacking[protocol] else ():
            names = [(rows[part[0]]["id"], part[1]) for part in parts if part is not None]
            row[f"{protocol}_from"] = "+".join(dict.fromkeys(name for name, _ in names))
            row[f"{protocol}_db"] = _write_partner(plan, folder, row, protocol, names)
            attenuated += row[f"{protocol}_db"] < 0
    if lacking["other_take"]:
        shutil.rmtree(folder / folder_of("other_take"), ignore_errors=True)
    return {
        "protocols": [protocol for protocol in PROTOCOLS if not lacking.get(protocol)],
        "not_built": {
            protocol: f"{len(without)} of {len(rows)} items allow none, first {without[0]['id']}"
            for protocol, without in lacking.items()
            if without
        },
        "looped": sum(bool(row["looped"]) for row in rows),
        "redrawn": sum(bool(row["redrawn"]) for row in rows),
        "leak_shared": sum(int(row["leak_shared"]) for row in rows),
        "references_attenuated": attenuated,
    }


def _write_partner(plan: Plan, folder: Path, row: Row, protocol: str, names: list[tuple[str, int]]) -> float:
    """One reference made of the parts of other items; by how many dB it was lowered to fit into the file, or 0."""
    rate = plan.recipe.sample_rate
    parts = [audio.read(folder / _PARTS / f"{name}_{number}.wav", rate) for name, number in names]
    reference = np.float32(row["gain"]) * items.join(parts, rate)
    peak = audio.write(folder / folder_of(protocol) / f"{row['id']}.flac", reference, rate, SUBTYPE)
    return round(-20 * math.log10(max(1.0, peak)), 2)


def _write_manifest(path: Path, rows: list[Row]) -> None:
    columns = [name for name in rows[0] if name not in _NOT_SHOWN]
    write_rows(path, columns, rows)
