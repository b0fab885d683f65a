"""What is done in an output folder: a row per file in `Results`, and run.json, which is written from it."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest, write_json
from sgmse.common.lock import locked_folder
from sgmse.enhancement.test_set import TestSet
from sgmse.evaluation.results import Results, differing_facts, read_facts, read_rows

RUN = "run.json"  # in the output folder: the settings, and which files are done with them
# paths, of which the checkpoint's hash and the references themselves count; a batch changes results below hearing
_MAY_DIFFER = ("checkpoint", "reference_dir", "batch_size")
_PATIENCE_S = 20.0  # of shards that start at the same time


@contextmanager
def open_ledger(folder: Path, facts: Mapping[str, Any], shard: str | None) -> Iterator[Results]:
    """Hold an output folder and its table; rows of other facts are removed. run.json is up to date afterwards.

    Args:
        folder: is made.
        facts: the settings of the run.
        shard: "K-of-N"; shards of the same settings may hold the folder at the same time.

    Raises:
        UserError: another process fills the folder, or it cannot be written.
    """
    removed = [] if shard is None else _remove_other_settings(folder, facts)
    with locked_folder(folder, "filled", shared=shard is not None):
        results = Results(folder, facts, shard, _MAY_DIFFER)
        results.changed = results.changed or removed
        write_run(results)
        try:
            yield results
        finally:
            write_run(results)


def _remove_other_settings(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """Remove the tables of other facts, alone in the folder: shards that are at work with them must not lose theirs.

    Returns the names of the facts that differ.
    """
    facts = json.loads(json.dumps(dict(facts)))
    deadline = time.monotonic() + _PATIENCE_S
    while differing_facts(folder, facts, _MAY_DIFFER):
        try:
            with locked_folder(folder, "filled with other settings"):
                return Results(folder, facts, None, _MAY_DIFFER).changed
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # another shard of these settings may be doing the same
    return []


def check_foreign(folder: Path, outputs: list[Path]) -> None:
    """Raise `UserError` where files of somebody else would be overwritten."""
    tables = read_facts(folder)
    if any("checkpoint_sha256" not in facts or "sampler" not in facts for facts in tables):
        raise UserError(f"{folder}: holds the results of another command; choose another --enhanced_dir")
    if tables:
        return
    if (folder / RUN).exists():  # of an earlier version of the command
        content = _read(folder / RUN)
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            raise UserError(f"{folder / RUN}: is damaged or not of this command; remove it or change --enhanced_dir")
        return
    for output in outputs:
        if output.exists():
            raise UserError(f"{output}: exists and was not made by this command; choose another --enhanced_dir")


def input_digests(test_set: TestSet) -> dict[str, str]:
    """Identity of what each file is made from: the contents of noisy file and reference, and where the latter is."""
    references = {item.name: test_set.path(item, test_set.protocol) for item in test_set.items}
    known = {path: _digest(path) for path in set(references.values()) if path is not None}
    found = {}
    for item in test_set.items:
        path = references[item.name]
        contents = (_digest(item.noisy), None if path is None else known[path], str(path))
        found[item.name] = hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
    return found


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its rights") from None


def read_done(folder: Path, facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a folder by file; none where they were made under other facts."""
    plain = json.loads(json.dumps(dict(facts)))
    return {} if differing_facts(folder, plain, _MAY_DIFFER) else {row["file"]: row for row in read_rows(folder)}


def is_done(row: Mapping[str, Any] | None, output: Path, digest: str) -> bool:
    """Whether the row of a file says that it was made from this input, and its output is still what was written."""
    if row is None or row["input"] != digest or not output.is_file():
        return False
    same: bool = row["output"] == file_digest(output)
    return same


def write_run(results: Results) -> None:
    """Write run.json: the settings, and for each finished file what it and its reference were made from.

    Shards may do it at the same time: each looks again after it wrote, so the last one leaves all of it.
    """
    path = results.folder / RUN
    while (content := describe_run(results)) != _read(path):
        write_json(path, content)


def describe_run(results: Results) -> dict[str, Any]:
    """The content of run.json."""
    rows = sorted(results.rows(), key=lambda row: str(row["file"]))
    content = results.facts | {
        "files": {row["file"]: row["input"] for row in rows},
        "references": {row["file"]: row["reference"] for row in rows},
    }
    for name in ("disagreement", "adaptive"):
        found = {row["file"]: row[name] for row in rows if row.get(name) is not None}
        content |= {name: found} if found else {}
    if results.facts.get("reference") == "estimated":
        content["estimated_from"] = dict(Counter(row["reference"] for row in rows))
    if rows:
        last = max(rows, key=lambda row: float(row["time"]))
        content |= {"nfe": last["nfe"], "passes": last["passes"]}
        content["rtf"] = round(sum(row["seconds"] for row in rows) / sum(row["audio_s"] for row in rows), 4)
    return content


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
