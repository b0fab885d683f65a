"""Test recordings must not have been trained on: what a training used, and what of a test set is among it.

Files are known by their path, by their bytes, and by the recording that they were cut from, where a corpus' metadata
name it: the name of a file says nothing about other folders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from sgmse.common.errors import UserError
from sgmse.common.progress import track
from sgmse.data import audio, corpora, listing
from sgmse.data.corpora import Headers, manifest
from sgmse.data.corpora.manifest import Clip


def find_used_clips(files: Iterable[Path], split: str) -> list[Clip]:
    """The clips of one split of a training; each file is a manifest.csv of prepare.py or a run's config.yaml."""
    used: list[Clip] = []
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file; name a manifest.csv or a run's config.yaml with --train_manifest")
        is_run = file.suffix.lower() in (".yaml", ".yml")
        used += _used_by_run(file, split) if is_run else [c for c in manifest.read(file) if c.split == split]
    return used


def list_used_clips(folder: Path, what: str = "noise", headers: Headers = listing.read_headers) -> list[Clip]:
    """The clips that a run with this --speech_dir or --noise_dir uses, with the split that they serve.

    For `what` and `headers` see `corpora.clips`.
    """
    clips = corpora.clips(folder, what, headers)
    if (folder / manifest.MANIFEST).is_file() or any((folder / name).is_dir() for name in manifest.SPLITS):
        return [clip for clip in clips if clip.split != "test"]
    return [replace(clip, split="train") for clip in clips]


def find_overlap(clips: Sequence[Clip], used: Sequence[Clip], what: str) -> list[tuple[Clip, str]]:
    """The clips that are among those used, each with how that is known. `what` names them beside the progress bar."""
    paths = {clip.path.resolve() for clip in used}
    sources = {clip.source for clip in used if clip.source_is_named}
    digests = {clip.sha256 for clip in used} - {""}
    # Files of folders without manifest were never hashed: only those as long as a file of the set are.
    sizes = {clip.path.stat().st_size for clip in clips}
    unhashed = [clip for clip in used if not clip.sha256 and clip.path.is_file()]
    digests |= {clip.digest() for clip in unhashed if clip.path.stat().st_size in sizes}

    def reason(clip: Clip) -> str:
        if clip.path.resolve() in paths:
            return "the same file"
        if clip.source_is_named and clip.source in sources:
            return f"the same source recording {clip.source}"
        return "a file of the same content" if digests and clip.digest() in digests else ""

    return [(clip, why) for clip in track(clips, len(clips), f"comparing {what}") if (why := reason(clip))]


def check_held_out(files: Sequence[Path], clips: Sequence[Clip], speech: Sequence[audio.AudioInfo]) -> None:
    """Raise `UserError` when a clip or speech file was trained on; warn where it served validation.

    `files` say what was trained on, see `find_used_clips`. Validation chose the checkpoint, so it is no test either.
    """
    for split in ("train", "valid"):
        used = find_used_clips(files, split)
        for what, candidates, remedy in (
            ("noise", clips, "choose others with --split, --folds or --classes"),
            ("speech", speech_as_clips(speech), "name another --speech_dir"),
        ):
            found = find_overlap(candidates, used, what)
            if found and split == "train":
                raise UserError(
                    f"{found[0][0].path}: was trained on ({found[0][1]}), one of {len(found)} among the "
                    f"{len(candidates)} {what} files for the test set; {remedy}"
                )
            if found:
                first = found[0][0].path
                print(f"warning: {len(found)} of {len(candidates)} {what} files served validation, first {first}")


def find_used_items(
    rows: Sequence[Mapping[str, str]], clips: Sequence[Clip]
) -> list[tuple[Mapping[str, str], set[str]]]:
    """The rows of a test set's manifest whose recordings are among `clips`, each with the splits that hold them."""
    splits: dict[str, set[str]] = defaultdict(set)  # of every hash and source
    for clip in track(clips, len(clips), "hashing"):
        splits[clip.digest()].add(clip.split)
        if clip.source_is_named:
            splits[clip.source].add(clip.split)
    found = []
    for row in rows:
        columns = (row.get(name) or "" for name in ("speech_sha256", "noise_sha256", "source"))
        names = set().union(*(splits.get(value, set()) for column in columns for value in column.split("+")))
        if names:
            found.append((row, names))
    return found


def speech_as_clips(infos: Sequence[audio.AudioInfo]) -> list[Clip]:
    """Speech files as clips without class, so that they are compared like noises."""
    return [
        Clip(info.path, "speech", info.path.stem, "test", info.sample_rate, info.seconds, source_is_named=False)
        for info in infos
    ]


def list_sittings(file: Path) -> list[Path]:
    """The records of all sittings of a run, oldest first: config.1.yaml, config.2.yaml ... and its config.yaml.

    A run that went on with other settings keeps the earlier ones so.
    """
    earlier = file.parent.glob("config.*.yaml") if file.name == "config.yaml" else ()
    numbers = {path: path.stem.removeprefix("config.") for path in earlier}
    return [*sorted((path for path in numbers if numbers[path].isdigit()), key=lambda path: int(numbers[path])), file]


def _used_by_run(file: Path, split: str) -> list[Clip]:
    """The clips of the folders that the sittings of a run name, and the runs that its weights come from.

    Relative folders are looked up from here, as there.
    """
    folders, pairs, left, read = dict[Path, None](), dict[Path, None](), list_sittings(file), set[Path]()
    while left:
        record = left.pop()
        read.add(record.resolve())
        try:
            settings = yaml.safe_load(record.read_text(encoding="utf-8"))
            named = [Path(name) for key in ("speech_dir", "noise_dir") for name in settings.get(key) or []]
            base, origin = settings.get("base_dir"), settings.get("init_ckpt")
        except (UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
            raise UserError(f"{record}: is no config.yaml of a run; check --train_manifest") from None
        if base is not None:
            pairs[Path(base) / split / "clean"] = None
        elif not named:
            named = [corpora.embedded_dir() / kind for kind in ("speech", "noise")]
        folders |= dict.fromkeys(named)
        if origin is not None:
            its_record = Path(origin).parent.parent / "config.yaml"
            if Path(origin).suffix == ".ckpt" and its_record.is_file():  # else a model that comes along, or of a hub
                left += [path for path in list_sittings(its_record) if path.resolve() not in read]
            elif split == "train":
                print(f"warning: {record}: nothing tells what its first weights, {origin}, were trained on")
    clips = [clip for folder in pairs if folder.is_dir() for clip in corpora.clips(folder)]
    return clips + [clip for folder in folders for clip in list_used_clips(folder) if clip.split == split]
