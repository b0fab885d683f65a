"""What a header says of a file's length is compared with what is there; every format that is read is found."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sgmse.common.errors import UserError
from sgmse.data import audio, containers, listing

RATE = 16000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
BYTES = 2 * len(NOISE)


def wav(path: Path, claimed: int, outer: int = 36 + BYTES, tail: bytes = b"") -> Path:
    """A 16-bit mono WAV of a second whose data chunk claims so many bytes."""
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", outer, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    path.write_bytes(head + struct.pack("<4sI", b"data", claimed) + (NOISE * 32767).astype("<i2").tobytes() + tail)
    return path


def patched(path: Path, patch: Callable[[bytearray], object]) -> Path:
    """A second of noise in the format of the suffix, of which some bytes are others."""
    kind, subtype = containers.FORMATS[path.suffix]
    soundfile.write(path, NOISE, RATE, subtype, format=kind)
    content = bytearray(path.read_bytes())
    patch(content)
    path.write_bytes(content)
    return path


def put(place: int, patch: bytes) -> Callable[[bytearray], object]:
    return lambda content: content.__setitem__(slice(place, place + len(patch)), patch)


def mp3(path: Path, samples: np.ndarray, mode: str) -> Path:
    with soundfile.SoundFile(path, "w", RATE, 1, format="MP3", bitrate_mode=mode, compression_level=0.1) as file:
        file.write(samples)
    return path


def without_length(path: Path) -> Path:
    """The MP3 without its first frame, which holds the number of the others."""
    content = path.read_bytes()
    index = max(content.find(b"Xing"), content.find(b"Info"))
    sync = content.rindex(b"\xff", 0, index)
    path.write_bytes(content[content.index(content[sync : sync + 2], index) :])
    return path


def length_by_decoding(path: Path) -> int:
    return sum(block.shape[-1] for block in audio.read_blocks(path, None))


@pytest.mark.parametrize(
    ("claimed", "outer"),
    [
        (0, 36 + BYTES),  # never closed
        (0, 8),
        (0, 0xFFFFFFFF),
        (BYTES + 1, 36 + BYTES),
        (BYTES + 16, 36 + BYTES),
        (BYTES + 44, 36 + BYTES),  # counts the header
        (0x7FFFF000, 0x7FFFF024),  # through a pipe, by sox
        (0xFFFFFFFF, 0xFFFFFFFF),  # by ffmpeg
        (BYTES // 2, 36 + BYTES),  # half, but the size of the whole is right
    ],
)
def test_a_wav_is_read_whole_whatever_its_header_leaves_out(tmp_path: Path, claimed: int, outer: int) -> None:
    path = wav(tmp_path / "a.wav", claimed, outer)
    assert audio.info(path).num_frames == length_by_decoding(path) == RATE
    assert np.allclose(audio.read(path, None), NOISE, atol=1e-4)


def test_chunks_and_padding_after_the_audio_are_no_sound(tmp_path: Path) -> None:
    for tail in (
        b"LIST" + struct.pack("<I", 10) + b"INFOabcdef",
        bytes(512),
        b"id3 \4\0\0\0abcd" + bytes(3),
        b"TAGtitle" + bytes(120),
    ):
        assert length_by_decoding(wav(tmp_path / "a.wav", BYTES, tail=tail)) == RATE


@pytest.mark.parametrize(
    ("claimed", "outer", "tail", "complaint"),
    [
        (BYTES // 2, 36 + BYTES // 2, b"", "claims 16000 bytes of audio, but 32000 follow"),
        (BYTES // 2, 54 + BYTES, b"LIST" + struct.pack("<I", 10) + b"INFOabcdef", "but 32018 follow"),
        (BYTES, 36 + BYTES, b"data" + struct.pack("<I", 4) + b"abcd", "two files in one"),
        (3 * 2**30, 36 + BYTES, b"", "truncated"),  # a cut file of 3 GiB
    ],
)
def test_a_wav_whose_header_contradicts_its_size_is_refused(
    tmp_path: Path, claimed: int, outer: int, tail: bytes, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        audio.info(wav(tmp_path / "a.wav", claimed, outer, tail))


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("joined.flac", lambda content: content.extend(content)),
        ("half.flac", put(22, (RATE // 2).to_bytes(4, "big"))),
        ("joined.ogg", lambda content: content.extend(content)),
        ("joined.opus", lambda content: content.extend(content)),
        ("joined.mp3", lambda content: content.extend(content)),
        ("joined.wav", lambda content: content.extend(content)),
        ("joined.au", lambda content: content.extend(content)),
        ("half.au", put(8, RATE.to_bytes(4, "big"))),
        ("joined.aiff", lambda content: content.extend(content)),
        ("joined.w64", lambda content: content.extend(content)),
        ("joined.sph", lambda content: content.extend(content)),
    ],
)
def test_sound_behind_the_end_that_the_header_names_is_refused(
    tmp_path: Path, name: str, patch: Callable[[bytearray], object]
) -> None:
    path = patched(tmp_path / name, patch)
    with pytest.raises(UserError, match=r"header (says|claims)") as caught:
        length_by_decoding(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UserError):
        audio.read(path, RATE)


@pytest.mark.parametrize("suffix", "wav flac ogg opus mp3 aiff au caf w64 rf64 sph voc avr svx sds".split())
def test_a_file_that_is_cut_is_refused_and_a_whole_one_read(tmp_path: Path, suffix: str) -> None:
    assert length_by_decoding(patched(tmp_path / f"whole.{suffix}", len)) == RATE
    path = patched(tmp_path / f"cut.{suffix}", lambda content: content.__delitem__(slice(len(content) // 2, None)))
    with pytest.raises(UserError, match=r"truncated|not a readable"):
        length_by_decoding(path)


@pytest.mark.parametrize("starts", ["loud", "silent"])  # its length is guessed as too short, too long
def test_an_mp3_of_variable_rate_without_its_length_is_refused(tmp_path: Path, starts: str) -> None:
    noisy = np.concatenate([*[NOISE] * 5, np.zeros(20 * RATE)])
    path = mp3(tmp_path / "a.mp3", noisy if starts == "loud" else noisy[::-1], "VARIABLE")
    assert length_by_decoding(path) == len(noisy)
    with pytest.raises(UserError, match=r"holds 2[56]\.\d+ s, but .* variable bit rate without its length"):
        length_by_decoding(without_length(path))


def test_an_mp3_of_constant_rate_needs_no_length(tmp_path: Path) -> None:
    path = without_length(mp3(tmp_path / "a.mp3", NOISE, "CONSTANT"))
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert RATE <= length_by_decoding(path) <= RATE + 4 * 576


def test_a_wav_of_more_than_4_gib_whose_size_wrapped_is_read_whole(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", BYTES, 36 + BYTES)
    with path.open("r+b") as file:
        file.truncate(2**32 + path.stat().st_size)  # sparse
        assert audio.info(path).num_frames == 2**31 + RATE
        assert len(audio.read(path, None, start_s=2**31 / RATE)) == RATE
        file.truncate(path.stat().st_size - 2)
    with pytest.raises(UserError, match=r"claims 32000 bytes of audio, but 4294999294 follow"):
        audio.info(path)


def test_results_too_long_for_a_wav_are_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "WAV_LIMIT", 60000)
    audio.write(tmp_path / "short.wav", NOISE[:14000], RATE)
    audio.write(tmp_path / "long.wav", NOISE, RATE)
    audio.write_blocks(tmp_path / "blocks.wav", [NOISE[None, :9000], NOISE[None, 9000:]], RATE, 1)
    for name, kind in {"short": "WAV", "long": "RF64", "blocks": "RF64"}.items():
        assert soundfile.SoundFile(tmp_path / f"{name}.wav").format in (kind, f"{kind}EX")
    assert np.array_equal(audio.read(tmp_path / "blocks.wav", None), NOISE)


@pytest.mark.parametrize("suffix", containers.FORMATS)
def test_every_format_is_found_read_and_written(tmp_path: Path, suffix: str) -> None:
    path, rate = tmp_path / f"a{suffix.upper()}", 8000 if suffix == ".wve" else RATE
    audio.write(path, NOISE, rate)
    assert listing.find(tmp_path) == [path]
    assert (audio.info(path).num_frames, audio.info(path).sample_rate) == (RATE, rate)
    assert length_by_decoding(path) == RATE


def test_nothing_in_a_folder_is_passed_over_in_silence(tmp_path: Path) -> None:
    for name in ("a.wav", ".ipynb_checkpoints/a-checkpoint.wav", "talk.wav", "talk.m4a", "notes.txt"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    (tmp_path / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "back").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in listing.find(tmp_path)]
    assert names == ["again/a.wav", "again/talk.wav", "set/a.wav", "set/talk.wav"]  # m4a: there is a WAV of it
    (tmp_path / "set" / "round.wav").symlink_to("round.wav")
    with pytest.raises(UserError, match=r"round\.wav: is no such file, but a link that leads nowhere"):
        listing.find(tmp_path)
    (tmp_path / "set" / "round.wav").unlink()
    (tmp_path / "set" / "phone.m4a").touch()
    with pytest.raises(UserError, match=r"set/phone\.m4a.*`ffmpeg -i phone\.m4a phone\.wav`"):
        listing.find(tmp_path)


def test_a_name_that_is_not_utf_8_is_refused_in_one_sentence(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).touch()
    with pytest.raises(UserError, match=r"caf\\xe9\.wav.*not UTF-8") as caught:
        listing.find(tmp_path)
    str(caught.value).encode()


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    for folder, name in (("noisy", "cafe\u0301.wav"), ("clean", "caf\u00e9.wav")):
        (tmp_path / folder).mkdir()
        audio.write(tmp_path / folder / name, NOISE, RATE)
    noisy, clean = (listing.by_name(tmp_path / name, name) for name in ("noisy", "clean"))
    assert noisy.keys() == clean.keys() == {"caf\u00e9"}
    assert listing.find_partners(["cafe\u0301"], tmp_path / "clean", "clean") == {"cafe\u0301": clean["caf\u00e9"]}
    audio.write(tmp_path / "clean" / "cafe\u0301.wav", NOISE, RATE)
    with pytest.raises(UserError, match="suffix or accents"):
        listing.by_name(tmp_path / "clean", "clean")


def test_a_name_that_stands_in_two_folders_is_matched_by_its_path_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    audio.write(tmp_path / "b" / "1.wav", NOISE, RATE)
    assert listing.find_partners(["a/1", "b/1"], tmp_path, "noise") == {"b/1": tmp_path / "b" / "1.wav"}
    assert listing.find_partners(["a/1"], tmp_path, "noise") == {"a/1": tmp_path / "b" / "1.wav"}


def test_headers_of_many_files_are_kept_and_read_again_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "_MANY", 3)
    paths = [wav(tmp_path / f"{i}.wav", BYTES) for i in range(3)]
    first = listing.read_headers(paths)
    assert [info.path for info in first] == paths
    wav(paths[1], BYTES, tail=bytes(64))
    read: list[Path] = []
    work = audio.info
    monkeypatch.setattr(audio, "info", lambda path: [read.append(path), work(path)][1])
    assert listing.read_headers(paths) == first
    assert read == [paths[1]]
    paths[0].write_text("words")
    paths[2].write_bytes(b"")
    with pytest.raises(UserError, match=r"2 files cannot be used: .*0\.wav.*; .*2\.wav"):
        listing.read_headers(paths)


def test_words_before_a_flac_are_no_second_file(tmp_path: Path) -> None:
    path = tmp_path / "tagged.flac"
    audio.write(path, np.zeros(24000, np.float32), 16000)
    plain = path.read_bytes()
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + plain)
    assert len(audio.read(path, None)) == 24000
    path.write_bytes(path.read_bytes() + plain)
    with pytest.raises(UserError, match="two files in one"):
        audio.read(path, None)
