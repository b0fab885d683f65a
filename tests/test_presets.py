"""Presets: what of their settings holds for which data, process and folder."""

import shutil

import pytest
from commands import TINY, call
from small_corpora import save

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.settings.config import CONFIGS

RATE = 16000


def test_a_preset_asks_for_no_more_talkers_than_there_are(tmp_path, capsys):
    for name in ("speech/train/p1_1", "speech/valid/p2_1", "noise/train/a", "noise/valid/b"):
        save(tmp_path / f"{name}.wav", rate=RATE, seconds=1.0)
    folders = ["--speech_dir", str(tmp_path / "speech"), "--noise_dir", str(tmp_path / "noise"), "--device", "cpu"]
    values = train.read_settings(folders)
    assert (values["babble_share"], values["talker_share"]) == (0, 0)
    assert values["synthetic_share"] > 0
    assert "talkers" in capsys.readouterr().out
    assert train.read_settings([*folders, "--talker_share", "0.2"])["talker_share"] == 0.2
    words = [*folders, "--config", str(CONFIGS / "cpu.yaml"), *TINY, "--encoder", "none", "--num_eval_files", "0"]
    words += ["--run_dir", str(tmp_path / "run")]
    call(train.main, capsys, *words)
    assert train.read_settings([*words, "--max_steps", "2"])["talker_share"] == 0, "nor where the run goes on"
    embedded = train.read_settings(["--device", "cpu"])
    assert embedded["babble_share"] > 0
    assert embedded["talker_share"] > 0


@pytest.mark.parametrize("words", [(), ("--config", str(CONFIGS / "cpu.yaml")), ("--config", "copy/cpu.yaml")])
def test_how_a_preset_mixes_does_not_hold_for_pairs(words, tmp_path, monkeypatch):
    """Nor does that of the clone where the package is installed elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy").mkdir()
    shutil.copy(CONFIGS / "cpu.yaml", tmp_path / "copy")
    values = train.read_settings(["--base_dir", "pairs", "--device", "cpu", *words])
    assert [values[name] for name in ("synthetic_share", "babble_share", "talker_share")] == [0, 0, 0]
    asked = train.read_settings(["--base_dir", "pairs", "--device", "cpu", *words, "--babble_share", "0.5"])
    assert asked["babble_share"] == 0.5, "which check_data refuses"


@pytest.mark.parametrize("words", ["", f"--config {CONFIGS / 'cpu.yaml'}"])
def test_the_steps_of_a_preset_are_those_of_its_process(words):
    def steps(*more: str) -> int:
        return train.read_settings(["--device", "cpu", *words.split(), *more])["N"]

    assert (steps(), steps("--sde", "sbve"), steps("--sde", "ouve"), steps("--sde", "ouve", "--N", "7")) == (
        1,
        1,
        30,
        7,
    )


@pytest.mark.parametrize(("chosen", "flag"), [("encoder: none", "--infonce_weight"), ("nolog: true", "--logger")])
def test_a_flag_without_meaning_beside_what_a_file_chose_is_refused(chosen, flag, tmp_path):
    (tmp_path / "own.yaml").write_text(f"{chosen}\n")
    value = {"--infonce_weight": "1", "--logger": "tensorboard"}[flag]
    with pytest.raises(UserError, match=flag.removeprefix("--")):
        train.read_settings(["--device", "cpu", "--config", str(tmp_path / "own.yaml"), flag, value])
