"""Files in, enhanced files out: formats are kept, work is never done twice, everything is said."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile
from commands import RATE, altered, call, refusal, saved_run
from small_corpora import samples, save

from sgmse.commands import enhance as enhancement
from sgmse.common.errors import UserError, run
from sgmse.common.lock import locked_folder
from sgmse.enhancement.engine import Engine
from sgmse.evaluation.results import Results

pytest_plugins = ("enhancing",)
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix == ".wav"}


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("stereo48.wav", 48000, 2, "PCM_24"),
        ("float.wav", 22050, 3, "FLOAT"),
        ("telephone.wav", 8000, 1, "ULAW"),
        ("nested/deep/a.flac", 44100, 1, "PCM_16"),
        ("b.ogg", 44100, 2, "VORBIS"),
        ("c.mp3", 44100, 1, "MPEG_LAYER_III"),
    ],
)
def test_name_rate_channels_length_and_format_are_kept(enhance, tmp_path, name, rate, channels, subtype):
    path = tmp_path / "noisy" / name
    path.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).standard_normal((rate * 3 // 10 + 1, channels)) * 0.05
    soundfile.write(path, noise, rate, subtype=subtype)
    enhance(tmp_path / "noisy")
    before, after = soundfile.info(path), soundfile.info(tmp_path / "out" / name)
    assert (after.samplerate, after.channels, after.subtype) == (rate, channels, subtype)
    assert after.frames == before.frames
    result = samples(tmp_path / "out" / name)
    assert np.isfinite(result).all()
    assert np.abs(result).max() > 0


def test_a_rerun_does_nothing_and_an_interrupted_one_goes_on(enhance, testset, tmp_path):
    enhance(testset)
    first = times(tmp_path / "out")
    said = enhance(testset)
    assert "3 files are done already" in said
    assert times(tmp_path / "out") == first
    (tmp_path / "out" / "1.wav").unlink()
    assert "2 files are done already" in enhance(testset)
    again = times(tmp_path / "out")
    assert {name for name in first if again[name] != first[name]} == {"1.wav"}


def stop_after(monkeypatch, count: int) -> None:
    """Let the engine enhance so many groups and then be interrupted."""
    work, done = Engine.enhance_group, []

    def stopped(self, group, setting):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(group)
        return work(self, group, setting)

    monkeypatch.setattr(Engine, "enhance_group", stopped)


def test_stopping_in_the_middle_loses_only_the_file_at_work(enhance, testset, tmp_path, monkeypatch, capsys, ckpt):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        flags = [f"--ckpt={ckpt}", f"--test_dir={testset}", f"--enhanced_dir={tmp_path / 'out'}"]
        patch.setattr(sys, "argv", ["x", *flags])
        with pytest.raises(SystemExit) as stop:
            run(enhancement.main)
    assert stop.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    assert set(times(tmp_path / "out")) == set(run_json(tmp_path / "out")["files"]) == {"0.wav"}
    assert "1 files are done already" in enhance(testset)
    assert set(times(tmp_path / "out")) == {"0.wav", "1.wav", "2.wav"}


@pytest.mark.parametrize("change", ["settings", "references"])
def test_a_stop_after_a_change_leaves_no_file_of_before_on_record(enhance, testset, tmp_path, monkeypatch, change):
    enhance(testset)
    for path in (testset / "ref").iterdir():
        save(path, 0.6 if change == "references" else 0.5, RATE)
    stop_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        enhance(testset, "--N", 2 if change == "settings" else 1)
    assert run_json(tmp_path / "out")["files"] == {}


def test_a_folder_with_the_table_of_another_command_is_left_alone(enhance, testset, tmp_path):
    Results(tmp_path / "out", {"test_set": "x"}).add([{"checkpoint": "a", "setting": "s", "file": "x.wav"}])
    with pytest.raises(UserError, match="another command"):
        enhance(testset, out="out")


def test_what_is_done_keeps_the_batch_size_it_was_made_with(enhance, testset, tmp_path):
    enhance(testset, "--batch_size", 1)
    record = run_json(tmp_path / "out")
    enhance(testset, "--batch_size", 4)
    assert run_json(tmp_path / "out") == record


def test_a_first_run_stopped_before_its_first_entry_can_be_repeated(enhance, testset, tmp_path, monkeypatch):
    """The result is written before its entry: without one it is done again, not refused."""
    with monkeypatch.context() as patch:
        patch.setattr("sgmse.evaluation.results.Results.add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enhance(testset)
    assert (tmp_path / "out" / "0.wav").exists()
    enhance(testset)
    assert len(times(tmp_path / "out")) == 3


def test_an_output_that_was_cut_and_an_input_of_equal_size_and_time_are_done_again(enhance, testset, tmp_path):
    enhance(testset)
    whole = (tmp_path / "out" / "0.wav").read_bytes()
    (tmp_path / "out" / "0.wav").write_bytes(whole[:100])
    noisy = testset / "noisy" / "1.wav"
    stat, other = noisy.stat(), bytearray(noisy.read_bytes())
    other[-2] ^= 1
    noisy.write_bytes(other)
    os.utime(noisy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "1 files are done already" in enhance(testset)
    assert (tmp_path / "out" / "0.wav").read_bytes() == whole


def test_an_input_that_is_replaced_while_it_is_enhanced_is_done_again(enhance, testset, tmp_path, monkeypatch):
    work = Engine.enhance_group

    def replaced(self, group, setting):
        save(tmp_path / "new.wav", samples=np.full(4800, 0.1))
        (tmp_path / "new.wav").replace(testset / "noisy" / "0.wav")  # others may be reading the old one
        return work(self, group, setting)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "enhance_group", replaced)
        enhance(testset)
    assert "2 files are done already" in enhance(testset)


def test_a_folder_that_another_process_fills_is_refused(enhance, testset, tmp_path, ckpt, capsys):
    flags = ("--ckpt", ckpt, "--test_dir", testset, "--enhanced_dir", tmp_path / "out")
    with locked_folder(tmp_path / "out", "filled"):
        assert "is already being filled by process" in refusal(enhancement.main, capsys, *flags)


@pytest.mark.parametrize("change", [("--guidance_scale", 2), ("--seed", 1), ("--N", 2), ("--sampler", "bridge_sde")])
def test_another_setting_does_all_files_again(enhance, testset, tmp_path, change):
    enhance(testset)
    first = times(tmp_path / "out")
    said = enhance(testset, *change)
    assert f"all files are done again: {change[0].removeprefix('--')} changed" in said
    assert all(time != first[name] for name, time in times(tmp_path / "out").items())


def test_a_changed_reference_does_its_file_again(enhance, testset, tmp_path):
    enhance(testset)
    first = times(tmp_path / "out")
    save(testset / "ref" / "2.wav", 0.7, RATE)
    enhance(testset)
    again = times(tmp_path / "out")
    assert {name for name in first if again[name] != first[name]} == {"2.wav"}


def test_neither_a_moved_checkpoint_nor_another_batch_size_does_anything_again(enhance, testset, tmp_path, ckpt):
    enhance(testset)
    (tmp_path / "moved.ckpt").write_bytes(ckpt.read_bytes())
    assert "3 files are done already" in enhance(testset, "--batch_size", 2, ckpt=tmp_path / "moved.ckpt")


def test_run_json_keeps_every_setting_also_when_nothing_is_left_to_do(enhance, testset, tmp_path):
    enhance(testset, "--guidance_scale", 2)
    content = run_json(tmp_path / "out")
    assert (content["guidance_scale"], content["nfe"], content["passes"]) == (2, 1, 2)
    assert (content["reference"], content["sampler"], content["seed"]) == ("disjoint", "bridge_ode", 0)
    assert content["averaged_weights"]
    assert len(content["files"]) == 3
    enhance(testset, "--guidance_scale", 2)
    assert run_json(tmp_path / "out") == content


def test_averaged_weights_are_used_where_there_are_any(enhance, testset, tmp_path, ckpt):
    enhance(testset)
    said = enhance(testset, ckpt=altered(ckpt, tmp_path / "raw.ckpt", average=None), out="raw")
    assert "warning: the checkpoint holds no averaged weights; the raw ones are used" in said
    assert (samples(tmp_path / "out" / "0.wav") != samples(tmp_path / "raw" / "0.wav")).any()


def test_every_file_draws_noise_from_the_seed_and_its_name_whatever_the_others_are(enhance, testset, tmp_path):
    (testset / "noisy" / "1.wav").write_bytes((testset / "noisy" / "0.wav").read_bytes())
    (testset / "ref" / "1.wav").write_bytes((testset / "ref" / "0.wav").read_bytes())
    flags = ("--sampler", "bridge_sde", "--N", 2)
    for out, seed in (("out", 0), ("other", 1)):
        enhance(testset, *flags, "--seed", seed, out=out)
    (testset / "noisy" / "2.wav").unlink()
    enhance(testset, *flags, out="fewer")
    first, fewer, other = (samples(tmp_path / out / "0.wav") for out in ("out", "fewer", "other"))
    assert (first == fewer).all()
    assert (first != other).any()
    assert (first != samples(tmp_path / "out" / "1.wav")).any()


def test_the_newest_checkpoint_is_taken_best_pesq_first_and_said(tmp_path, testset, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved_run(tmp_path / "logs" / "20250101-000000_a")
    newest = saved_run(tmp_path / "logs" / "20250102-000000_b")
    newest.with_name("best_pesq.ckpt").write_bytes(newest.read_bytes())
    said = call(enhancement.main, capsys, "--test_dir", testset)
    assert "checkpoint: logs/20250102-000000_b/checkpoints/best_pesq.ckpt (the newest; choose with --ckpt)" in said
    assert set(times(tmp_path / "enhanced" / "20250102-000000_b")) == {"0.wav", "1.wav", "2.wav"}
