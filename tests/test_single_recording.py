"""One recording in, one file out: `enhance noisy.wav --noise_ref fan.wav -o out.wav`; and several by name."""

import json
import os
import re

import numpy as np
import pytest
import soundfile
from commands import RATE, call, refusal
from small_corpora import samples, save

from sgmse.commands import enhance as enhancement
from sgmse.data import audio

pytest_plugins = ("enhancing",)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """noisy.wav, x/noisy.wav, other.wav and fan.wav in the folder where the command is called."""
    monkeypatch.chdir(tmp_path)
    for name in ("noisy.wav", "other.wav", "fan.wav", "x/noisy.wav"):
        save(tmp_path / name, 0.4, RATE)
    return tmp_path


@pytest.fixture
def type_command(files, capsys, ckpt):
    return lambda line: call(enhancement.main, capsys, "--ckpt", ckpt, *line.split())


def test_a_recording_becomes_the_file_that_is_named_with_its_record(type_command, files, enhance):
    flags = "--noise_ref fan.wav --sampler bridge_sde --N 2"
    printed = type_command(f"noisy.wav {flags} -o results/out.wav")
    assert "enhanced: results/out.wav" in printed
    assert sorted(os.listdir(files / "results")) == ["out.wav", "out.wav.json"]
    record = json.loads((files / "results" / "out.wav.json").read_text())
    assert (record["reference"], record["N"], [*record["files"]]) == ("file", 2, ["noisy.wav"])
    os.renames(files / "noisy.wav", files / "folder" / "noisy.wav")
    enhance(files / "folder", *flags.split())
    assert (samples(files / "results" / "out.wav") == samples(files / "out" / "noisy.wav")).all()


def test_the_picture_of_several_samples_lies_beside_the_result(type_command, files):
    type_command("noisy.wav --noise_ref fan.wav --sampler bridge_sde --N 2 --num_samples 2 -o results/out.wav")
    found = sorted(os.listdir(files / "results"))
    assert found == ["out.wav", "out.wav.disagreement.png", "out.wav.json"]
    type_command("noisy.wav --noise_ref fan.wav -o results/out.wav")
    assert not (files / "results" / "out.wav.disagreement.png").exists()


def test_a_file_of_this_command_is_made_again_and_any_other_one_is_kept(type_command, files, capsys, ckpt):
    for scale in ("1", "0"):
        type_command(f"noisy.wav -o out.wav --guidance_scale {scale}")
        assert json.loads((files / "out.wav.json").read_text())["guidance_scale"] == float(scale)
    content = (files / "other.wav").read_bytes()
    sentence = refusal(enhancement.main, capsys, "noisy.wav", "--ckpt", ckpt, "-o", "other.wav")
    assert "was not made by this command" in sentence
    assert (files / "other.wav").read_bytes() == content


@pytest.mark.parametrize(("name", "subtype"), [("out.flac", "PCM_24"), ("out.ogg", "VORBIS")])
def test_the_suffix_of_the_result_chooses_its_format(type_command, files, name, subtype):
    soundfile.write(files / "noisy.wav", samples(files / "noisy.wav"), 22050, subtype="PCM_24")
    type_command(f"noisy.wav -o {name}")
    header = audio.info(files / name)
    assert (header.subtype, header.sample_rate, header.num_frames) == (
        subtype, 22050, audio.info(files / "noisy.wav").num_frames
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
def test_a_lossy_recording_loses_nothing_more_on_the_way_into_another_format(type_command, files, suffix):
    audio.write(files / f"lossy{suffix}", samples(files / "noisy.wav"), RATE)
    soundfile.write(files / "decoded.wav", audio.read(files / f"lossy{suffix}", None), RATE, subtype="FLOAT")
    for name in (f"lossy{suffix}", "decoded.wav"):
        type_command(f"{name} --noise_ref fan.wav -o {name}.out.wav")
    found, expected = (samples(files / f"{name}.out.wav") for name in (f"lossy{suffix}", "decoded.wav"))
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)


