"""Test recordings must not have been trained on: what a training used, and what of a test set is among it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest
from sgmse.data import audio, corpora
from sgmse.data.corpora import Headers, manifest
from sgmse.data.corpora.manifest import Clip


@dataclass
class Trained:
    """Files of one split of a training: by path, hash and source, and by size where they were never hashed.

    Sources are only those that a corpus' metadata name: the name of a file says nothing about other folders.
    """

    paths: set[Path] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    by_size: dict[int, list[Path]] = field(default_factory=dict)


def used_by(files: Iterable[Path], split: str) -> Trained:
    """What a run has in one split: each file is a manifest.csv of scripts/prepare.py or the config.yaml of a run."""
    seen = Trained()
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file; name a manifest.csv or a run's config.yaml with --train_manifest")
        if file.suffix.lower() in (".yaml", ".yml"):
            _add_run(seen, file, split)
        else:
            _add_clips(seen, [clip for clip in manifest.read(file) if clip.split == split])
    return seen


def used_clips(folder: Path, what: str = "noise", headers: Headers = corpora.read_headers) -> list[Clip]:
    """The clips that a run with this --speech_dir or --noise_dir uses, with the split that they serve.

    For `what` and `headers` see `corpora.clips`.
    """
    clips = corpora.clips(folder, what, headers)
    if (folder / manifest.MANIFEST).is_file() or any((folder / name).is_dir() for name in manifest.SPLITS):
        return [clip for clip in clips if clip.split != "test"]
    return [replace(clip, split="train") for clip in clips]


def overlap(clips: Sequence[Clip], seen: Trained, what: str) -> list[tuple[Clip, str]]:
    """The clips that are among those seen, each with how that is known. `what` names them beside the progress bar."""
    return [(clip, why) for clip in tqdm(clips, desc=f"Comparing {what}") if (why := _why(clip, seen))]


def check_held_out(files: Sequence[Path], clips: Sequence[Clip], speech: Sequence[audio.AudioInfo]) -> None:
    """Raise `UserError` when a clip or speech file was trained on; warn where it served validation.

    `files` say what was trained on, see `used_by`. Validation chose the checkpoint, so it is no test either.
    """
    for split in ("train", "valid"):
        seen = used_by(files, split)
        for what, candidates, remedy in (
            ("noise", clips, "choose others with --split, --folds or --classes"),
            ("speech", speech_clips(speech), "name another --speech_dir"),
        ):
            found = overlap(candidates, seen, what)
            if found and split == "train":
                raise UserError(
                    f"{found[0][0].path}: was trained on ({found[0][1]}), one of {len(found)} among the "
                    f"{len(candidates)} {what} files for the test set; {remedy}"
                )
            if found:
                first = found[0][0].path
                print(f"warning: {len(found)} of {len(candidates)} {what} files served validation, first {first}")


def splits_of_items(
    rows: Sequence[Mapping[str, str]], clips: Sequence[Clip]
) -> list[tuple[Mapping[str, str], set[str]]]:
    """The rows of a test set's manifest whose recordings are among `clips`, each with the splits that hold them.

    Files are known by their hash, and by the recording that they were cut from where metadata name it.
    """
    splits: dict[str, set[str]] = defaultdict(set)  # of every hash and source
    for clip in tqdm(clips, desc="Hashing", leave=False):
        splits[clip.digest()].add(clip.split)
        if clip.source_is_named:
            splits[clip.source].add(clip.split)
    found = []
    for row in rows:
        columns = (row.get(name) or "" for name in ("speech_sha256", "noise_sha256", "source"))
        held = set().union(*(splits.get(value, set()) for column in columns for value in column.split("+")))
        if held:
            found.append((row, held))
    return found


def _why(clip: Clip, seen: Trained) -> str:
    """How a clip is known to be among what was trained on; empty when it is not."""
    if clip.path.resolve() in seen.paths:
        return "the same file"
    if clip.source_is_named and clip.source in seen.sources:
        return f"the same source recording {clip.source}"
    twins = seen.by_size.get(clip.path.stat().st_size, [])
    if seen.digests or twins:
        digest = clip.digest()
        if digest in seen.digests or any(digest == file_digest(twin) for twin in twins):
            return "a file of the same content"
    return ""


def _add_run(seen: Trained, file: Path, split: str) -> None:
    """The folders that a run's config.yaml names; relative ones are looked up from here, as training did."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        folders = [Path(name) for key in ("speech_dir", "noise_dir") for name in settings.get(key) or []]
        base = settings.get("base_dir")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
        raise UserError(f"{file}: is no config.yaml of a run; check --train_manifest") from None
    if base is not None:
        if (Path(base) / split / "clean").is_dir():
            _add_clips(seen, corpora.clips(Path(base) / split / "clean"))
    elif not folders:
        folders = [corpora.embedded_dir() / kind for kind in ("speech", "noise")]
    for folder in folders:
        _add_clips(seen, [clip for clip in used_clips(folder) if clip.split == split])


def _add_clips(seen: Trained, clips: Sequence[Clip]) -> None:
    for clip in clips:
        seen.paths.add(clip.path.resolve())
        if clip.source_is_named:
            seen.sources.add(clip.source)
        if clip.sha256:
            seen.digests.add(clip.sha256)
        elif clip.path.is_file():
            seen.by_size.setdefault(clip.path.stat().st_size, []).append(clip.path)


def speech_clips(paths: Sequence[audio.AudioInfo]) -> list[Clip]:
    """Speech files as clips without class, so that they are compared like noises."""
    return [
        Clip(info.path, "speech", info.path.stem, "test", info.sample_rate, info.seconds, source_is_named=False)
        for info in paths
    ]
