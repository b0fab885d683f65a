"""Test sets of experiments: from which recordings they are made, none of which was trained on or chosen on."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import published_layouts
import pytest
import yaml
from small_corpora import save
from tiny_experiments import ready_sets

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora, listing
from sgmse.data.corpora import voicebank
from sgmse.data.corpora.voicebank import write_validation_set
from sgmse.data.testsets import build
from sgmse.experiments import sets
from sgmse.experiments.catalogue import load_experiments
from sgmse.experiments.plan import Data

EMBEDDED = Data()


@pytest.fixture
def folders(tmp_path):
    """Speech and noise with train/ and valid/, and other noise, as a user has them."""
    for split, count in (("train", 2), ("valid", 4)):
        for kind in ("speech", "noise"):
            for number in range(count):
                save(tmp_path / kind / split / f"{kind}{split}{number}.wav", 1.5)
    for name in ("dog0", "dog1", "rain0"):
        save(tmp_path / "other" / f"{name}.wav", 2.0)
    return Data(
        speech_dir=[str(tmp_path / "speech")],
        noise_dir=[str(tmp_path / "noise")],
        ood_noise_dir=str(tmp_path / "other"),
    )


def config(folder: Path, data: Data) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"speech_dir": [*data.speech_dir], "noise_dir": [*data.noise_dir]}))
    return path


def recordings(name: str, data: Data) -> set[Path]:
    made = sets.sources(name, data)
    return {info.path for info in made.speech} | {clip.path for clip in made.clips}


def test_without_folders_unheard_noise_is_that_of_the_kinds_training_lacks():
    assert {clip.kind for clip in sets.sources("ood", EMBEDDED).clips} == {"siren", "resonances"}
    assert len({clip.kind for clip in sets.sources("nonstationary", EMBEDDED).clips}) == 8
    assert sets.ready("id", EMBEDDED) == corpora.embedded_dir() / "test"
    assert sets.left_out(("id", "ood", "nonstationary", "valid"), EMBEDDED) == {}


def test_other_talkers_come_from_the_speech_that_is_tested_on_if_it_tells_who_speaks(folders):
    made = sets.sources("talkers", folders)
    assert {clip.path for clip in made.clips} == {info.path for info in made.speech}
    assert made.noise_dir == made.speech_dir
    assert "who speaks" in sets.left_out(("talkers",), EMBEDDED)["talkers"]


def test_a_set_of_swapped_roles_is_chosen_on_swapped_roles_of_other_talkers(folders, tmp_path):
    for split in ("valid", "test"):
        for who, number in product("ab", range(3)):
            save(Path(folders.speech_dir[0]) / split / f"{split}{who}1_{number}.wav", 3.0)
    talkers = []
    for name in ("swap", load_experiments()["VOICE-01"].choice_set):
        sets.provide(name, folders, 4, tmp_path / name, [config(tmp_path, folders)], 1)
        rows = build.read_rows(tmp_path / name)
        assert {float(row["snr_db"]) for row in rows} <= {-2.5, 0.0, 2.5}
        talkers.append({row["kind"] for row in rows})
    assert talkers[0] == {"testa1", "testb1"}
    assert talkers[1] >= {"valida1", "validb1"}
    assert not talkers[0] & talkers[1]


def test_dense_items_are_stretches_of_the_same_speech(folders, tmp_path):
    save(Path(folders.speech_dir[0]) / "valid" / "speechvalid9.wav", 4.0)  # longer than 3 s; the last half are tests
    rows = {}
    for name in ("dense", "dense_long"):
        sets.provide(name, folders, 3, tmp_path / name, [config(tmp_path, folders)], 1)
        rows[name] = build.read_rows(tmp_path / name)
    for short, long in zip(*rows.values(), strict=True):
        assert (float(short["seconds"]), float(long["seconds"])) == (0.8, 3.0)
        assert short["noise"] == long["noise"]
        assert short["speech"] == long["speech"] == "speechvalid9"
    assert "shorter" in sets.left_out(("dense",), EMBEDDED)["dense"]


@pytest.mark.parametrize("name", ["id", "ood", "nonstationary", "talkers", "swap", "dense"])
def test_nothing_is_tested_on_that_was_trained_or_chosen_on(folders, name):
    chosen, tested = recordings("valid", folders), recordings(name, folders)
    assert not chosen & tested
    assert not any("train" in path.parent.name for path in chosen | tested)


def test_the_test_split_is_used_where_there_is_one(folders):
    noise = save(Path(folders.noise_dir[0]) / "test" / "far.wav", 2.0)
    assert noise in recordings("id", folders)
    assert {path.name for path in recordings("valid", folders) if "noise" in path.name} == {
        f"noisevalid{number}.wav" for number in range(4)
    }


def test_sets_are_built_once_and_the_same_again(folders, tmp_path):
    trained = [config(tmp_path, folders)]
    told = sets.provide("nonstationary", folders, 3, tmp_path / "set", trained, 1)
    assert told["items"] == 3
    assert {row["change"] for row in build.read_rows(tmp_path / "set")} == {"concat", "ramp", "events"}
    assert sets.provide("nonstationary", folders, 3, tmp_path / "set", trained, 1) == told


def test_without_unheard_noise_that_set_is_left_out_and_recordings_of_one_class_are_what_changes(folders):
    inside = replace(folders, ood_noise_dir=None)
    assert len({clip.kind for clip in sets.sources("nonstationary", inside).clips}) == 2
    missing = sets.left_out(("id", "ood", "nonstationary"), inside)
    assert missing.keys() == {"ood"}
    assert "--ood_noise_dir" in missing["ood"]


def test_recordings_that_were_trained_on_are_left_out_and_told(folders, tmp_path, capsys):
    heard, other = Path(folders.noise_dir[0]) / "train" / "noisetrain0.wav", Path(str(folders.ood_noise_dir))
    (other / "dog0.wav").write_bytes(heard.read_bytes())
    sets.provide("ood", folders, 6, tmp_path / "set", [config(tmp_path, folders)], 1)
    assert {row["noise"] for row in build.read_rows(tmp_path / "set")} == {"dog1.wav", "rain0.wav"}
    assert f"left out of ood: 1 of 3 noise files were trained on, first {other / 'dog0.wav'}" in capsys.readouterr().out
    for name in ("dog1", "rain0"):
        (other / f"{name}.wav").write_bytes(heard.read_bytes())
    with pytest.raises(UserError, match="test set ood: 3 of 3 noise files were trained on"):
        sets.provide("ood", folders, 6, tmp_path / "another", [config(tmp_path, folders)], 1)


def test_ready_made_sets_are_used_as_they_are(tmp_path, folders, capsys):
    data = Data(test_sets=str(ready_sets(tmp_path / "ready")))
    told = sets.provide("id", data, 2, tmp_path / "run" / "id", [config(tmp_path, folders)], 1)
    assert told == {"sha256": build.set_digest(tmp_path / "ready" / "id"), "items": 2}
    assert (tmp_path / "run" / "id").resolve() == tmp_path / "ready" / "id"
    assert "nothing tells whether they were trained on" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["manifest.csv", "noisy", "clean", "row"])
def test_a_ready_made_set_that_is_not_whole_is_refused_before_anything_is_trained(tmp_path, part):
    ready = ready_sets(tmp_path / "ready") / "id"
    table = ready / "manifest.csv"
    if part == "row":
        table.write_text(table.read_text().replace("001,", "100,"))
    else:
        (ready / part).rename(tmp_path / part)
    complaint = "has no row whose id is 001" if part == "row" else f"is no test set, {part} is missing"
    with pytest.raises(UserError, match=complaint):
        sets.left_out(("id",), Data(test_sets=str(ready.parent)))


def test_a_ready_made_set_of_a_recording_that_was_trained_on_is_refused(folders, tmp_path):
    sets.provide("ood", folders, 2, tmp_path / "ready" / "ood", [], 1)
    heard = Data(speech_dir=folders.speech_dir, noise_dir=[str(folders.ood_noise_dir)])
    data = Data(test_sets=str(tmp_path / "ready"))
    with pytest.raises(UserError, match="is made of a recording that was trained on"):
        sets.provide("ood", data, 2, tmp_path / "run" / "ood", [config(tmp_path, heard)], 1)


def test_voicebank_is_chosen_on_pairs_of_its_held_out_speakers(tmp_path, monkeypatch):
    monkeypatch.setattr(voicebank, "PAIRS", {"train": 8, "test": 6})
    monkeypatch.setattr(voicebank, "_sentence", lambda name: name)  # the small corpus has one for each noise
    voicebank.prepare(published_layouts.voicebank(tmp_path / "published"), tmp_path / "data" / "voicebank", 16000)
    out = tmp_path / "valid"
    write_validation_set(tmp_path / "data" / "voicebank", 3, out)
    rows = build.read_rows(out)
    assert [len(listing.find(out / kind)) for kind in ("clean", "noisy", "ref")] == [3, 3, 3]
    assert {voicebank.speaker(row["id"]) for row in rows} <= {"p226", "p287"}
    row = rows[0]
    pair = tmp_path / "data" / "voicebank" / "valid"
    clean, noisy = (audio.read(pair / kind / f"{row['ref_source']}.flac", None) for kind in ("clean", "noisy"))
    np.testing.assert_allclose(audio.read(out / "ref" / f"{row['id']}.flac", None), noisy - clean, atol=2**-15)
    for name in ("esc50", "ood"):
        with pytest.raises(UserError, match=r"esc50: no such folder"):
            sets.sources(name, Data(data_dir=str(tmp_path / "data")))