def test_an_mp3_that_holds_less_than_its_header_says_keeps_its_upper_band(type_command, files):
    audio.write(files / "long.mp3", np.tile(samples(files / "noisy.wav"), 40), 44100)
    content = (files / "long.mp3").read_bytes()
    (files / "long.mp3").write_bytes(content[:-600])
    for flags in ("", " --chunk_s 2.5 --overlap_s 0.5"):
        type_command(f"long.mp3 --noise_ref fan.wav --keep_highband -o out.wav{flags}")
        assert audio.info(files / "out.wav").num_frames == audio.info(files / "long.mp3").num_frames


@pytest.mark.parametrize(("name", "warnings"), [("out.wav", 1), ("out.flac", 2)])
def test_a_result_beyond_full_scale_is_said_to_be_attenuated_where_it_is(type_command, files, name, warnings):
    soundfile.write(files / "noisy.wav", 40 * samples(files / "noisy.wav"), RATE, subtype="FLOAT")
    printed = type_command(f"noisy.wav -o {name}")
    assert (printed.count("beyond ±1"), "attenuated" in printed) == (warnings, warnings == 2)
    assert (np.abs(samples(files / name)).max() <= 1) == (warnings == 2)


def test_several_recordings_and_those_without_a_named_result_go_into_a_folder(type_command, files):
    type_command("noisy.wav other.wav -o results")
    assert {"noisy.wav", "other.wav", "run.json"} <= set(os.listdir(files / "results"))
    type_command("noisy.wav")
    assert (files / "enhanced" / "run" / "noisy.wav").is_file()


def test_the_model_that_comes_along_needs_no_training(files, capsys):
    """With its name, and without one where nothing was trained."""
    call(enhancement.main, capsys, "noisy.wav", "--ckpt", "small", "-o", "named.wav")
    assert "it comes along" in call(enhancement.main, capsys, "noisy.wav", "-o", "out.wav")
    assert (samples(files / "named.wav") == samples(files / "out.wav")).all()


def test_a_folder_without_flag_is_that_of_test_dir_and_the_next_command_scores_it(type_command, files):
    for name in ("noisy", "clean"):
        save(files / "set" / name / "a.wav", 0.4, RATE)
    printed = type_command("set -o results")
    assert (
        "next: python scripts/evaluate.py --clean_dir set/clean --noisy_dir set/noisy --enhanced_dir results" in printed
    )


REFUSALS = """
noisy.wav other.wav -o out.wav          -o out.wav
x -o out.wav                            -o out.wav
noisy.wav -o noisy.wav                  NOISY
noisy.wav --noise_ref fan.wav -o fan.wav        --noise_ref
noisy.wav -o ./x/../noisy.wav           NOISY
noisy.wav -o .                          noisy.wav: would fall among the input files
noisy.wav -o out.xyz                    .xyz
noisy.wav -o out.m4a                    out.m4a
noisy.wav -o out.wav --shard 1/2        --shard
noisy.wav x/noisy.wav -o results        x/noisy.wav: has the name of noisy.wav
noisy.wav x -o results                  x: is a folder
missing.wav -o out.wav                  missing.wav: no such file
fan.m4a -o out.wav                      fan.m4a
noisy.wav --test_dir x                  --test_dir
noisy.wav -p out.wav                    -p
noisy.wav -o                            --enhanced_dir
noisy.wav --noise_ref null -o out.wav   --noise_ref null
noisy.wav --reference disjoint -o out.wav       --test_dir
noisy.wav --noise_ref missing.wav -o out.wav    missing.wav
noisy.wav --noise_ref noisy.wav -o out.wav      the noisy file itself
x --noise_ref_dir x -o results          --noise_ref_dir x
x/noisy.wav -o noted.wav                noted.wav
x/noisy.wav -o described.wav            described.wav.json
odd.wav -o out.opus                     11025 Hz
"""


@pytest.mark.parametrize(("line", "culprit"), [re.split(r"  +", line) for line in REFUSALS.strip().splitlines()])
def test_what_cannot_be_met_is_refused_before_anything_is_written(files, capsys, ckpt, line, culprit):
    (files / "fan.m4a").write_bytes(b"x")
    save(files / "odd.wav", 0.4, 11025)
    save(files / "noted.wav", 0.4, RATE)
    for name in ("noted", "described"):
        (files / f"{name}.wav.json").write_text('{"talker": 3}')
    before = sorted(files.rglob("*"))
    assert culprit in refusal(enhancement.main, capsys, "--ckpt", ckpt, *line.split())
    assert sorted(files.rglob("*")) == before
