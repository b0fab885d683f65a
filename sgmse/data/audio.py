"""Audio files in and out: the only file I/O on audio. Waveforms are float32, mono [N] or multi-channel [C, N].

Recordings of any length come and go in blocks [C, n] that need little memory: joined, they are what the functions for
whole waveforms give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sgmse.common.errors import UserError
from sgmse.common.files import failure_of, temporary_file, whole_file
from sgmse.data.containers import FORMATS, WAV_LIMIT, check_end, open_audio

_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
_DECODED_FROM_START = ("MPEG", "OPUS", "GSM610", "G721", "G723", "NMS")  # after a seek they differ, or refuse it
_NOT_WRITTEN = ("MPEG_LAYER_I", "MPEG_LAYER_II", "DWVW_12")  # libsndfile says that it can, and cannot
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_MARGIN_S = 0.1  # longer than the impulse response of the resampling filter for every rate from 8 kHz
_PEAK_WHEN_ATTENUATED = 0.999
_BLOCK = 65536  # samples; libsndfile's Vorbis encoder keeps a whole block on the stack and crashes on long ones
_MP3_SLACK_S = 0.1  # an MP3 header's length may count the encoder's padding


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    path: Path
    sample_rate: int
    num_frames: int
    channels: int
    subtype: str

    @property
    def is_lossy(self) -> bool:
        """Whether the file is compressed with loss."""
        return self.subtype.startswith(("MPEG", "VORBIS", "OPUS"))

    @property
    def is_float(self) -> bool:
        """Whether samples beyond ±1 are kept."""
        return self.subtype in _FLOAT_SUBTYPES

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
    with open_audio(path) as file:
        return AudioInfo(path, file.samplerate, file.frames, file.channels, file.subtype)


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
    with open_audio(path) as file:
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
        skipped = first if file.subtype.startswith(_DECODED_FROM_START) else 0
        frames = _next_frames(file, path, last - first + skipped, first - skipped)[skipped:]
        if last == total:
            check_end(path, file)
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


def write(
    path: str | Path,
    waveform: np.ndarray,
    sample_rate: int,
    subtype: str | None = None,
    compression: float | None = None,
) -> float:
    """Write `waveform` [N] or [C, N] in the format of the suffix; the file appears whole or not at all.

    `subtype` is libsndfile's, e.g. that of the input file; None, or one that the format cannot hold, means float32
    for WAV and the usual one elsewhere. `compression`: of formats that lose something, from 0 (best) to 1 (smallest).
    Returns the peak of `waveform`. Formats other than float clip beyond 1: when the returned peak is above 1, such a
    file was attenuated as a whole to a peak of 0.999, which the caller reports.
    """
    path, waveform = Path(path), np.asarray(waveform, dtype=np.float32)
    peak = _checked_peak(path, waveform)
    channels = np.atleast_2d(waveform)
    _save(path, [channels], channels.shape[1], sample_rate, len(channels), peak, subtype, compression)
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
        length = raw.stat().st_size // (4 * channels)
        _save(path, _read_raw(raw, channels), length, sample_rate, channels, peak, subtype)
    return peak


def _read_raw(path: Path, channels: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(values := np.fromfile(file, np.float32, _BLOCK * channels)):
            yield values.reshape(-1, channels).T


def _checked_peak(path: Path, waveform: np.ndarray) -> float:
    """The peak of a waveform that is to be written. Raises `UserError` for another suffix than ours, NaN and Inf."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: cannot write this format; use one of {', '.join(FORMATS)}")
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: not written, because the computed waveform holds NaN or Inf values")
    return float(np.abs(waveform).max(initial=0.0))


def _save(
    path: Path,
    blocks: Iterable[np.ndarray],
    length: int,
    sample_rate: int,
    channels: int,
    peak: float,
    subtype: str | None,
    compression: float | None = None,
) -> None:
    """Write consecutive blocks [C, n] whose common `peak` and `length` are known, as `write` does."""
    kind, usual = FORMATS[path.suffix.lower()]
    fits = subtype is not None and soundfile.check_format(kind, subtype) and subtype not in _NOT_WRITTEN
    subtype = usual if subtype is None or not fits or (subtype.startswith("MPEG") and kind != "MP3") else subtype
    if kind == "WAV" and length * channels * _SAMPLE_BYTES.get(subtype, 2) > WAV_LIMIT:
        kind = "RF64"
    gain = np.float32(_PEAK_WHEN_ATTENUATED / peak if peak > 1 and subtype not in _FLOAT_SUBTYPES else 1)
    with (
        whole_file(path) as part,
        soundfile.SoundFile(
            part, "w", sample_rate, channels, subtype, format=kind, compression_level=compression
        ) as file,
    ):
        for block in blocks:
            for begin in range(0, block.shape[-1], _BLOCK):
                file.write(gain * block[:, begin : begin + _BLOCK].T)


def _decode_blocks(path: Path) -> Iterator[np.ndarray]:
    with open_audio(path) as file:
        left = file.frames
        while left > 0:
            frames = _next_frames(file, path, min(_BLOCK, left))
            if not len(frames):
                break
            left -= len(frames)
            yield frames.T
        check_end(path, file)
        _check_complete(file, path, left)


def _next_frames(file: soundfile.SoundFile, path: Path, count: int, begin: int = 0) -> np.ndarray:
    """The next `count` frames as float32 [N, C], those from `begin` on where it is above 0, checked for NaN or Inf."""
    try:
        if begin:
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
