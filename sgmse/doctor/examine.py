"""From what was named on the command line to the report: which checks are run on what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora.manifest import SPLITS, Clip
from sgmse.data.testsets.build import MANIFEST, PROTOCOLS, folder_of, read_rows
from sgmse.data.testsets.heldout import used_clips
from sgmse.doctor import leaks, models, pairs, signals
from sgmse.doctor.report import Report
from sgmse.settings import cli
from sgmse.settings.config import TRAIN_GROUPS, Count, DataConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Request:
    """What to look at"""

    data: Path | None = None
    """pairs in {train,valid,test}/{clean,noisy}, a test set, or a folder with speech/ and noise/"""
    config: list[Path] = field(default_factory=list)
    """settings, as for train.py"""
    ckpt: Path | None = None
    """checkpoint"""
    speech_dir: list[Path] = field(default_factory=list)
    """speech to train on"""
    noise_dir: list[Path] = field(default_factory=list)
    """noise to train on"""
    test_dir: list[Path] = field(default_factory=list)
    """test sets"""
    max_files: Count = 500
    """so many files are decoded per check"""


def examine(request: Request) -> Report:
    """Run every check that what was named allows. Raises `UserError` for what is not there at all."""
    report = Report()
    argv = [word for path in request.config for word in ("--config", str(path))]
    values = cli.parse(cli.make_parser(TRAIN_GROUPS, ""), argv)[-1].values
    model, data, train = cli.take(ModelConfig, values), cli.take(DataConfig, values), cli.take(TrainConfig, values)
    request = _with_folders(request, data)
    if request.ckpt is not None:
        stored = models.check_checkpoint(report, request.ckpt, model if request.config else None)
        model = stored if stored is not None and not request.config else model
    speech, noise = _check_audio(report, request, model.sample_rate)
    for label, files in (("clean speech", speech), ("noise", noise)):
        if len({split for split, _ in files}) > 1:
            leaks.check_duplicates(report, label, files)
    if request.config or request.ckpt is None:
        models.check_settings(report, model, data, train, named=bool(request.config))
    return report


def _with_folders(request: Request, data: DataConfig) -> Request:
    """The folders that the settings name, where none are named; --data sorted by what the folder holds."""
    if request.data is None and not (request.speech_dir or request.noise_dir):
        base = None if data.base_dir is None else Path(data.base_dir)
        speech, noise = ([Path(name) for name in names] for names in (data.speech_dir, data.noise_dir))
        request = replace(request, data=base, speech_dir=speech, noise_dir=noise)
    folder = request.data
    if folder is None or any(_holds_pairs(folder / split) for split in SPLITS):
        return request
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder; check the path")
    if _holds_pairs(folder):
        return replace(request, data=None, test_dir=[*request.test_dir, folder])
    if (folder / "speech").is_dir() and (folder / "noise").is_dir():
        speech, noise = [*request.speech_dir, folder / "speech"], [*request.noise_dir, folder / "noise"]
        return replace(request, data=None, speech_dir=speech, noise_dir=noise)
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    raise UserError(
        f"--data {folder}: expected train/, valid/ or test/ with clean/ and noisy/ inside, clean/ and noisy/, or "
        f"speech/ and noise/, but found {', '.join(found[:6]) or 'nothing'}; name other folders with --speech_dir or "
        "--noise_dir"
    )


def _holds_pairs(folder: Path) -> bool:
    return (folder / "clean").is_dir() and (folder / "noisy").is_dir()


Files = list[tuple[str, AudioInfo]]  # split and header


def _check_audio(report: Report, request: Request, sample_rate: int) -> tuple[Files, Files]:
    """All folders of audio. Returns the clean speech and the noise that may not be in two splits."""
    speech, noise = Files(), Files()
    scored: list[AudioInfo] = []
    trained: list[Clip] = []
    recordings = [("speech", folder, speech) for folder in request.speech_dir]
    recordings += [("noise", folder, noise) for folder in request.noise_dir]
    for kind, folder, files in recordings:
        clips, infos = _check_recordings(report, kind, folder, sample_rate, request.max_files)
        files += [(clip.split, info) for clip, info in zip(clips, infos, strict=True)]
        trained += clips
    splits = [] if request.data is None else [request.data / split for split in SPLITS]
    paired = {folder: folder.name for folder in splits if _holds_pairs(folder)}
    paired |= dict.fromkeys(request.test_dir, "test")
    for folder, split in paired.items():
        if folder in request.test_dir:
            if not _holds_pairs(folder):
                raise UserError(f"--test_dir {folder}: holds no clean/ and noisy/; name the folder of a test set")
            leaks.check_set_digest(report, folder)
        clean, noisy = _check_paired(report, folder.name, folder, request.max_files)
        speech += [(split, info) for info in clean]
        scored += [*clean, *noisy]
        if folder in request.test_dir and (folder / MANIFEST).is_file() and trained:
            leaks.check_items(report, folder.name, read_rows(folder), trained)
    signals.check_scored_rates(report, scored, sample_rate)
    return speech, noise


def _check_paired(report: Report, label: str, folder: Path, max_files: int) -> tuple[list[AudioInfo], list[AudioInfo]]:
    """Everything about clean/ and noisy/ of one split or test set, and the references beside them."""
    clean, noisy = (
        signals.read_headers(report, f"{label}/{name}", audio.find(folder / name, f"{name} speech"))
        for name in ("clean", "noisy")
    )
    signals.check_files(report, f"{label}/clean", clean, max_files)
    signals.check_files(report, f"{label}/noisy", noisy, max_files)
    matched = pairs.match_pairs(report, label, folder, {info.path: info for info in [*clean, *noisy]})
    pairs.check_pairs(report, label, matched, max_files)
    for protocol in PROTOCOLS:
        if (folder / folder_of(protocol)).is_dir():
            leaks.check_references(report, folder, protocol, folder / folder_of(protocol), max_files)
    return clean, noisy


def _check_recordings(
    report: Report, kind: str, folder: Path, sample_rate: int, max_files: int
) -> tuple[list[Clip], list[AudioInfo]]:
    """A folder of speech or noise from which training mixes; its clips with their headers."""
    label = f"{kind} {folder}"
    read_headers = partial(signals.read_headers, report, label)
    clips = used_clips(folder, kind, read_headers)
    infos = {info.path: info for info in read_headers(clip.path for clip in clips)}  # a manifest may name broken ones
    clips = [clip for clip in clips if clip.path in infos]
    files = [infos[clip.path] for clip in clips]
    signals.check_mixed_rates(report, label, files, sample_rate, falsifies=kind == "speech")
    signals.check_files(report, label, files, max_files)
    named = [clip for clip in clips if clip.source_is_named]
    if len({clip.split for clip in named}) > 1:
        leaks.check_sources(report, label, named)
    return clips, files
