"""The test sets of a plan: what each is mixed from, built once; nothing in them may have been trained on.

`valid`, on which guidance scale, steps and checkpoint are chosen, is built in the same way from other recordings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora, listing
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.data.corpora.voicebank import write_validation_set
from sgmse.data.noise.talkers import talker
from sgmse.data.testsets import build, heldout
from sgmse.data.testsets.plan import Recipe, make_plan, swap_recipe
from sgmse.experiments.catalogue import CHOICE_SETS, NOISE_OF_SET, VALID, VALID_SWAP, VOICEBANK
from sgmse.experiments.plan import Data

OOD = ("ood", "esc50", "urbansound8k", "dense", "dense_long")
OF_TALKERS = ("talkers", "swap", VALID_SWAP)
_EMBEDDED_LACKS = dict.fromkeys(OF_TALKERS, "does not tell who speaks")
_EMBEDDED_LACKS |= dict.fromkeys(("dense", "dense_long"), "is shorter than 3 s")
_SWAP, _DENSE = swap_recipe(), Recipe("ood", snr_db=(-5.0, 0.0, 5.0), seconds=0.8, ladder_s=3.0)
_RECIPES = {
    "nonstationary": Recipe("nonstationary"),
    "talkers": Recipe("talkers"),
    "swap": _SWAP,
    VALID_SWAP: _SWAP,
    "dense": _DENSE,  # speech without pauses, and the same items longer
    "dense_long": replace(_DENSE, seconds=3.0),
}
_NEVER_TRAINED_ON = ("esc50",)  # so that all of the corpus may serve the test, not its test split alone


@dataclass(frozen=True)
class Sources:
    """What a set is mixed from: the folders, and which of their recordings."""

    speech_dir: Path
    speech: Sequence[AudioInfo]
    noise_dir: Path
    clips: Sequence[Clip]


def left_out(names: Sequence[str], data: Data) -> dict[str, str]:
    """The sets that folders of speech and noise do not allow, each with what would; `UserError` for bad folders."""
    missing = {}
    for name in names:
        found = ready(name, data)
        if found is not None:
            _check_ready(found)
        elif data.data_dir is not None:
            continue
        elif data.speech_dir and name in OOD and data.ood_noise_dir is None:
            missing[name] = "give --ood_noise_dir with noise that training never hears, or --test_sets"
        elif name in _EMBEDDED_LACKS and not data.speech_dir:
            missing[name] = f"the test speech that comes with the code {_EMBEDDED_LACKS[name]}; give --speech_dir"
        else:
            sources(name, data)
    return missing


def provide(name: str, data: Data, items: int, out: Path, trained: Sequence[Path], jobs: int) -> dict[str, Any]:
    """Put the set `name` at `out`: built with so many items, or a link to one that exists.

    `trained`: config files of runs, whose training files are kept out of the set; a set that exists and holds one is
    refused. Returns its SHA-256 and its size.
    """
    found = ready(name, data)
    if found is not None:
        _link(found, out)
        if data.test_sets is not None and found.is_relative_to(data.test_sets):
            _check_rows(found, trained)
    elif data.data_dir is not None and name == VALID:
        write_validation_set(Path(data.data_dir) / VOICEBANK, items, out)
    else:
        recipe = replace(_RECIPES.get(name, Recipe("ood")), num=items)
        made = _leave_out_trained(name, sources(name, data), trained)
        planned = make_plan(recipe, made.speech_dir, made.speech, made.noise_dir, made.clips)
        build.build(planned, out, {"set": name, "compared_with": [str(path) for path in trained]}, jobs)
    return {"sha256": build.set_digest(out), "items": len(build.read_rows(out))}


def ready(name: str, data: Data) -> Path | None:
    """The folder of a set that exists: one of --test_sets, the published test of VoiceBank-DEMAND, the embedded one."""
    if data.test_sets is not None and (Path(data.test_sets) / name).is_dir():
        return Path(data.test_sets) / name
    if name == "id" and data.data_dir is not None:
        return Path(data.data_dir) / VOICEBANK / "test"
    if name == "id" and not data.speech_dir:
        return corpora.embedded_dir() / "test"
    return None


def sources(name: str, data: Data) -> Sources:
    """What the set `name` is mixed from. Raises `UserError` where the data hold nothing for it."""
    if name not in (*CHOICE_SETS, "id", *OF_TALKERS, *NOISE_OF_SET, *OOD):
        raise UserError(
            f"{name}: nothing says how to build this test set; name a folder that holds it with --test_sets"
        )
    if data.data_dir is not None:
        found = _corpora_sources(name, Path(data.data_dir))
    elif data.speech_dir:
        found = _folder_sources(name, data)
    else:
        found = _embedded_sources(name)
    if name in OF_TALKERS:
        clips = [replace(clip, kind=talker(clip.path)) for clip in heldout.speech_as_clips(found.speech)]
        return replace(found, noise_dir=found.speech_dir, clips=clips)
    if name == "nonstationary" and len({clip.kind for clip in found.clips}) < 2:  # each recording is its own class
        found = replace(found, clips=[replace(clip, kind=clip.path.stem) for clip in found.clips])
    return found


def _corpora_sources(name: str, folder: Path) -> Sources:
    """VoiceBank's test speech with noise of ESC-50, UrbanSound8K or DEMAND; to choose on, its validation speech."""
    speech_dir = folder / VOICEBANK / ("valid" if name in CHOICE_SETS else "test") / "clean"
    speech = listing.read_headers(listing.find(speech_dir, "clean speech"))
    if name in OF_TALKERS:
        return Sources(speech_dir, speech, speech_dir, [])
    corpus = NOISE_OF_SET[name]
    clips = corpora.clips(folder / corpus)
    if corpus not in _NEVER_TRAINED_ON:
        clips = [clip for clip in clips if clip.split == "test"]
    if not clips:
        raise UserError(f"{folder / corpus}: holds no clip of the split test; prepare it anew with its test split")
    return Sources(speech_dir, speech, folder / corpus, clips)


