"""Checks of a test set: is it whole, as it was built, and do its references sound without leaking?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.mixing import is_silent
from sgmse.data.references import leak
from sgmse.data.testsets.build import INCOMPLETE, SET, set_digest
from sgmse.doctor.page import Page, of_how_many, sample
from sgmse.doctor.signals import tell_unreadable


def check_set_digest(page: Page, folder: Path) -> None:
    """Whether the files are those that were built."""
    if folder.name.endswith(INCOMPLETE):
        page.problem(f"{folder}: is a build that was interrupted", "repeat the command that began it", falsifies=True)
    if not (folder / SET).is_file():
        page.fact(f"{folder}: has no {SET}, so nothing says whether it is as it was built")
        return
    try:
        told = json.loads((folder / SET).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / SET}: is damaged; build the set anew") from None
    if set_digest(folder) == told:
        page.fact(f"{folder}: as it was built, sha256 {told[:16]}…")
    else:
        page.problem(
            f"{folder}: files were changed, added or removed since the set was built",
            "build it anew under another name; results on the two cannot be compared",
            [folder / SET],
            falsifies=True,
        )


class _Found(NamedTuple):
    """References that are silent, that share samples with their noise, sentences on unreadable ones, leak scores."""

    silent: list[Path]
    shared: list[Path]
    broken: list[str]
    peaks: list[float]


def check_references(page: Page, folder: Path, protocol: str, references_dir: Path, max_files: int) -> None:
    """Silent and unreadable references, and those that share samples with the noise of their own mixture."""
    noisy, clean = (audio.by_name(folder / name, name) for name in ("noisy", "clean"))
    references = audio.by_name(references_dir, "noise references")
    missing = sorted(noisy.keys() - references.keys())
    looked = sample(sorted(noisy.keys() & clean.keys() & references.keys()), max_files)
    found = _Found([], [], [], [])
    for name in tqdm(looked, desc=references_dir.name, leave=False):
        _look(found, references[name], noisy[name], clean[name])
    silent, shared, broken, peaks = found
    of = f"{references_dir}: of {of_how_many(len(looked), len(noisy))} references"
    worst = f", leak score {np.mean(peaks):.2f} on average, {max(peaks):.2f} at most" if peaks else ""
    page.fact(f"{of} ({protocol}), {len(silent)} silent, {len(shared)} sharing samples with their noise{worst}")
    tell_unreadable(page, str(references_dir), broken)
    if missing:
        page.problem(
            f"{references_dir}: {len(missing)} of {len(noisy)} items have no reference",
            "build the set anew, or remove the folder",
            [noisy[name] for name in missing],
            falsifies=True,
        )
    if silent:
        page.problem(
            f"{of}, {len(silent)} are silent: they stand for no reference and hide what one does",
            "cut them from another place of the noise, or leave these items out",
            silent,
            falsifies=True,
        )
    if shared and protocol != "oracle":
        page.problem(
            f"{of}, {len(shared)} hold samples of the noise that they help to remove",
            "cut them from elsewhere; as they are the result is an upper bound (the protocol oracle)",
            shared,
            falsifies=True,
        )


def _look(found: _Found, path: Path, noisy: Path, clean: Path) -> None:
    """Enter one reference into what is found."""
    try:
        rate = audio.info(noisy).sample_rate
        reference, mixed, target = (audio.read(file, rate) for file in (path, noisy, clean))
    except UserError as error:
        found.broken.append(str(error))
        return
    if is_silent(reference):
        found.silent.append(path)
        return
    length = min(len(mixed), len(target))
    score = leak.score(reference, mixed[:length] - target[:length], rate)
    found.peaks.append(score.peak)
    if score.shared:
        found.shared.append(path)
