"""Containers of audio: which are read and written, and whether a file holds as much as its header says.

libsndfile believes a header. Where sound lies behind the end that a header names, it is left out without a word.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import soundfile

from sgmse.common.errors import UserError

# By suffix: libsndfile's name of the container, and the sample format where that of the input does not fit.
FORMATS = {
    **dict.fromkeys((".wav", ".wave"), ("WAV", "FLOAT")),
    ".flac": ("FLAC", "PCM_16"),
    **dict.fromkeys((".ogg", ".oga"), ("OGG", "VORBIS")),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    **dict.fromkeys((".aiff", ".aif", ".aifc"), ("AIFF", "FLOAT")),
    **dict.fromkeys((".au", ".snd"), ("AU", "FLOAT")),
    ".caf": ("CAF", "FLOAT"),
    ".rf64": ("RF64", "FLOAT"),
    ".w64": ("W64", "FLOAT"),
    **dict.fromkeys((".sph", ".nist"), ("NIST", "PCM_16")),
    **dict.fromkeys((".sf", ".ircam"), ("IRCAM", "FLOAT")),
    ".voc": ("VOC", "PCM_16"),
    ".paf": ("PAF", "PCM_16"),
    ".pvf": ("PVF", "PCM_16"),
    ".avr": ("AVR", "PCM_16"),
    **dict.fromkeys((".svx", ".8svx", ".iff"), ("SVX", "PCM_16")),
    ".htk": ("HTK", "PCM_16"),
    ".sds": ("SDS", "PCM_16"),
    ".wve": ("WVE", "ALAW"),
}
# Audio that libsndfile cannot read, or cannot write again
FOREIGN_SUFFIXES = frozenset(
    """.3gp .aac .ac3 .alac .amr .ape .dff .dsf .dts .eac3 .m4a .m4b .m4r .mka .mkv .mov .mp1 .mp2 .mp4 .mpc .oma .pcm
    .qcp .ra .raw .sd2 .shn .spx .tak .tta .weba .webm .wma .wv .xi""".split()
)
WAV_LIMIT = 2**32 - 2**16  # bytes of audio, from which on a WAV is written as RF64

_DIFFERENCE = re.compile(r"(FORM|SSND|BODY|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)")
_NIST_LENGTH = re.compile(rb"sample_count -i (\d+)")
_LENGTH = re.compile(r"(?:  Frames +: |Data length )(\d+)")  # of an AVR and of a WVE
_CUT = "Seems to be a truncated file"  # libsndfile's note on a VOC
_UNKNOWN_LENGTH = 2**40  # streamed FLAC files hold no length: libsndfile then reports a huge one
_FLAC = b"fLaC\0\0\0\x22"  # opens a FLAC: its name and the header of its first block
_NO_CHUNKS = (b"data", b"RIFF", b"RF64", b"FORM")  # more sound, or another file
_CHUNKS_OF_WORDS = (b"LIST", b"bext", b"iXML", b"id3 ", b"ID3 ", b"cue ", b"smpl", b"PEAK", b"_PMX", b"axml")
_TAIL = 2**16  # bytes, in which a chunk after the audio begins
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")
_AU_PADDING = 16  # bytes
_PADDING = 4096  # zero bytes after the last chunk, which some recorders leave
_MP3_BITRATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG-1, layer III
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG-2 and 2.5
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MP3_SLACK = 4  # frames that an encoder adds at both ends, and its header takes off


@contextmanager
def open_audio(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open an audio file; what makes it unreadable becomes one sentence.

    Raises `UserError` also where the header contradicts the size of the file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes); copy or download it again")
    with ExitStack() as stack:
        try:
            begin = _find_wrong_size(path)
            source = path if begin is None else stack.enter_context(_with_size(path, begin))
            file = stack.enter_context(soundfile.SoundFile(source))
        except soundfile.LibsndfileError as error:
            with path.open("rb") as content:  # what the system says of it comes first
                content.read(1)
            if path.suffix.lower() in FOREIGN_SUFFIXES:
                raise UserError(f"{path}: is in a format that is not read here; {_reencode(path)}") from error
            raise UserError(f"{path}: is not a readable audio file; replace or remove it") from error
        if file.frames >= _UNKNOWN_LENGTH:
            raise UserError(f"{path}: its header does not say how long it is; {_reencode(path)}")
        _check_claims(path, file)
        if file.frames == 0 and file.format == "OGG":
            raise _truncated(path, "no page of audio is whole")
        if file.frames == 0:
            raise UserError(f"{path}: holds no audio, only a header; replace or remove it")
        yield file


def check_end(path: Path, file: soundfile.SoundFile) -> None:
    """Raise `UserError` where a file holds another length than its header says; its bytes are read for it.

    An MP3 without its length is guessed from its first frame, and of files that were joined end to end only the first
    is found.
    """
    if file.format not in ("MP3", "OGG", "FLAC"):
        return
    held = "more sound"
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if file.format == "MP3":
            frames, frame, has_index = _count_mp3_frames(content)
            held, beyond = f"{frames * frame / file.samplerate:.2f} s", frames * frame - file.frames
            is_wrong = beyond > _MP3_SLACK * frame or (not has_index and beyond < -_MP3_SLACK * frame)
            is_wrong = is_wrong and frames > 0  # of other layers none are counted
        elif file.format == "OGG":
            if _is_ogg_cut(content):
                raise _truncated(path, "its last page is not whole")
            is_wrong = content.find(b"OggS\0\2", 1) >= 0  # another first page
        else:
            begin = max(0, content.find(_FLAC))  # behind the words that some programs put before it
            is_joined = content.find(_FLAC, begin + 1) >= 0
            is_wrong = is_joined or _is_flac_longer(path, file.frames, begin)
    if is_wrong:
        raise UserError(
            f"{path}: holds {held}, but its header says or suggests {file.frames / file.samplerate:.2f} s (two files "
            f"in one, a variable bit rate without its length); {_reencode(path)}"
        )


class _Headed(io.FileIO):
    """A file in which `head` stands for the first bytes, up to `begin`."""

    def __init__(self, path: Path, head: bytes, begin: int) -> None:
        super().__init__(path)
        self._head, self._begin, self._place = head, begin, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += super().seek(0, io.SEEK_END) - self._begin + len(self._head)
        self._place = offset + (self._place if whence == io.SEEK_CUR else 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        from_head = self._head[self._place : self._place + len(buffer)]
        buffer[: len(from_head)] = from_head
        super().seek(self._begin + max(0, self._place - len(self._head)))
        count = len(from_head) + super().readinto(memoryview(buffer)[len(from_head) :])
        self._place += count
        return count


def _with_size(path: Path, begin: int) -> _Headed:
    """A WAV with the size of its audio, which goes from `begin` to the end, as RF64: that may be above 4 GiB."""
    with path.open("rb") as file:
        chunks = file.read(begin - 8)[12:]
    if chunks[:4] == b"ds64":
        chunks = chunks[8 + int.from_bytes(chunks[4:8], "little") :]
    size = path.stat().st_size - begin
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(chunks) + 48, size, 0, 0)
    return _Headed(path, b"RF64" + b"\xff" * 4 + b"WAVE" + sizes + chunks + b"data" + b"\xff" * 4, begin)


def _find_wrong_size(path: Path) -> int | None:
    """Where the audio of a WAV begins that is known to reach to the end of the file, whatever its size says.

    It is known of a file that was never closed (0), of one of more than 4 GiB whose size wrapped, and where the size of
    the whole is right. None: the size is right, or the file another kind. Raises `UserError` where more audio is
    claimed than there is, or less while the end is unknown.
    """
    claim = _read_claim(path)
    if claim is None:
        return None
    is_wav, begin, claimed, held, outer, is_followed = claim
    total = path.stat().st_size
    is_less = claimed < held and not is_followed
    if is_less and is_wav and not _ends_with_chunk(path, total):
        is_wrapped = held > claimed == held % 2**32
        if claimed == 0 or is_wrapped or outer == total - 8:
            return begin
    if claimed > total and not _is_placeholder(claimed):  # up to there it may count the header itself
        raise _truncated(path, f"{held} of {claimed} bytes of audio")
    if is_less:
        how = f"as in `ffmpeg -ignore_length 1 -i {path.name} new.wav`" if is_wav else "or export it again"
        raise UserError(
            f"{path}: its header claims {claimed} bytes of audio, but {held} follow: it was not closed, is too long "
            f"for its format, or is two files in one; write the header anew, {how}"
        )
    return None


def _read_claim(path: Path) -> tuple[bool, int, int, int, int, bool] | None:
    """Of a WAV, RF64, AIFF or AU: whether it is one of the first two, where its audio begins, the size of that by the
    header, the bytes that follow, the size of the whole by the header, and whether other chunks follow the audio.

    None: another kind, or cut before its audio.
    """
    total, size64 = path.stat().st_size, None
    with path.open("rb") as file:
        kind, first, form = struct.unpack(">4sI4s", file.read(12).ljust(12, b"\0"))
        if kind == b".snd":
            claimed, held = int.from_bytes(form, "big"), total - first
            return False, first, claimed, held, total - 8, held - claimed < _AU_PADDING
        if kind not in (b"RIFF", b"RIFX", b"RF64", b"FORM") or form not in (b"WAVE", b"AIFF", b"AIFC"):
            return None
        order = ">" if kind in (b"RIFX", b"FORM") else "<"
        outer = struct.unpack(f"{order}I", struct.pack(">I", first))[0]
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack(f"{order}4sI", head)
            start = file.tell()
            if name == b"ds64":
                size64 = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))[0]
            elif name in (b"data", b"SSND"):
                claimed = size64 if size == 2**32 - 1 and size64 else size
                is_followed = _are_chunks(file, start + claimed, total, order)
                return kind in (b"RIFF", b"RF64"), start, claimed, total - start, outer, is_followed
            file.seek(start + size + size % 2)
    return None


def _ends_with_chunk(path: Path, total: int) -> bool:
    """Whether the last bytes of a WAV are a chunk of words, or another file, in which case no sound ends there."""
    with path.open("rb") as file:
        file.seek(max(12, total - _TAIL))
        tail = file.read()
    for name in _CHUNKS_OF_WORDS:
        place = tail.rfind(name)
        if place >= 0 and len(tail) - place >= 8:
            size = int.from_bytes(tail[place + 4 : place + 8], "little")
            if 0 <= len(tail) - place - 8 - size <= 1:
                return True
    return False


def _are_chunks(file: io.BufferedReader, place: int, total: int, order: str) -> bool:
    """Whether the bytes from `place` to the end are chunks, the last of which may be cut, or padding."""
    place += place % 2
    while total - place >= 8:
        file.seek(place)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name in _NO_CHUNKS or not _CHUNK_NAME.fullmatch(name):
            file.seek(place)
            return total - place <= _PADDING and not any(file.read())
        place += 8 + size + size % 2
    return True


def _is_placeholder(claimed: int) -> bool:
    """Whether it is what programs write into a WAV that goes through a pipe (sox, arecord, ffmpeg)."""
    return claimed == 0x7FFFF000 or 0x7FFFFF00 <= claimed <= 0x80000000 or claimed >= 0xFFFFFF00


def _check_claims(path: Path, file: soundfile.SoundFile) -> None:
    """Raise `UserError` where libsndfile notes that a container other than WAV is longer or shorter than it claims."""
    if file.format in ("WAV", "WAVEX"):
        return
    found = [(int(claimed), int(held)) for _, claimed, held in _DIFFERENCE.findall(file.extra_info)]
    if file.format in ("AVR", "WVE"):
        found += [(int(claimed), file.frames) for claimed in _LENGTH.findall(file.extra_info)]
    if file.format == "NIST":
        with path.open("rb") as header:
            found += [(int(claimed), file.frames) for claimed in _NIST_LENGTH.findall(header.read(1024))]
    if _CUT in file.extra_info:
        raise _truncated(path, "its last block is not whole")
    for claimed, held in found:
        if held < claimed - 1 and claimed < 0xFFFFFF00:
            raise _truncated(path, f"{held} of {claimed} bytes")
        if held > claimed + _PADDING and file.format in ("W64", "NIST", "AVR", "WVE"):
            raise UserError(f"{path}: its header claims {claimed}, but {held} are there; write or convert it anew")


def conversion(path: Path) -> str:
    """The line that converts a file; of one without a header, such as .raw, the type and rate have to be told."""
    told = "-f s16le -ar RATE -ac 1 " if path.suffix.lower() in (".raw", ".pcm") else ""
    return f"`ffmpeg {told}-i {path.name} {path.stem}.wav`"


def _reencode(path: Path) -> str:
    return f"encode it anew, as in {conversion(path)}"


def _truncated(path: Path, detail: str) -> UserError:
    return UserError(f"{path}: is truncated ({detail}); copy or download it again")


def _is_flac_longer(path: Path, frames: int, begin: int) -> bool:
    """Whether a sample follows those that the header, which begins at `begin`, counts."""
    with path.open("rb") as opened:
        opened.seek(begin)
        head = opened.read(26)
    if head[:4] != b"fLaC":
        return False
    head = head[:21] + bytes([head[21] & 0xF0, 0, 0, 0, 0])  # byte 21 ends in bits of the count
    with _Headed(path, head, begin + len(head)) as uncounted, soundfile.SoundFile(uncounted) as file:
        try:
            file.seek(frames)
            return len(file.read(1)) > 0
        except soundfile.LibsndfileError:
            return False


def _is_ogg_cut(content: mmap.mmap) -> bool:
    """Whether the last page ends before what its table of segments says."""
    page = content.rfind(b"OggS\0")
    if page < 0 or len(content) < page + 27:
        return True
    segments = content[page + 27 : page + 27 + content[page + 26]]
    return len(segments) < content[page + 26] or page + 27 + len(segments) + sum(segments) > len(content)


def _count_mp3_frames(content: mmap.mmap) -> tuple[int, int, bool]:
    """The frames of an MP3 stream, their samples (0: none is found), and whether one more holds their number."""
    place, count, samples, has_index = 0, 0, 0, False
    if content[:3] == b"ID3":  # its size: four times seven bits
        place = 10 + sum((byte & 127) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    while (place := content.find(b"\xff", place)) >= 0:
        found = _read_mp3_header(content[place : place + 4])
        if found is None or (samples and found[1] != samples):
            place += 1
            continue
        size, frame = found
        following = content[place + size : place + size + 4]
        if place + size > len(content) or (following[:1] not in (b"\xff", b"") and not count):
            place += 1  # by chance: another frame would follow
            continue
        is_index = count == 0 and any(word in content[place : place + 200] for word in (b"Xing", b"Info", b"VBRI"))
        has_index |= is_index
        samples, count, place = frame, count + (not is_index), place + size
    return count, samples, has_index


def _read_mp3_header(head: bytes) -> tuple[int, int] | None:
    """Bytes and samples of a frame of layer III; None for other bytes."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate, padding = (head[1] >> 3) & 3, head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    bits = _MP3_BITRATES[3 if version == 3 else 2][bitrate] * 1000
    return samples // 8 * bits // _MP3_RATES[version][rate] + padding, samples
