"""Reading, resampling and writing of audio files."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from sgmse.common.errors import UserError
from sgmse.data import audio, listing


def coloured_noise(rate: int, seconds: float = 3.0, channels: int = 1) -> np.ndarray:
    """Noise [C, N] that falls towards high frequencies, as recordings do."""
    white = np.random.default_rng(0).normal(size=(channels, round(rate * seconds)))
    return (0.03 * lfilter([1], [1, -0.9], white)).astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "suffix"),
    [
        *((rate, suffix) for rate in (16000, 22050, 44100, 48000) for suffix in (".wav", ".flac", ".ogg", ".mp3")),
        *((rate, ".opus") for rate in (16000, 48000)),
    ],
)
def test_a_resampled_crop_equals_the_crop_of_the_resampled_file(tmp_path: Path, rate: int, suffix: str) -> None:
    path = tmp_path / f"noise{suffix}"
    audio.write(path, coloured_noise(rate)[0], rate)
    whole, crop = audio.read(path, 16000), audio.read(path, 16000, start_s=1.2345, duration_s=1.1)
    begin = round(1.2345 * 16000)
    assert crop.dtype == np.float32
    assert crop.shape == (17600,)
    assert np.abs(crop - whole[begin : begin + 17600]).max() < 1e-6


def test_mp3_crops_are_exact_although_the_decoder_cannot_seek_exactly(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp3"
    audio.write(path, coloured_noise(22050, 5)[0], 22050)
    whole = audio.read(path, None)
    for begin in range(12345, 80000, 7777):
        crop = audio.read(path, None, start_s=begin / 22050, duration_s=0.1)
        assert np.abs(crop - whole[begin : begin + 2205]).max() < 1e-6


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "GSM610"), ("AU", "G721_32"), ("WAV", "NMS_ADPCM_32")])
def test_parts_of_files_that_cannot_be_sought_in_are_read(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / f"noise.{kind.lower()}"
    soundfile.write(path, coloured_noise(8000)[0], 8000, subtype=subtype, format=kind)
    whole = audio.read(path, None)
    assert np.array_equal(audio.read(path, None, start_s=0.5, duration_s=0.25), whole[4000:6000])


@pytest.mark.parametrize("subtype", sorted(soundfile.available_subtypes()))
def test_whatever_the_format_of_the_input_every_format_can_be_written(tmp_path: Path, subtype: str) -> None:
    for suffix in (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf"):
        path = tmp_path / f"noise{suffix}"
        audio.write(path, coloured_noise(8000)[0], 8000, subtype)
        assert audio.info(path).num_frames >= 8000


def test_only_the_needed_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.flac"
    audio.write(path, coloured_noise(48000, 10)[0], 48000)
    frames: list[int] = []
    original = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, number: int, **options: object) -> np.ndarray:
        frames.append(number)
        return original(self, number, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    audio.read(path, 16000, start_s=4, duration_s=1)
    assert frames[0] < 1.5 * 48000
    assert len(frames) == 1


def test_a_crop_that_reaches_beyond_the_end_holds_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    audio.write(path, coloured_noise(44100)[0], 44100)
    whole = audio.read(path, 16000)
    assert np.allclose(audio.read(path, 16000, start_s=2.5, duration_s=5), whole[40000:], atol=1e-6)
    with pytest.raises(UserError, match=r"lasts 3\.00 s"):
        audio.read(path, 16000, start_s=3.5)


def test_resampling_keeps_a_tone_in_phase() -> None:
    time = {rate: np.arange(rate) / rate for rate in (16000, 44100)}
    tone = {rate: np.sin(2 * np.pi * 1000 * t) for rate, t in time.items()}
    resampled = audio.resample(np.stack([tone[44100], -tone[44100]]), 44100, 16000)
    assert resampled.shape == (2, 16000)
    assert np.abs(resampled[0, 800:-800] - tone[16000][800:-800]).max() < 1e-3
    assert np.array_equal(resampled[1], -resampled[0])


def test_channels_are_kept_or_averaged(tmp_path: Path) -> None:
    path, stereo = tmp_path / "stereo.wav", coloured_noise(16000, channels=2)
    audio.write(path, stereo, 16000)
    assert audio.info(path).channels == 2
    assert np.array_equal(audio.read(path, None, mono=False), stereo)
    assert np.allclose(audio.read(path, None), stereo.mean(axis=0))
    assert audio.read(path, 8000, mono=False).shape == (2, 24000)


def test_wav_files_are_written_bit_exactly_even_beyond_one(tmp_path: Path) -> None:
    loud = 40 * coloured_noise(16000)[0]
    assert audio.write(tmp_path / "new" / "folder" / "loud.wav", loud, 16000) == np.abs(loud).max() > 1
    assert np.array_equal(audio.read(tmp_path / "new" / "folder" / "loud.wav", None), loud)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["loud.wav"]


@pytest.mark.parametrize(("name", "subtype"), [("loud.flac", None), ("loud.wav", "PCM_16")])
def test_integer_formats_are_attenuated_instead_of_clipped(tmp_path: Path, name: str, subtype: str | None) -> None:
    loud = 40 * coloured_noise(16000)[0]
    peak = audio.write(tmp_path / name, loud, 16000, subtype)
    assert peak == pytest.approx(np.abs(loud).max())
    assert audio.info(tmp_path / name).subtype == "PCM_16"
    assert np.allclose(audio.read(tmp_path / name, None), loud * 0.999 / peak, atol=1e-4)


def test_a_subtype_that_the_format_lacks_gives_its_usual_one(tmp_path: Path) -> None:
    audio.write(tmp_path / "noise.wav", coloured_noise(16000)[0], 16000, "VORBIS")
    assert audio.info(tmp_path / "noise.wav").subtype == "FLOAT"


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path, old = tmp_path / "noise.wav", coloured_noise(16000)[0]
    audio.write(path, old, 16000)
    with pytest.raises(UserError, match="NaN"):
        audio.write(path, old * np.nan, 16000)
    assert np.array_equal(audio.read(path, None), old)
    with pytest.raises(UserError, match="cannot be written"):
        audio.write(path / "inside a file.wav", old, 16000)


def test_the_info_is_that_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    audio.write(path, coloured_noise(22050, 2.5)[0], 22050)
    assert audio.info(path) == audio.AudioInfo(path, 22050, 55125, 1, "FLOAT")
    assert audio.info(path).seconds == 2.5


def test_files_are_found_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    names = ["b.WAV", "a/c.flac", "a/.c.flac.12.part", "._b.wav", ".d.wav", "notes.txt"]
    for path in (tmp_path / name for name in names):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert listing.find(tmp_path) == [tmp_path / "a" / "c.flac", tmp_path / "b.WAV"]


def test_a_missing_or_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder \(for clean speech\)"):
        listing.find(tmp_path / "typo", "clean speech")
    with pytest.raises(UserError, match="holds no file ending in"):
        listing.find(tmp_path)


def spoil(folder: Path, kind: str) -> Path:
    """A file that is broken in one way."""
    samples = coloured_noise(16000)[0]
    audio.write(folder / "good.wav", samples, 16000)
    audio.write(folder / "good.flac", samples, 16000)
    audio.write(folder / "good.mp3", samples, 16000)
    path = folder / kind
    if kind == "nan.wav":
        samples[100] = np.nan
        soundfile.write(path, samples, 16000, subtype="FLOAT")
    elif kind == "header only.wav":
        soundfile.write(path, samples[:0], 16000)
    else:
        good = (folder / f"good{path.suffix}").read_bytes()
        length = {"empty": 0, "header": 30, "half": len(good) // 2}
        path.write_bytes(b"some words " * 30 if path.stem == "text" else good[: length[path.stem]])
    return path


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("nan.wav", "NaN"),
        ("header only.wav", "no audio"),
        ("empty.wav", "0 bytes"),
        ("text.wav", "not a readable"),
        ("text.mp3", "not a readable"),
        ("header.wav", "not a readable|truncated|no audio"),
        ("header.flac", "not a readable"),
        ("half.wav", "truncated"),
        ("half.flac", "truncated"),
        ("half.mp3", "truncated"),
    ],
)
def test_broken_files_are_named_in_one_sentence(tmp_path: Path, kind: str, complaint: str) -> None:
    path = spoil(tmp_path, kind)
    with pytest.raises(UserError, match=complaint) as caught:
        audio.read(path, 16000)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_intact_part_of_a_truncated_flac_can_be_read(tmp_path: Path) -> None:
    path = spoil(tmp_path, "half.flac")
    assert audio.read(path, 16000, duration_s=0.5).shape == (8000,)
    with pytest.raises(UserError, match="truncated"):
        audio.read(path, 16000, start_s=2.5, duration_s=0.3)


def test_what_cannot_be_read_while_a_result_is_written_is_not_told_as_the_result(tmp_path):
    def blocks(path):
        yield np.zeros((1, 10), np.float32)
        raise OSError(errno.EIO, "Input/output error", path)

    with pytest.raises(OSError, match=r"noisy\.wav"):
        audio.write_blocks(tmp_path / "out" / "a.wav", blocks("noisy.wav"), 16000, 1)
    with pytest.raises(UserError, match=r"a\.wav: cannot be written"):
        audio.write_blocks(tmp_path / "out" / "a.wav", blocks(None), 16000, 1)
    assert os.listdir(tmp_path / "out") == []
