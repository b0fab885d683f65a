"""Several processes enhance one folder at a time, each its share: together they do what one does, bit for bit."""

import json
import multiprocessing
import sys
from pathlib import Path

import pytest
from commands import RATE, refusal
from small_corpora import save

from sgmse.commands import enhance as enhancement
from sgmse.common.lock import locked_folder

pytest_plugins = ("enhancing",)


def content(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.wav")}


def command(arguments: list[object]) -> None:
    sys.argv = ["enhancement_noise_cond.py", *map(str, arguments)]
    enhancement.main()


def test_three_shards_at_the_same_time_do_what_one_run_does(enhance, ckpt, tmp_path):
    for i in range(5):
        save(tmp_path / "set" / "noisy" / f"{i}.wav", 0.3, RATE)
        save(tmp_path / "set" / "ref" / f"{i}.wav", 0.5, RATE)
    enhance(tmp_path / "set", out="one")
    flags = ["--ckpt", ckpt, "--test_dir", tmp_path / "set", "--enhanced_dir", tmp_path / "out"]
    processes = multiprocessing.get_context("fork")
    running = [processes.Process(target=command, args=([*flags, "--shard", f"{k}/3"],)) for k in (1, 2, 3)]
    for process in running:
        process.start()
    for process in running:
        process.join(timeout=100)
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert results(tmp_path / "out") == results(tmp_path / "one")
    one, out = content(tmp_path / "one"), content(tmp_path / "out")
    assert len(out["files"]) == 5
    measured = {"rtf"}
    assert {n: v for n, v in out.items() if n not in measured} == {n: v for n, v in one.items() if n not in measured}
    assert "5 files are done already" in enhance(tmp_path / "set")
    tables = [path.name for path in (tmp_path / "out").glob("*.sqlite")]
    assert tables == ["results.sqlite"], "those of the shards are in it"


@pytest.mark.parametrize("count", [2, 5])
def test_shards_lose_no_file_and_double_none_also_where_there_are_more_than_files(enhance, testset, tmp_path, count):
    done = []
    for k in range(1, count + 1):
        assert f"shard {k}/{count}: " in enhance(testset, "--shard", f"{k}/{count}", out=f"{k}")
        done += content(tmp_path / f"{k}")["files"]
    assert sorted(done) == ["0.wav", "1.wav", "2.wav"]


def test_a_stopped_shard_goes_on_and_another_division_keeps_what_is_done(enhance, testset, tmp_path):
    assert "shard 1/2: 2 of 3 files" in enhance(testset, "--shard", "1/2")
    assert "2 files are done already" in enhance(testset, "--shard", "1/2")
    assert "1 files are done already" in enhance(testset, "--shard", "1/3")
    assert sorted(content(tmp_path / "out")["files"]) == ["0.wav", "2.wav"]
    assert "2 files are done already" in enhance(testset)
    assert sorted(content(tmp_path / "out")["files"]) == ["0.wav", "1.wav", "2.wav"]


def test_other_settings_start_all_shards_anew(enhance, testset, tmp_path):
    for k in (1, 2):
        enhance(testset, "--shard", f"{k}/2")
    assert "seed changed" in enhance(testset, "--shard", "1/2", "--seed", "1")
    assert sorted(content(tmp_path / "out")["files"]) == ["0.wav", "2.wav"]
    said = enhance(testset, "--shard", "2/2", "--seed", "1")
    assert "done already" not in said
    assert sorted(content(tmp_path / "out")["files"]) == ["0.wav", "1.wav", "2.wav"]
    assert content(tmp_path / "out")["seed"] == 1


def test_shards_share_a_folder_with_each_other_and_with_nobody_else(
    enhance, testset, tmp_path, ckpt, capsys, monkeypatch
):
    enhance(testset, "--shard", "1/2")
    monkeypatch.setattr("sgmse.enhancement.folder._PATIENCE_S", 0.0)
    flags = ("--ckpt", ckpt, "--test_dir", testset, "--enhanced_dir", tmp_path / "out")
    with locked_folder(tmp_path / "out", "filled", shared=True):
        enhance(testset, "--shard", "2/2")
        assert "is already being filled" in refusal(enhancement.main, capsys, *flags)
        other = (*flags, "--shard", "2/2", "--seed", 1)
        assert "is already being filled with other settings" in refusal(enhancement.main, capsys, *other)
    assert "3 files are done already" in enhance(testset)
