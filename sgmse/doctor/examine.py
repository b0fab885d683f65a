"""From what was named on the command line to the page: which checks are run on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora.manifest import SPLITS, Clip
from sgmse.data.testsets.build import MANIFEST, PROTOCOLS, folder_of, read_rows
from sgmse.data.testsets.heldout import names_sources, used_clips
from sgmse.doctor import models, pairs, signals, splits, testset
from sgmse.doctor.page import Page
from sgmse.settings import cli
from sgmse.settings.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Request:
    """What to look at. max_files: per check that decodes audio."""

    data: Path | None = None
    configs: Sequence[Path] = ()
    ckpt: Path | None = None
    speech_dirs: Sequence[Path] = ()
    noise_dirs: Sequence[Path] = ()
    test_dirs: Sequence[Path] = ()
    max_files: int = 500


@dataclass
class Looked:
    """Files gathered for the checks that compare: scored ones, clips that training uses, files by split."""

    scored: list[AudioInfo] = field(default_factory=list)

    trained: list[Clip] = field(default_factory=list)
    sourced: list[Clip] = field(default_factory=list)
    clean: dict[str, list[AudioInfo]] = field(default_factory=dict)
    noise: dict[str, list[AudioInfo]] = field(default_factory=dict)


def examine(request: Request) -> Page:
    """Run every check that what was named allows. Raises `UserError` for what is not there at all."""
    page, looked = Page(), Looked()
    values = _settings(request.configs)
    model = cli.take(ModelConfig, values)
    request = _resolved(request, cli.take(DataConfig, values))
    if request.ckpt is not None:
        stored = models.check_checkpoint(page, request.ckpt, model if request.configs else None)
        model = stored if stored is not None and not request.configs else model
    if request.data is not None:
        _check_pairs_of_splits(page, looked, request.data, request.max_files)
    for kind, folders in (("speech", request.speech_dirs), ("noise", request.noise_dirs)):
        for folder in folders:
            _check_recordings(page, looked, kind, folder, model.sample_rate, request.max_files)
    for folder in request.test_dirs:
        _check_test_set(page, looked, folder, request.max_files)
    rates = Page()
    signals.check_scored_rates(rates, looked.scored, model.sample_rate)
    page.problems[:0] = rates.problems  # the first thing to read
    for label, files in (("clean speech", looked.clean), ("noise", looked.noise)):
        if len(files) > 1:
            splits.check_duplicates(page, label, files)
    if request.configs or request.ckpt is None:
        data, train = cli.take(DataConfig, values), cli.take(TrainConfig, values)
        models.check_settings(page, model, data, train, named=bool(request.configs))
    return page


def _settings(configs: Sequence[Path]) -> dict[str, Any]:
    """The settings of the files laid over the defaults, as train.py reads them."""
    argv = [word for path in configs for word in ("--config", str(path))]
    return cli.parse(cli.make_parser(TRAIN_GROUPS, ""), argv)[-1].values


def _resolved(request: Request, data: DataConfig) -> Request:
    """The folders that the settings name, where none are named; --data sorted by what the folder holds."""
    if request.data is None and not (request.speech_dirs or request.noise_dirs):
        base = None if data.base_dir is None else Path(data.base_dir)
        speech, noise = ([Path(name) for name in names] for names in (data.speech_dir, data.noise_dir))
        request = dataclasses.replace(request, data=base, speech_dirs=speech, noise_dirs=noise)
    folder = request.data
    if folder is None or any(_holds_pairs(folder / split) for split in SPLITS):
        return request
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder; check the path")
    if _holds_pairs(folder):
        return dataclasses.replace(request, data=None, test_dirs=[*request.test_dirs, folder])
    if (folder / "speech").is_dir() and (folder / "noise").is_dir():
        speech, noise = [*request.speech_dirs, folder / "speech"], [*request.noise_dirs, folder / "noise"]
        return dataclasses.replace(request, data=None, speech_dirs=speech, noise_dirs=noise)
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    raise UserError(
        f"--data {folder}: expected train/, valid/ or test/ with clean/ and noisy/ inside, clean/ and noisy/, or "
        f"speech/ and noise/, but found {', '.join(found[:6]) or 'nothing'}; name other folders with --speech_dir or "
        "--noise_dir"
    )


def _holds_pairs(folder: Path) -> bool:
    return (folder / "clean").is_dir() and (folder / "noisy").is_dir()


def _check_pairs_of_splits(page: Page, looked: Looked, base: Path, max_files: int) -> None:
    for split in SPLITS:
        if _holds_pairs(base / split):
            _check_paired(page, looked, split, base / split, max_files)


def _check_paired(page: Page, looked: Looked, label: str, folder: Path, max_files: int) -> None:
    """Everything about clean/ and noisy/ of one split or test set, and the references beside them."""
    readable: dict[Path, AudioInfo] = {}
    for name in ("clean", "noisy"):
        infos = signals.headers(page, f"{label}/{name}", audio.find(folder / name, f"{name} speech"))
        readable |= {info.path: info for info in infos}
        looked.scored += infos
        signals.say_rates(page, f"{label}/{name}", infos)
        signals.check_signals(page, f"{label}/{name}", infos, max_files)
        if name == "clean":
            looked.clean.setdefault(label if label in SPLITS else "test", []).extend(infos)
    pairs.check_pairs(page, label, pairs.matched(page, label, folder, readable), max_files)
    for protocol in PROTOCOLS:
        if (folder / folder_of(protocol)).is_dir():
            testset.check_references(page, folder, protocol, folder / folder_of(protocol), max_files)


def _check_recordings(page: Page, looked: Looked, kind: str, folder: Path, rate: int, max_files: int) -> None:
    """A folder of speech or noise from which training mixes."""
    label = f"{kind} {folder}"
    readable = partial(signals.headers, page, label)
    clips = used_clips(folder, kind, readable)
    infos = {info.path: info for info in readable(clip.path for clip in clips)}  # a manifest may name broken ones
    clips = [clip for clip in clips if clip.path in infos]
    signals.say_rates(page, label, list(infos.values()))
    signals.check_mixed_rates(page, label, list(infos.values()), rate)
    signals.check_signals(page, label, list(infos.values()), max_files)
    files = looked.clean if kind == "speech" else looked.noise
    for clip in clips:
        files.setdefault(clip.split, []).append(infos[clip.path])
    looked.trained += clips
    if names_sources(folder):
        looked.sourced += clips
        if len({clip.split for clip in clips}) > 1:
            splits.check_sources(page, label, clips)


def _check_test_set(page: Page, looked: Looked, folder: Path, max_files: int) -> None:
    if not _holds_pairs(folder):
        raise UserError(f"--test_dir {folder}: holds no clean/ and noisy/; name the folder of a test set")
    testset.check_set_digest(page, folder)
    _check_paired(page, looked, folder.name, folder, max_files)
    if (folder / MANIFEST).is_file() and looked.trained:
        sources = {clip.source for clip in looked.sourced}
        splits.check_test_against_training(page, folder.name, read_rows(folder), looked.trained, sources)
