"""Audio files in and out: the only file I/O on audio. Waveforms are float32, mono [N] or multi-channel [C, N].

Recordings of any length come and go in blocks [C, n] that need little memory: joined, they are what the functions for
whole waveforms give.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr

from sgmse.common.errors import UserError
from sgmse.common.files import failure_of, temporary_file, whole_file

Entry = TypeVar("Entry")

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_DEFAULT_SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_16", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
_MARGIN_S = 0.1  # longer than the impulse response of the resampling filter for every rate from 8 kHz
_PEAK_WHEN_ATTENUATED = 0.999
_BLOCK = 65536  # samples; libsndfile's Vorbis encoder keeps a whole block on the stack and crashes on long ones
_MP3_SLACK_S = 0.1  # an MP3 header's length may count the encoder's padding
_UNKNOWN_LENGTH = 2**40  # streamed FLAC files hold no length: libsndfile then reports a huge one
_STREAMED_WAV_BYTES = 2**31 - 4096  # a WAV written to a pipe claims the largest size that fits; it is not truncated


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    path: Path
    sample_rate: int
    num_frames: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.num_frames / self.sample_rate

    def length_at(self, sample_rate: int) -> int:
        """The number of samples once resampled, rounded down."""
        return self.num_frames * sample_rate // self.sample_rate

    def draw_window(self, length: int, sample_rate: int, rng: np.random.Generator) -> tuple[float, float]:
        """Start and duration in seconds of a random window of `length` samples at `sample_rate`.

        Of a file that is not longer it begins at 0.
        """
        spare = max(0, self.length_at(sample_rate) - length)
        return int(rng.integers(spare + 1)) / sample_rate, length / sample_rate


def info(path: str | Path) -> AudioInfo:
    """Read the header only. Raises `UserError` for a file that is missing, empty or no audio."""
    path = Path(path)
    with _opened(path) as file:
        return AudioInfo(path, file.samplerate, file.frames, file.channels, file.subtype)


def find(folder: str | Path, what: str = "audio") -> list[Path]:
    """All audio files below `folder`, sorted; hidden files are left out, linked folders are followed.

    `what` names the files in the error, e.g. "clean speech".
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such folder (for {what}); check the path")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, but a folder is needed (for {what})")
    found: list[Path] = []
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link that points back up
            folders.clear()
            continue
        visited.add(real)
        found += [Path(parent, n) for n in names if not n.startswith(".") and n.lower().endswith(AUDIO_SUFFIXES)]
    if not found:
        raise UserError(f"{folder}: holds no file ending in {', '.join(AUDIO_SUFFIXES)} (for {what}); check the path")
    return sorted(found)


def by_name(folder: Path, what: str) -> dict[str, Path]:
    """All audio files below `folder`, sorted, keyed by their relative path without suffix."""
    found: dict[str, Path] = {}
    for path in find(folder, what):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{path}: differs from {found[name].name} only in its suffix; keep one of the two")
        found[name] = path
    return found


def find_partners(keys: Iterable[str], folder: Path, what: str) -> dict[str, Path]:
    """The file below `folder` for each key that has one: see `match_names`."""
    return match_names(keys, {path.relative_to(folder).as_posix(): path for path in find(folder, what)})


