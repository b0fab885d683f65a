"""One file through a pipe: audio in, audio out, words on stderr."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import RATE, refusal, saved_run
from small_corpora import samples, save

from sgmse.commands import enhance as enhancement
from sgmse.data import audio

ROOT = Path(__file__).parent.parent

pytest_plugins = ("enhancing",)


class Pipe:
    """Stands for sys.stdin or sys.stdout."""

    def __init__(self, content: bytes = b"", terminal: bool = False) -> None:
        self.buffer = io.BytesIO(content)
        self.buffer.isatty = lambda: terminal


@pytest.fixture
def piped(monkeypatch, ckpt):
    """The bytes that come out of the command when these go in."""

    def pass_through(content: bytes, *flags: object) -> bytes:
        source, sink = Pipe(content), Pipe()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", source)
            patch.setattr(sys, "stdout", sink)
            patch.setattr(sys, "argv", ["x", "--ckpt", str(ckpt), "--test_dir", "-", *map(str, flags)])
            enhancement.main()
        return sink.buffer.getvalue()

    return pass_through


@pytest.mark.parametrize(
    ("suffix", "rate", "subtype", "expected"),
    [
        ("wav", 16000, "PCM_16", "PCM_16"),
        ("flac", 44100, "PCM_24", "PCM_24"),
        ("ogg", 22050, "VORBIS", "FLOAT"),
        ("mp3", 44100, "MPEG_LAYER_III", "FLOAT"),
    ],
)
def test_any_format_goes_in_and_a_wav_of_equal_rate_and_length_comes_out(
    piped, tmp_path, suffix, rate, subtype, expected
):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((rate // 2, 2)), rate, subtype=subtype)
    with soundfile.SoundFile(io.BytesIO(piped(path.read_bytes()))) as result:
        assert (result.format, result.subtype, result.samplerate, result.channels) == ("WAV", expected, rate, 2)
        assert result.frames == audio.info(path).num_frames
        assert np.isfinite(result.read()).all()


def test_the_pipe_gives_what_the_folder_gives(piped, enhance, tmp_path):
    noisy = save(tmp_path / "noisy" / "stdin.wav", 0.4, RATE)  # the noise of sampling is drawn from the name
    flags = ("--noise_ref", save(tmp_path / "ref.wav", 0.5, RATE), "--sampler", "bridge_sde", "--N", 2)
    enhance(tmp_path / "noisy", *flags)
    (tmp_path / "piped.wav").write_bytes(piped(noisy.read_bytes(), *flags))
    assert (samples(tmp_path / "piped.wav") == samples(tmp_path / "out" / "stdin.wav")).all()


def test_nothing_but_the_sound_goes_to_stdout_and_nothing_is_left_behind(piped, tmp_path, capsys, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    result = piped(save(tmp_path / "a.wav", 0.4, RATE).read_bytes())
    assert result.startswith(b"RIFF")
    assert "references: estimated from each noisy file alone" in capsys.readouterr().err
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.parametrize(
    ("stdin", "flags", "culprit"),
    [
        (Pipe(b""), "", "stdin: is empty"),
        (Pipe(b"not audio"), "", "stdin: is not a readable audio file"),
        (Pipe(b"RIFF\x24\x00\x00\x00WAVE"), "", "stdin: is not a readable audio file"),
        (Pipe(terminal=True), "", "stdin, which is a terminal"),
        (Pipe(b"x"), "--enhanced_dir out", "--enhanced_dir"),
        (Pipe(b"x"), "--noise_ref_dir refs", "--noise_ref_dir"),
        (Pipe(b"x"), "--oracle_noise --clean_dir clean", "--oracle_noise"),
        (Pipe(b"x"), "--shard 1/2", "--shard"),
    ],
)
def test_what_a_pipe_cannot_take_is_refused(monkeypatch, capsys, ckpt, stdin, flags, culprit):
    monkeypatch.setattr(sys, "stdin", stdin)
    assert culprit in refusal(enhancement.main, capsys, "--ckpt", ckpt, "--test_dir", "-", *flags.split())


@pytest.mark.slow
def test_the_shell_can_pipe(tmp_path):
    ckpt = saved_run(tmp_path / "logs" / "run")
    noisy = save(tmp_path / "a.wav", 0.4, RATE)
    command = (
        f"cat {noisy} | {sys.executable} {ROOT}/enhancement_noise_cond.py --ckpt {ckpt} --test_dir - > {tmp_path}/b.wav"
    )
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert audio.info(tmp_path / "b.wav").num_frames == audio.info(noisy).num_frames
