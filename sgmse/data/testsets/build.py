"""A test set on disk: built beside its final place in parallel, resumed where it stopped, renamed when it is whole."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sgmse.common import files
from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure, file_digest, write_json, write_rows
from sgmse.common.workers import in_processes
from sgmse.data import audio, references
from sgmse.data.listing import composed
from sgmse.data.testsets.items import join
from sgmse.data.testsets.make import Row, make_item
from sgmse.data.testsets.plan import Draw, Plan

SET, MANIFEST, INCOMPLETE = "set.json", "manifest.csv", ".incomplete"
SUBTYPE = "PCM_16"
PROTOCOLS = ("disjoint", "same_class", "other_take", "mismatched", "oracle")
_SCRATCH = ".build"  # in the unfinished set: what was asked for, what is known of the items that are whole, their parts
_STATE, _ITEMS, _PARTS = f"{_SCRATCH}/arguments.json", f"{_SCRATCH}/items", f"{_SCRATCH}/parts"
# Of an item that is whole: its row of the manifest, the gain of its references, and [kind, source, source of the
# reference] of each part of its reference.
Made = dict[str, Any]


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
        found = _read_json(out / SET)
        if found.get("fingerprint") != plan.fingerprint():
            raise UserError(f"{out}: exists and is not this test set; choose another --out")
        shutil.rmtree(out / _SCRATCH, ignore_errors=True)  # of a process that was killed as it had renamed the folder
        return {**found, "was_there": True}
    folder = out.with_name(out.name + INCOMPLETE)
    with explain_failure(folder):
        _start(plan, folder)
        made = _make_items(plan, folder, jobs)
        summary = _write_partners(plan, folder, made)
        write_rows(folder / MANIFEST, list(made[0]["row"]), [item["row"] for item in made])
        for leftover in folder.rglob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()
        arguments = {**asdict(plan.recipe), "num": len(made)}
        content = {**origin, "arguments": arguments, "fingerprint": plan.fingerprint(), **summary}
        content["sha256"] = set_digest(folder)
        write_json(folder / SET, content)
        folder.replace(out)
        shutil.rmtree(out / _SCRATCH, ignore_errors=True)
    return content


def set_digest(folder: Path) -> str:
    """SHA-256 over the lines "hash  path" of all files of a set but set.json, sorted by path, as sha256sum prints."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in paths if name != SET and not name.startswith("."))
    lines = [f"{file_digest(paths[name])}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a set's manifest. Raises `UserError` for a folder without, and for an id that stands twice."""
    remedy = f"name the folder of a test set, with noisy/ and {MANIFEST}, or build the set anew"
    rows = files.read_rows(folder / MANIFEST, ("id",), remedy)
    for id, count in Counter(row["id"] for row in rows).items():
        if count > 1:
            raise UserError(f"{folder / MANIFEST}: {count} rows have the id {id}; leave one of them")
    return rows


def find_rows(folder: Path | None, keys: Iterable[str]) -> list[dict[str, str]]:
    """The row of each of `keys`, paths without suffix, in the manifest of `folder`: by path, else by name, else {}.

    By name only where no other of the keys has it.
    """
    rows = {composed(row["id"]): row for row in ([] if folder is None else read_rows(folder))}
    names = [composed(key) for key in keys]
    alike = Counter(Path(name).name for name in names)
    bare = [Path(name).name if alike[Path(name).name] == 1 else name for name in names]
    return [rows.get(name) or rows.get(other) or {} for name, other in zip(names, bare, strict=True)]


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _start(plan: Plan, folder: Path) -> None:
    """Make the folder, or check that the build found there is this one."""
    if not (folder / _STATE).is_file():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty and not of this command; choose another --out")
        write_json(folder / _STATE, {"fingerprint": plan.fingerprint(), "arguments": asdict(plan.recipe)})
    elif _read_json(folder / _STATE).get("fingerprint") != plan.fingerprint():
        raise UserError(
            f"{folder}: holds an unfinished build of other files or arguments, or a damaged one; repeat the command "
            f"that began it, or remove that folder"
        )


def _make_items(plan: Plan, folder: Path, jobs: int) -> list[Made]:
    """Make what is missing, `jobs` at a time, and return what is known of all items."""
    paths = {draw: folder / _ITEMS / f"{draw.id}.json" for draw in plan.draws}
    left = [draw for draw, path in paths.items() if not _read_json(path).keys() >= {"row", "gain", "parts"}]
    if len(left) < len(paths):
        print(f"{len(paths) - len(left)} of {len(paths)} items are there from an earlier start")
    for _ in in_processes(partial(_write_item, folder, replace(plan, draws=())), left, jobs, "Mixing"):
        pass
    return [_read_json(path) for path in paths.values()]


def _write_item(folder: Path, plan: Plan, draw: Draw) -> None:
    """The files of one item, and at last what is known of it, which says that they are whole."""
    item, rate = make_item(plan, draw), plan.recipe.sample_rate
    for name, waveform in item.signals.items():
        audio.write(folder / name / f"{draw.id}.flac", waveform, rate, SUBTYPE)
    for number, part in enumerate(item.parts):
        audio.write(folder / _PARTS / f"{draw.id}_{number}.wav", part.cut.reference, rate)
    parts = [(part.clip.kind, part.clip.source, part.reference_source) for part in item.parts]
    write_json(folder / _ITEMS / f"{draw.id}.json", {"row": item.row, "gain": item.gain, "parts": parts})


def _write_partners(plan: Plan, folder: Path, made: list[Made]) -> dict[str, Any]:
    """References that come from other items, at the level that they would have in this one; what set.json says."""
    rows = [item["row"] for item in made]
    lacking = {"other_take": [row for row in rows if not _path(folder, "other_take", row).is_file()]}
    attenuated = 0
    for protocol, chosen in _choose_partners(made, plan.recipe.seed, plan.recipe.name == "swap").items():
        lacking[protocol] = [row for row, names in zip(rows, chosen, strict=True) if None in names]
        for item, names in zip(made, chosen, strict=True) if not lacking[protocol] else ():
            row, rate = item["row"], plan.recipe.sample_rate
            parts = [audio.read(folder / _PARTS / f"{name}.wav", rate) for name in names]
            reference = np.float32(item["gain"]) * join(parts, rate)
            peak = audio.write(_path(folder, protocol, row), reference, rate, SUBTYPE)
            row[f"{protocol}_from"] = "+".join(dict.fromkeys(str(name).rpartition("_")[0] for name in names))
            row[f"{protocol}_db"] = round(-20 * math.log10(max(1.0, peak)), 2)  # lowered by so much to fit the file
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


def _choose_partners(made: list[Made], seed: int, swapped: bool) -> dict[str, list[list[str | None]]]:
    """By protocol, for each item the names of the parts (of other items) that make its reference; None: there is none.

    Of the same class each part has a partner of its own; a mismatched reference is that of another item as a whole.
    """
    names = [[f"{item['row']['id']}_{part}" for part in range(len(item["parts"]))] for item in made]
    every_name = [name for part_names in names for name in part_names]
    kinds, sources, reference_sources = zip(*(part for item in made for part in item["parts"]), strict=True)
    same = references.partners(kinds, sources, "same_class", seed, reference_sources)
    partner_of = {
        name: None if place is None else every_name[place] for name, place in zip(every_name, same, strict=True)
    }
    columns = ("kind", "source", "ref_source")
    kinds, sources, reference_sources = zip(*([item["row"][name] for name in columns] for item in made), strict=True)
    others = references.partners(kinds, sources, "mismatched", seed, reference_sources)
    if swapped:  # the other talker of the same mixture
        others = [place + 1 - 2 * (place % 2) for place in range(len(made))]
    return {
        "same_class": [[partner_of[name] for name in part_names] for part_names in names],
        "mismatched": [[None] if other is None else [*names[other]] for other in others],
    }


def _path(folder: Path, protocol: str, row: Row) -> Path:
    return folder / folder_of(protocol) / f"{row['id']}.flac"