def match_names(keys: Iterable[str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entry for each of `keys`, paths without suffix: the one of that path, else the one of that stem.

    Keys without an entry are left out. Raises `UserError` where two entries would do.
    """
    by_name: dict[str, list[Entry]] = {}
    for name, entry in entries.items():
        path = Path(name).with_suffix("")
        for known in {path.as_posix(), f"*/{path.name}"}:
            by_name.setdefault(known, []).append(entry)
    found = {}
    for key in keys:
        alike = by_name.get(key) or by_name.get(f"*/{Path(key).name}", [])
        if len(alike) > 1:
            raise UserError(f"{key}: both {alike[0]} and {alike[1]} could be its partner; remove or rename one")
        if alike:
            found[key] = alike[0]
    return found


def read(
    path: str | Path,
    sample_rate: int | None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    mono: bool = True,
) -> np.ndarray:
    """Read a file or the part of it from `start_s` on, at `sample_rate` (None: the file's own).

    Only the needed part is decoded. A crop equals the same crop of the whole resampled file; it holds
    round(duration_s * sample_rate) samples unless the file ends before.
    Returns the channels' average [N], or with `mono=False` the channels [C, N].
    """
    path = Path(path)
    with _opened(path) as file:
        from_rate, to_rate = file.samplerate, sample_rate or file.samplerate
        total = file.frames
        if not 0 <= start_s * from_rate < total:
            raise UserError(f"{path}: lasts {total / from_rate:.2f} s, a part from {start_s:.2f} s on does not exist")
        # Cuts are made at whole samples of both rates, so that both grids stay aligned.
        down, up = from_rate // math.gcd(from_rate, to_rate), to_rate // math.gcd(from_rate, to_rate)
        begin = round(start_s * to_rate)
        margin = math.ceil(_MARGIN_S * from_rate) if down != up else 0
        first = max(0, (begin * down // up - margin) // down * down)
        end, last = None, total
        if duration_s is not None:
            end = begin + round(duration_s * to_rate)
            last = min(total, math.ceil(end * down / up) + margin)
        skipped = 0 if file.format != "MP3" else first  # MP3 frames depend on those before: after a seek they differ
        frames = _next_frames(file, path, last - first + skipped, first - skipped)[skipped:]
        _check_complete(file, path, last - first - len(frames))
    offset = first // down * up
    channels = frames.T if not mono else frames.mean(axis=1, dtype=np.float32)
    part = resample(channels, from_rate, to_rate)[..., begin - offset : None if end is None else end - offset]
    return np.ascontiguousarray(part)


def read_blocks(path: str | Path, sample_rate: int | None, mono: bool = False) -> Iterator[np.ndarray]:
    """`read` in blocks [C, n], of one channel with `mono`; MP3 is decoded once."""
    header = info(path)
    blocks, channels = _decode_blocks(header.path), header.channels
    if mono:
        blocks, channels = (block.mean(axis=0, keepdims=True, dtype=np.float32) for block in blocks), 1
    return resample_blocks(blocks, channels, header.sample_rate, sample_rate or header.sample_rate)


def measure_peak(path: str | Path) -> float:
    """Read a whole file and return its peak. Raises `UserError` where it is damaged, truncated, or holds NaN."""
    return max(float(np.abs(block).max(initial=0.0)) for block in _decode_blocks(Path(path)))


@lru_cache(maxsize=2**17)
def measure_rms(path: Path, sample_rate: int) -> float:
    """RMS of a whole file at `sample_rate`, channels averaged. Kept, so that a file is decoded for it once."""
    energy, length = 0.0, 0
    for block in read_blocks(path, sample_rate, mono=True):
        energy += float(np.sum(np.square(block, dtype=np.float64)))
        length += block.shape[-1]
    return math.sqrt(energy / max(length, 1))


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample `waveform` [..., N] along its last axis (soxr, high quality, linear phase, no delay)."""
    waveform = np.asarray(waveform, dtype=np.float32)
    if from_rate == to_rate:
        return waveform
    rows = waveform.reshape(-1, waveform.shape[-1])
    resampled = np.stack([soxr.resample(row, from_rate, to_rate, quality="HQ") for row in rows])
    return resampled.reshape(*waveform.shape[:-1], -1).astype(np.float32, copy=False)


def resample_blocks(blocks: Iterable[np.ndarray], channels: int, from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """`resample` of consecutive blocks [C, n]."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")
    blocks = iter(blocks)
    block = next(blocks, None)
    while block is not None:
        following = next(blocks, None)  # the stream has to know which block is the last
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        yield stream.resample_chunk(frames, last=following is None).reshape(-1, channels).T
        block = following


def to_length(waveform: np.ndarray, length: int) -> np.ndarray:
    """`waveform` [C, N] cut or padded to `length`: resampling there and back may miss it by a sample."""
    return np.pad(waveform, ((0, 0), (0, max(0, length - waveform.shape[-1]))))[:, :length]


def write(path: str | Path, waveform: np.ndarray, sample_rate: int, subtype: str | None = None) -> float:
    """Write `waveform` [N] or [C, N] in the format of the suffix; the file appears whole or not at all.

    `subtype` is libsndfile's, e.g. that of the input file; None, or one that the format cannot hold, means float32
    for WAV and the usual one elsewhere. Returns the peak of `waveform`. Formats other than float clip beyond 1: when
    the returned peak is above 1, such a file was attenuated as a whole to a peak of 0.999, which the caller reports.
    """
    path, waveform = Path(path), np.asarray(waveform, dtype=np.float32)
    peak = _checked_peak(path, waveform)
    _save(path, [np.atleast_2d(waveform)], sample_rate, 1 if waveform.ndim == 1 else len(waveform), peak, subtype)
    return peak


def write_blocks(
    path: str | Path, blocks: Iterable[np.ndarray], sample_rate: int, channels: int, subtype: str | None = None
) -> float:
    """`write` of consecutive blocks [C, n]. They wait on the disk until the peak of the whole is known."""
    path = Path(path)
    peak = 0.0
    with temporary_file(path) as raw:
        with raw.open("wb") as file:
            for block in blocks:
                peak = max(peak, _checked_peak(path, block))
                np.ascontiguousarray(block.T, dtype=np.float32).tofile(file)
        _save(path, _read_raw(raw, channels), sample_rate, channels, peak, subtype)
    return peak


def _read_raw(path: Path, channels: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(values := np.fromfile(file, np.float32, _BLOCK * channels)):
            yield values.reshape(-1, channels).T


def _checked_peak(path: Path, waveform: np.ndarray) -> float:
    """The peak of a waveform that is to be written. Raises `UserError` for another suffix than ours, NaN and Inf."""
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: cannot write this format; use one of {', '.join(AUDIO_SUFFIXES)}")
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: not written, because the computed waveform holds NaN or Inf values")
    return float(np.abs(waveform).max(initial=0.0))


def _save(
    path: Path, blocks: Iterable[np.ndarray], sample_rate: int, channels: int, peak: float, subtype: str | None
) -> None:
    """Write consecutive blocks [C, n] whose common `peak` is known, as `write` does."""
    suffix = path.suffix.lower()
    if subtype is None or not soundfile.check_format(_FORMATS[suffix], subtype):
        subtype = _DEFAULT_SUBTYPES[suffix]
    gain = np.float32(_PEAK_WHEN_ATTENUATED / peak if peak > 1 and subtype not in _FLOAT_SUBTYPES else 1)
    with (
        whole_file(path) as part,
        soundfile.SoundFile(part, "w", sample_rate, channels, subtype, format=_FORMATS[suffix]) as file,
    ):
        for block in blocks:
            for begin in range(0, block.shape[-1], _BLOCK):
                file.write(gain * block[:, begin : begin + _BLOCK].T)


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open an audio file; what makes it unreadable becomes one sentence."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes); copy or download it again")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        with path.open("rb") as content:  # what the system says of it comes first
            content.read(1)
        raise UserError(f"{path}: is not a readable audio file; replace or remove it") from error
    with file:
        if file.frames >= _UNKNOWN_LENGTH:
            raise UserError(f"{path}: its header does not say how long it is; re-encode it")
        if file.frames == 0:
            raise UserError(f"{path}: holds no audio, only a header; replace or remove it")
        cut = re.search(r"data : (\d+) \(should be (\d+)\)", file.extra_info)
        if cut and int(cut[2]) < int(cut[1]) < _STREAMED_WAV_BYTES:
            raise UserError(f"{path}: is truncated ({cut[2]} of {cut[1]} bytes of audio); copy or download it again")
        yield file


def _decode_blocks(path: Path) -> Iterator[np.ndarray]:
    with _opened(path) as file:
        left = file.frames
        while left > 0:
            frames = _next_frames(file, path, min(_BLOCK, left))
            if not len(frames):
                break
            left -= len(frames)
            yield frames.T
        _check_complete(file, path, left)


def _next_frames(file: soundfile.SoundFile, path: Path, count: int, begin: int | None = None) -> np.ndarray:
    """The next `count` frames as float32 [N, C], or those from `begin` on, checked for NaN or Inf."""
    try:
        if begin is not None:
            file.seek(begin)
        frames = file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: is damaged or truncated ({failure_of(error)}); copy or download it again") from error
    if not np.isfinite(frames).all():
        raise UserError(f"{path}: holds NaN or Inf values; replace or remove it")
    return frames


def _check_complete(file: soundfile.SoundFile, path: Path, missing: int) -> None:
    """Raise `UserError` where fewer frames came than the header promised."""
    if missing / file.samplerate > (_MP3_SLACK_S if file.format == "MP3" else 0):
        raise UserError(
            f"{path}: is truncated, {missing / file.samplerate:.3f} s are missing; copy or download it again"
        )