def _embedded_sources(name: str) -> Sources:
    """For `valid` the validation split; else the test's own speech and noise: for `ood` the kinds of noise that
    training lacks."""
    root = corpora.embedded_dir()
    if name in CHOICE_SETS:
        speech_dir, noise_dir = root / "speech" / "valid", root / "noise" / "valid"
        return Sources(speech_dir, listing.read_headers(listing.find(speech_dir)), noise_dir, corpora.clips(noise_dir))
    speech_dir, noise_dir = root / "test" / "clean", root / "test" / "noise"
    kinds = {row["id"]: row["kind"] for row in build.read_rows(root / "test")}
    clips = [replace(clip, kind=kinds[clip.path.stem]) for clip in corpora.clips(noise_dir)]
    if name in OOD:
        trained = {
            part for path in listing.find(root / "noise" / "train") for part in path.stem.split("_")[0].split("-")
        }
        clips = [clip for clip in clips if not set(clip.kind.split("-")) <= trained]
    return Sources(speech_dir, listing.read_headers(listing.find(speech_dir)), noise_dir, clips)


def _folder_sources(name: str, data: Data) -> Sources:
    """Speech and noise of --speech_dir and --noise_dir that training does not use; noise of --ood_noise_dir."""
    speech = _find_held_back([Path(folder) for folder in data.speech_dir], name, "speech")
    headers = [audio.info(clip.path) for clip in speech]
    if data.ood_noise_dir is not None and name in (*OOD, "nonstationary"):
        noise_dirs = [Path(data.ood_noise_dir)]
        clips = corpora.clips(noise_dirs[0])
    else:
        noise_dirs = [Path(folder) for folder in data.noise_dir]
        clips = _find_held_back(noise_dirs, name, "noise")
    return Sources(_common_folder(data.speech_dir), headers, _common_folder(noise_dirs), clips)


def _find_held_back(folders: Sequence[Path], name: str, what: str) -> list[Clip]:
    """For `valid` the validation split and for tests the test split; without one each gets half of the validation."""
    clips = []
    for folder in folders:
        found = corpora.clips(folder, what)
        split = (folder / manifest.MANIFEST).is_file() or any((folder / part).is_dir() for part in manifest.SPLITS)
        clips += found if split else []  # a folder without splits serves training only
    valid, test = ([clip for clip in clips if clip.split == split] for split in ("valid", "test"))
    if len(valid) < (1 if test else 2):
        named = ", ".join(map(str, folders))
        raise UserError(f"{named}: too few {what} files below valid/ to choose and to test on; put more of them there")
    if not test:
        valid, test = valid[: len(valid) // 2], valid[len(valid) // 2 :]
    return valid if name in CHOICE_SETS else test


def _common_folder(folders: Sequence[str | Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def _check_ready(folder: Path) -> None:
    """Raise `UserError` unless a set that exists is whole, with a row for each of its files."""
    for part in (build.MANIFEST, "noisy", "clean"):
        if not (folder / part).exists():
            raise UserError(f"{folder}: is no test set, {part} is missing; name a folder of test sets")
    names = list(listing.by_name(folder / "noisy", "noisy files"))
    for name, row in zip(names, build.find_rows(folder, names), strict=True):
        if not row:
            raise UserError(f"{folder / build.MANIFEST}: has no row whose id is {name}; mend it, or build it anew")


def _link(found: Path, out: Path) -> None:
    """`out` points to `found`. Raises `UserError` where it is something else."""
    target = found.resolve()
    if out.is_symlink() and out.resolve() == target:
        return
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists and is not {found}; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.symlink_to(target, target_is_directory=True)


def _leave_out_trained(name: str, made: Sources, trained: Sequence[Path]) -> Sources:
    """The sources without the recordings that were trained on, which are printed. `UserError` where none is left."""
    used = heldout.find_used_clips(trained, "train")
    speech = heldout.speech_as_clips(made.speech)
    overlaps = {
        "noise": heldout.find_overlap(made.clips, used, "noise"),
        "speech": heldout.find_overlap(speech, used, "speech"),
    }
    for what, found in overlaps.items():
        total = len(made.clips) if what == "noise" else len(speech)
        if found:
            reason = f"{len(found)} of {total} {what} files were trained on, first {found[0][0].path} ({found[0][1]})"
            if len(found) == total:
                raise UserError(f"test set {name}: {reason}; name other folders")
            print(f"    left out of {name}: {reason}")
    paths = {clip.path for found in overlaps.values() for clip, _ in found}
    return replace(
        made,
        speech=[info for info in made.speech if info.path not in paths],
        clips=[clip for clip in made.clips if clip.path not in paths],
    )


def _check_rows(folder: Path, trained: Sequence[Path]) -> None:
    """Raise `UserError` when the manifest of a ready-made set names, by hash, a recording that was trained on."""
    rows = build.read_rows(folder)
    if "noise_sha256" not in rows[0]:
        print(f"warning: {folder} names no hashes of its recordings, so nothing tells whether they were trained on")
        return
    for row, _ in heldout.find_used_items(rows, heldout.find_used_clips(trained, "train")):
        raise UserError(f"{folder}: {row['id']} is made of a recording that was trained on; use another set")
