"""Files in → enhanced files out, in a folder.

What is done in an output folder is a row per file in `Results`, and run.json, which is written from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest, write_json
from sgmse.common.lock import locked_folder
from sgmse.common.progress import progress
from sgmse.data import audio, listing
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.engine import Enhanced
from sgmse.enhancement.lookup import find_unusable
from sgmse.enhancement.recordings import Row, write_in_parts, write_whole
from sgmse.enhancement.request import Request, describe_request, make_request
from sgmse.enhancement.test_set import Item
from sgmse.evaluation.results import Results, differing_facts, read_facts, read_rows
from sgmse.settings.config import EnhanceConfig

RUN = "run.json"  # in the output folder: the settings, and which files are done with them
PICTURE = "adaptive_guidance.png"
HIGH_DISAGREEMENT = 0.25  # files above it are warned of
EXPORT_S = 20.0  # between two writings of run.json
# paths, of which the checkpoint's hash and the references themselves count; a batch changes results below hearing
_MAY_DIFFER = ("checkpoint", "reference_dir", "batch_size")
_PATIENCE_S = 20.0  # of shards that start at the same time


def enhance_folder(
    config: EnhanceConfig,
    guidance: GuidanceSettings,
    sampler: dict[str, Any],
    is_temporary: bool = False,
    suffix: str = "",
) -> Request:
    """Enhance every file of `config.noisy` or `config.test_dir`. Returns what was asked for, as it was resolved.

    Args:
        sampler: settings that replace the checkpoint's.
        is_temporary: the output folder serves a single file, so that it is not worth a word.
        suffix: see `Request`.
    """
    request = dataclasses.replace(make_request(config, guidance, sampler), suffix=suffix)
    test_set, items, out_dir = request.test_set, request.items, request.out_dir
    print("\n".join(describe_request(request)))
    if not is_temporary:
        named = "" if config.test_dir or config.noisy else " (the test set that comes along; see --help)"
        print(f"noisy: {test_set.folder or ' '.join(config.noisy)}{named}")
        print(f"enhanced: {out_dir}" + ("" if config.enhanced_dir else " (choose with --enhanced_dir)"))
    if request.shard is not None:
        print(f"shard {config.shard}: {len(items)} of {len(test_set.items)} files")
    check_foreign(out_dir, [request.output(item.name) for item in items])
    inputs = input_digests(request)
    is_other = differing_facts(out_dir, request.facts, _MAY_DIFFER)
    left = _find_left(request, [] if is_other else read_rows(out_dir), inputs)
    # before the folder is touched, and before hours of work
    n_fft, rate = request.engine.model.settings["n_fft"], request.engine.rate
    unusable = find_unusable(test_set, left, test_set.protocol, n_fft, rate)
    broken = sorted({*test_set.broken, *unusable.values()})
    items = [item for item in items if item.name not in unusable]
    if not items or request.setting.needs_unrelated:  # the reference of any file may serve another
        listing.refuse_broken(broken)
    if broken:
        print(f"warning: left out, because they cannot be used: {listing.join_sentences(broken)}")
    left = [item for item in left if item.name not in unusable]
    if left or is_other or not out_dir.is_dir() or os.access(out_dir, os.W_OK, effective_ids=True):
        recorded = request.facts
        if not left and not is_other:  # with nothing to do the record stays as it is
            recorded = next(iter(read_facts(out_dir)), recorded)
        _enhance_left(dataclasses.replace(request, items=items), inputs, unusable, recorded)
    else:
        print(f"all {len(items)} files are done already with these settings; the folder is read-only")
    if broken:
        remedy = "mend them or move them away"
        raise UserError(
            f"all other files are enhanced, {len(broken)} cannot be used ({remedy}): {listing.join_sentences(broken)}"
        )
    return request


def _enhance_left(
    request: Request, inputs: Mapping[str, str], unusable: Iterable[str], recorded: Mapping[str, Any]
) -> None:
    """Enhance what is not done yet of the items of `request`, under settings that are `recorded`.

    unusable: names of files that can have no result.
    """
    items, out_dir = request.items, request.out_dir
    with open_ledger(out_dir, recorded, request.shard) as results:
        left = _find_left(request, results.rows(), inputs)
        if results.changed:
            print(f"all files are done again: {', '.join(results.changed)} changed since the last run")
        elif len(left) < len(items):
            print(f"{len(items) - len(left)} files are done already with these settings")
        results.remove([*(item.name for item in left), *unusable])
        write_run(results)
        rows = _enhance_items(request, left, results, inputs)
        missing = [item.name for item in items if not request.output(item.name).is_file()]
        if missing:
            raise UserError(f"{out_dir}: {len(missing)} results are gone, first {missing[0]}; run the command again")
        _report(request, rows, results.rows())


def _enhance_items(request: Request, items: Sequence[Item], results: Results, inputs: Mapping[str, str]) -> list[Row]:
    """Enhance and write files, and add a row for each group as soon as it is written. `inputs`: digests by name."""
    rows: list[Row] = []
    exported = start = time.monotonic()
    with progress(len(items), "enhancing") as counter:
        for group in _write_groups(request, items):
            seconds, total = time.monotonic() - start, sum(row["audio_s"] for row in group)
            for row in group:
                row["input"], row["output"] = inputs[row["file"]], file_digest(request.output(row["file"]))
                row |= {"time": time.time(), "seconds": seconds * row["audio_s"] / total}
            results.add(group)
            rows += group
            counter.update(len(group))
            start = time.monotonic()
            if start - exported > EXPORT_S:
                write_run(results)
                exported = start
    return rows


def _write_groups(request: Request, items: Sequence[Item]) -> Iterator[list[Row]]:
    """Rows of files that were enhanced together: long ones alone, the others with those of equally many frames.

    Files are written while the next ones are enhanced.
    """
    engine, setting, size = request.engine, request.setting, request.engine.chunks.size
    headers = listing.read_headers(item.noisy for item in items)
    is_long = [size > 0 and header.seconds * engine.rate > size for header in headers]
    short = [item for item, long in zip(items, is_long, strict=True) if not long]
    with ThreadPoolExecutor(1, "writing") as thread:
        at_work: Future[list[Row]] | None = None
        try:
            for group in engine.encode_groups(request.test_set, setting, short):
                found = engine.enhance_group(group, setting)
                if at_work is not None:
                    yield at_work.result()
                at_work = thread.submit(_write_group, request, found)
        except (Exception, KeyboardInterrupt):
            if at_work is not None:  # it is whole, whatever became of the next one
                yield at_work.result()
            raise
        if at_work is not None:
            yield at_work.result()
    for item, long in zip(items, is_long, strict=True):
        if long:
            yield [_make_row(request, item, write_in_parts(request, item))]


def _write_group(request: Request, found: Sequence[Enhanced]) -> list[Row]:
    return [_make_row(request, enhanced.item, write_whole(request, enhanced)) for enhanced in found]


def _make_row(request: Request, item: Item, written: Row) -> Row:
    """The row of a file that was written: `written` with what it belongs to, and what guidance made of its distances.

    Of several channels, each of which is guided by its own distance, the mean stands there.
    """
    spread, distances = written["disagreement"], torch.tensor(written.pop("distances"))
    row: Row = {"checkpoint": request.engine.model.checkpoint_sha256, "setting": request.setting.key, "file": item.name}
    row |= written | {"disagreement": None if spread is None else round(spread, 4), "adaptive": None}
    if len(distances):
        distance, w = distances.mean().item(), request.setting.guidance.scale_at(distances).mean().item()
        # infinite: the reference says nothing
        known = round(distance, 4) if math.isfinite(distance) else None
        row["adaptive"] = {"distance": known, "guidance_scale": round(w, 4)}
    return row


def _report(request: Request, rows: Sequence[Row], done: Sequence[Row]) -> None:
    """Print warnings and costs of the files of this run; draw the adaptive scale over all files that are `done`."""
    protocol, guidance, model = request.setting.protocol, request.setting.guidance, request.engine.model
    for row in rows:
        name = row["file"]
        if row["peak"] > 1:
            fits = audio.info(request.output(name)).is_float
            fate = "" if fits else "; the whole file was attenuated to fit"
            print(f"warning: the result of {name} reached {row['peak']:.2f}, beyond ±1{fate}")
        if (row["disagreement"] or 0) > HIGH_DISAGREEMENT:
            share = f"{row['disagreement']:.2f} of their level"
            print(f"warning: the samples of {name} disagree by {share}; the model invents here")
    silent = [row["file"] for row in rows if row["is_null"] and protocol != "none"]
    if silent:
        print(f"warning: {len(silent)} references are silent and became the null condition, first that of {silent[0]}")
    if protocol == "estimated":
        ways = Counter(row["reference"] for row in done if not row["is_null"])
        print(f"estimated from stretches without speech: {ways['gaps']} files, from minima: {ways['minimum']}")
    if rows and guidance.is_adaptive and model.familiarity is not None:
        from sgmse.evaluation.figures import draw_adaptive_scale  # matplotlib takes a second to load

        known = [row["adaptive"] for row in done if row["adaptive"] and row["adaptive"]["distance"] is not None]
        files = [(entry["distance"], entry["guidance_scale"]) for entry in known]
        draw_adaptive_scale(guidance, model.familiarity, files, request.out_dir / PICTURE)
    if rows:
        seconds, audio_s = sum(row["seconds"] for row in rows), sum(row["audio_s"] for row in rows)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        if model.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(model.device) / 1e9
        costs = f"nfe {rows[-1]['nfe']}, passes {rows[-1]['passes']}, peak memory {memory:.2f} GB"
        print(f"{len(rows)} files, {audio_s:.0f} s of audio: real-time factor {seconds / audio_s:.3f}, {costs}")


# ---- what is done in the folder ----


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
    removed: list[str] = []
    deadline = time.monotonic() + _PATIENCE_S
    while shard is not None and differing_facts(folder, facts, _MAY_DIFFER):
        try:  # alone in the folder: shards that are at work with other settings must not lose their tables
            with locked_folder(folder, "filled with other settings"):
                removed = Results(folder, facts, None, _MAY_DIFFER).changed
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # another shard of these settings may be doing the same
    with locked_folder(folder, "filled", shared=shard is not None):
        results = Results(folder, facts, shard, _MAY_DIFFER)
        results.changed = results.changed or removed
        write_run(results)
        try:
            yield results
        finally:
            write_run(results)


def check_foreign(folder: Path, outputs: list[Path]) -> None:
    """Raise `UserError` where files of somebody else would be overwritten."""
    tables = read_facts(folder)
    if any("checkpoint_sha256" not in facts or "sampler" not in facts for facts in tables):
        raise UserError(f"{folder}: holds the results of another command; choose another --enhanced_dir")
    if tables:
        return
    if (folder / RUN).exists():  # of an earlier version of the command
        if not isinstance(read_record(folder / RUN).get("files"), dict):
            raise UserError(f"{folder / RUN}: is damaged or not of this command; choose another --enhanced_dir")
        return
    for output in outputs:
        if output.exists():
            raise UserError(f"{output}: exists and was not made by this command; choose another --enhanced_dir")


def input_digests(request: Request) -> dict[str, str]:
    """Identity of what each file is made from: the contents of noisy file and references, and where its own one is."""
    sources = {item.name: list_sources(request, item) for item in request.items}
    used = {path for paths in sources.values() for path in paths if path is not None}
    digests = {path: _digest(path) for path in sorted(used)}
    found = {}
    for name, paths in sources.items():
        contents = [None if path is None else digests[path] for path in paths]
        found[name] = hashlib.sha256(repr((*contents[:2], str(paths[1]), *contents[2:])).encode()).hexdigest()[:16]
    return found


def _digest(path: Path) -> str:
    """The hash of a file; empty where it cannot be read, which `find_unusable` explains."""
    try:
        return file_digest(path)
    except OSError:
        return ""


def list_sources(request: Request, item: Item) -> list[Path | None]:
    """The noisy file, its reference, and under --guidance icg what the unrelated reference is made from."""
    test_set, setting = request.test_set, request.setting
    paths = [item.noisy, test_set.path(item, setting.protocol)]
    if setting.needs_unrelated:
        other = test_set.other_item(item, setting.protocol, setting.seed)
        paths += [other.noisy, test_set.path(other, setting.protocol)]
    return paths


def _find_left(request: Request, rows: Sequence[Row], inputs: Mapping[str, str]) -> list[Item]:
    """The files that are not done: no row says that they were made from this input, or the output is another now."""
    made = {row["file"]: row["output"] for row in rows if row["input"] == inputs.get(row["file"])}
    left = []
    for item in request.items:
        output = request.output(item.name)
        if item.name not in made or not output.is_file() or file_digest(output) != made[item.name]:
            left.append(item)
    return left


def write_run(results: Results) -> None:
    """Write run.json: the settings, and for each finished file what it and its reference were made from.

    Shards may do it at the same time: each looks again after it wrote, so the last one leaves all of it.
    """
    path = results.folder / RUN
    while (content := describe_run(results)) != read_record(path):
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
        content["estimated_from"] = dict(Counter(row["reference"] for row in rows if not row["is_null"]))
    if rows:
        last = max(rows, key=lambda row: float(row["time"]))
        content |= {"nfe": last["nfe"], "passes": last["passes"]}
        content["rtf"] = round(sum(row["seconds"] for row in rows) / sum(row["audio_s"] for row in rows), 4)
    return content


def read_record(path: Path) -> dict[str, Any]:
    """The content of run.json; nothing where it is absent, damaged or none of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    return content if isinstance(content, dict) else {}
