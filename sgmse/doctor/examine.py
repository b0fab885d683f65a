"""From what was named on the command line to the report: which checks are run on what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sgmse.common.bounds import File, InputDir, InputModel
from sgmse.common.errors import UserError
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora import refuse_published
from sgmse.data.corpora.manifest import SPLITS, Clip
from sgmse.data.testsets.build import MANIFEST, PROTOCOLS, folder_of, read_rows
from sgmse.data.testsets.heldout import list_used_clips
from sgmse.doctor import Report, leaks, models, signals
from sgmse.settings import cli
from sgmse.settings.config import TRAIN_GROUPS, Count, DataConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Request:
    """What to look at"""

    data: InputDir | None = None
    """pairs in {train,valid,test}/{clean,noisy}, a test set, or a folder with speech/ and noise/"""
    config: list[File] = field(default_factory=list)
    """settings, as for train.py"""
    ckpt: InputModel | None = None
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
    request = _find_folders(request, data)
    if request.ckpt is not None:
        stored = models.check_checkpoint(report, request.ckpt, model if request.config else None)
        model = stored if stored is not None and not request.config else model
    _check_audio(report, request, model.sample_rate)
    if request.config or request.ckpt is None:
        models.check_settings(report, model, data, train, named=bool(request.config))
    return report


def _find_folders(request: Request, data: DataConfig) -> Request:
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
    refuse_published(folder)
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    raise UserError(
        f"--data {folder}: expected train/, valid/ or test/ with clean/ and noisy/ inside, clean/ and noisy/, or "
        f"speech/ and noise/, but found {', '.join(found[:6]) or 'nothing'}; name other folders with --speech_dir or "
        "--noise_dir"
    )


def _holds_pairs(folder: Path) -> bool:
    return (folder / "clean").is_dir() and (folder / "noisy").is_dir()


def _check_audio(report: Report, request: Request, sample_rate: int) -> None:
    """All folders of audio, and what may not be in two splits: clean speech, noise, recordings of test sets."""
    files: dict[str, list[tuple[str, AudioInfo]]] = {"clean speech": [], "noise": []}  # split and header
    scored: list[AudioInfo] = []
    trained: list[Clip] = []
    for kind, label, folders in (
        ("speech", "clean speech", request.speech_dir),
        ("noise", "noise", request.noise_dir),
    ):
        for folder in folders:
            clips, infos = _check_recordings(report, kind, folder, sample_rate, request.max_files)
            files[label] += [(clip.split, info) for clip, info in zip(clips, infos, strict=True)]
            trained += clips
    splits = [] if request.data is None else [request.data / split for split in SPLITS]
    for folder in (*filter(_holds_pairs, splits), *request.test_dir):
        is_set = folder in request.test_dir
        if is_set and not _holds_pairs(folder):
            raise UserError(f"--test_dir {folder}: holds no clean/ and noisy/; name the folder of a test set")
        if is_set:
            leaks.check_set_digest(report, folder)
        clean, noisy = _check_paired(report, folder, request.max_files)
        files["clean speech"] += [("test" if is_set else folder.name, info) for info in clean]
        scored += [*clean, *noisy]
        rows = _read_manifest(report, folder) if is_set else []
        if rows and trained:
            leaks.check_items(report, folder.name, rows, trained)
    signals.check_scored_rates(report, scored, sample_rate)
    for label, found in files.items():
        leaks.check_duplicates(report, label, found)


def _read_manifest(report: Report, folder: Path) -> list[dict[str, str]]:
    """The table that names kinds and sources of noise; none where it is missing, or cannot be read, a problem."""
    try:
        return read_rows(folder) if (folder / MANIFEST).is_file() else []
    except UserError as error:
        report.add_problem(f"{error}", "write the table anew, with commas between columns and as UTF-8")
        return []


def _check_paired(report: Report, folder: Path, max_files: int) -> tuple[list[AudioInfo], list[AudioInfo]]:
    """Everything about clean/ and noisy/ of one split or test set, and the references beside them."""
    clean, noisy = (
        signals.find_headers(report, f"{folder.name}/{name}", folder / name, f"{name} speech")
        for name in ("clean", "noisy")
    )
    signals.check_files(report, f"{folder.name}/clean", clean, max_files)
    signals.check_files(report, f"{folder.name}/noisy", noisy, max_files)
    pairs = signals.match_pairs(report, folder.name, folder, [*clean, *noisy])
    signals.check_pairs(report, folder.name, pairs, max_files)
    for protocol in PROTOCOLS:
        if (folder / folder_of(protocol)).is_dir():
            leaks.check_references(report, folder, protocol, max_files)
    return clean, noisy


def _check_recordings(
    report: Report, kind: str, folder: Path, sample_rate: int, max_files: int
) -> tuple[list[Clip], list[AudioInfo]]:
    """A folder of speech or noise from which training mixes; its clips with their headers."""
    label = f"{kind} {folder}"
    read_headers = partial(signals.read_headers, report, label)
    clips = list_used_clips(folder, kind, read_headers)
    infos = {info.path: info for info in read_headers(clip.path for clip in clips)}  # a manifest may name broken ones
    clips = [clip for clip in clips if clip.path in infos]
    files = [infos[clip.path] for clip in clips]
    signals.check_mixed_rates(report, label, files, sample_rate, falsifies=kind == "speech")
    signals.check_files(report, label, files, max_files)
    leaks.check_sources(report, label, clips)
    return clips, files
