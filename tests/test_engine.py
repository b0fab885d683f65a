"""The engine: batches change nothing, noise is a function of seed and path, results are kept row by row."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from short_set import short_set
from tiny import tiny

from sgmse.common.errors import UserError
from sgmse.data import audio, listing
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.noise import seed_of
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.engine import Engine, enhance_and_score, score_noisy
from sgmse.enhancement.lookup import check_inputs, open_all_protocols, open_test_set
from sgmse.enhancement.recordings import write_in_parts
from sgmse.enhancement.request import Request
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import Signal, encode_batch, enhance_batch, group_by_frames, noise_key
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation.results import NOISY, Results, read_rows
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

MODEL = tiny().eval()
STEPS = SamplerSettings(sampler="bridge_sde", N=2)
RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return short_set(tmp_path_factory.mktemp("sets") / "set", 4, 1.0)


def score(clean, estimates, noisy):
    names = (*metrics.MAIN, "right_talker")
    signals = zip(clean, estimates, noisy, strict=True)
    return [metrics.score(c, e, metrics.SAMPLE_RATE, n, names) for c, e, n in signals]


def test_files_of_equally_many_frames_share_a_call_and_no_other_files_do():
    multiple = MODEL.backbone.frame_multiple * MODEL.transform.hop_length
    lengths = [10 * multiple, 3 * multiple, 10 * multiple + 5, 10 * multiple]
    assert group_by_frames(MODEL, lengths, None, 8) == [[1], [0, 2, 3]]
    assert group_by_frames(MODEL, lengths, None, 2) == [[1], [0, 2], [3]]
    assert group_by_frames(MODEL, lengths, [1, 5, 1, 1], 3) == [[1], [0, 2, 3]], "many rows: a group of its own"


@pytest.mark.parametrize(
    ("protocol", "guidance", "nfe", "passes"),
    [
        ("disjoint", {}, 2, 2),
        ("disjoint", {"guidance_scale": 3.0}, 2, 4),
        ("disjoint", {"guidance_scale": 3.0, "guidance": "icg"}, 2, 4),
        ("estimated", {"guidance_scale": 3.0, "guidance": "icg"}, 2, 4),
        ("self", {}, 4, 4),
    ],
)
def test_a_file_in_a_batch_is_enhanced_as_alone(folder, protocol, guidance, nfe, passes):
    test_set = open_test_set(folder, protocol)
    setting = Setting(STEPS, GuidanceSettings(**guidance), protocol)
    together, alone = (
        {e.item.name: e for e in Engine(MODEL, batch_size=size).enhance(test_set, setting)} for size in (4, 1)
    )
    assert together.keys() == {item.name for item in test_set.items}
    for name, enhanced in together.items():
        np.testing.assert_allclose(enhanced.waveform, alone[name].waveform, atol=1e-4)
        assert (enhanced.nfe, enhanced.passes) == (nfe, passes)


@pytest.mark.parametrize("sampler", [{"N": 2, "corrector": "langevin"}, {"sampler": "rk45"}])
def test_samplers_that_choose_their_steps_choose_them_for_each_file(folder, sampler):
    model = tiny(sde="ouve", t_eps=0.3).eval()
    test_set, setting = open_test_set(folder, "disjoint"), Setting(SamplerSettings(**sampler))
    together, alone = (
        {e.item.name: e for e in Engine(model, batch_size=size).enhance(test_set, setting)} for size in (4, 1)
    )
    for name, enhanced in together.items():
        np.testing.assert_allclose(enhanced.waveform, alone[name].waveform, atol=1e-4)
        assert enhanced.nfe == alone[name].nfe


def test_waveforms_in_memory_are_enhanced_as_files_are(folder):
    test_set = open_test_set(folder)
    signals = [
        Signal(
            torch.from_numpy(audio.read(item.noisy, RATE)),
            torch.from_numpy(test_set.reference(item, "disjoint", RATE).waveform),
            noise_key(0, item.name),
        )
        for item in test_set.items
    ]
    files = {e.item.name: e.waveform[0] for e in Engine(MODEL).enhance(test_set, Setting(STEPS))}
    for item, signal in zip(test_set.items, signals, strict=True):
        (found,) = enhance_batch(MODEL, encode_batch(MODEL, [signal]), Setting(STEPS))
        np.testing.assert_allclose(found.waveform.numpy(), files[item.name], atol=1e-5)


@pytest.mark.parametrize("protocol", ["disjoint", "estimated", "self"])
def test_a_long_file_goes_through_the_engine_in_the_parts_of_the_command(folder, tmp_path, monkeypatch, protocol):
    for name in ("noisy", "ref"):
        source = listing.find(folder / name)[0]
        audio.write(tmp_path / name / "long.wav", np.tile(audio.read(source, RATE), 6)[: 5 * RATE], RATE)
        audio.write(tmp_path / name / "short.wav", audio.read(source, RATE), RATE)
    chunks = Chunks.from_seconds(2.5, 0.5, RATE, MODEL.settings["hop_length"], MODEL.backbone.frame_multiple)
    windows, work = [], Enhancer.enhance_batch
    watched = lambda self, noisy, *rest: [windows.append(noisy.shape[-1]), work(self, noisy, *rest)][1]  # noqa: E731
    monkeypatch.setattr(Enhancer, "enhance_batch", watched)
    test_set, setting = open_test_set(tmp_path, protocol), Setting(STEPS, protocol=protocol)
    engine = Engine(MODEL, 8, usual=chunks)
    found = {enhanced.item.name: enhanced for enhanced in engine.enhance(test_set, setting)}
    assert max(windows) <= chunks.size + chunks.hop
    assert found["long.wav"].waveform.shape == (1, 5 * RATE)
    config = EnhanceConfig(test_dir=str(tmp_path))
    request = Request(config, tmp_path, engine, test_set, setting, test_set.items, None, tmp_path / "out")
    row = write_in_parts(request, next(item for item in test_set.items if item.name == "long.wav"))
    assert (row["nfe"], row["passes"]) == (found["long.wav"].nfe, found["long.wav"].passes)
    np.testing.assert_allclose(found["long.wav"].waveform[0], audio.read(tmp_path / "out/long.wav", RATE), atol=1e-5)


def test_of_a_long_reference_the_beginning_is_used(folder, monkeypatch, capsys):
    monkeypatch.setattr("sgmse.enhancement.test_set.HEAD_S", 0.25)
    monkeypatch.setattr("sgmse.enhancement.lookup.HEAD_S", 0.25)
    test_set = open_test_set(folder, "disjoint")
    item = test_set.items[0]
    head = audio.read(test_set.path(item, "disjoint"), RATE, duration_s=0.25)
    assert np.array_equal(test_set.reference(item, "disjoint", RATE).waveform, head)
    check_inputs(test_set, test_set.items, "disjoint", 510, RATE)
    assert "4 references are longer than 0.25 s: their beginning is used" in capsys.readouterr().out


def test_a_set_whose_pairs_are_of_unequal_length_is_refused_before_the_work(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    path = listing.find(tmp_path / "set" / "clean")[1]
    audio.write(path, audio.read(path, RATE)[:-1], RATE)
    test_set = open_test_set(tmp_path / "set", "disjoint", is_scored=True)
    with pytest.raises(UserError, match=f"{path}: holds .* a pair must agree"):
        check_inputs(test_set, test_set.items, "disjoint", 510, RATE)


def test_equal_names_in_different_folders_draw_noise_of_their_own(folder, tmp_path):
    source = listing.find(folder / "noisy")[0]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "same.wav")
    first, second = Engine(MODEL).enhance(open_test_set(tmp_path, "none"), Setting(STEPS, protocol="none"))
    assert (first.item.name, second.item.name) == ("a/same.wav", "b/same.wav")
    assert not np.array_equal(first.waveform, second.waveform)


def test_results_hold_a_row_per_file_and_are_not_made_again(folder, tmp_path):
    test_set, calls = open_test_set(folder, is_scored=True), []

    def counted(clean, estimates, noisy):
        calls.append(len(clean))
        return score(clean, estimates, noisy)

    settings = [Setting(STEPS, GuidanceSettings(guidance_scale=w)) for w in (1.0, 3.0)]
    for wanted in (settings[:1], settings):
        results = Results(tmp_path, {"test_set": test_set.fingerprint()})
        score_noisy(test_set, results, counted)
        enhance_and_score(Engine(MODEL), test_set, wanted, results, counted)
    assert [count for count in calls if count] == [4, 4, 4], "noisy, w = 1, w = 3"
    frame = results.frame()
    assert frame.groupby("setting").size().to_dict() == {NOISY: 4, settings[0].key: 4, settings[1].key: 4}
    assert set(frame["right_talker"]) <= {0, 1}, "what was asked for beside the main metrics is kept"
    assert Results(tmp_path, {"test_set": "other"}).changed == ["test_set"]
    assert Results(tmp_path, {"test_set": "other"}).rows() == []


def test_rows_appear_together_or_not_at_all(tmp_path):
    results = Results(tmp_path, {})
    row = {"checkpoint": "c", "setting": "s", "file": "a.wav", "pesq": 1.5}
    with pytest.raises(TypeError):
        results.add([row, {**row, "file": "b.wav", "pesq": object()}])
    assert results.rows() == []
    results.add([row, {**row, "file": "b.wav"}])
    results.add([{**row, "pesq": 2.0}])
    assert [(r["file"], r["pesq"]) for r in results.rows()] == [("b.wav", 1.5), ("a.wav", 2.0)]


def test_rows_are_removed_in_linear_time(tmp_path):
    results, row = Results(tmp_path, {}), {"checkpoint": "c", "setting": "s"}
    results.add([{**row, "file": f"{i}.wav"} for i in range(20000)])
    start = time.monotonic()
    results.remove(f"{i}.wav" for i in range(10000))
    assert time.monotonic() - start < 5
    assert results.files("c", "s") == {f"{i}.wav" for i in range(10000, 20000)}


def test_an_unrelated_file_has_another_reference_and_all_are_looked_at_once(tmp_path, monkeypatch):
    items = [Item(f"{i}.wav", tmp_path / f"{i}.wav") for i in range(300)]
    references = {item.name: tmp_path / f"reference{i // 3}.wav" for i, item in enumerate(items)}
    test_set, calls = TestSet(tmp_path, items, "folder", None, {"folder": references}), []
    work = TestSet.path
    monkeypatch.setattr(TestSet, "path", lambda self, *what: [calls.append(what), work(self, *what)][1])
    for item in items:
        other = test_set.other_item(item, "folder", seed=1)
        alike = [one for one in items if references[one.name] != references[item.name]]
        assert other is alike[seed_of(f"1 {item.name} unrelated") % len(alike)]
    assert len(calls) <= 2 * len(items)


def test_shards_fill_tables_of_their_own_which_are_read_as_one(tmp_path):
    row = {"checkpoint": "c", "setting": "s"}
    for shard in ("1-of-2", "2-of-2"):
        Results(tmp_path, {"seed": 0}, shard).add([{**row, "file": f"{shard}.wav"}])
    assert Results(tmp_path, {"seed": 0}, "1-of-2").files("c", "s") == {"1-of-2.wav", "2-of-2.wav"}
    assert Results(tmp_path, {"seed": 0}).files("c", "s") == {"1-of-2.wav", "2-of-2.wav"}
    assert [path.name for path in tmp_path.glob("*.sqlite")] == ["results.sqlite"]


def test_a_shard_takes_nothing_from_shards_of_other_settings(tmp_path):
    Results(tmp_path, {"N": 40}, "1-of-2").add([{"checkpoint": "a", "setting": "s", "file": "x.wav"}])
    for shard in ("1-of-2", "2-of-2"):
        with pytest.raises(UserError, match="other settings"):
            Results(tmp_path, {"N": 12}, shard)
    assert [row["file"] for row in read_rows(tmp_path)] == ["x.wav"]


def test_tables_with_other_names_and_tables_whose_making_was_cut_off_are_left_out(tmp_path):
    (tmp_path / "results.2-of-2.sqlite").touch()  # killed between opening and filling
    (tmp_path / "results_backup.sqlite").write_bytes(b"mine")
    results = Results(tmp_path, {"N": 1}, "1-of-2")
    results.add([{"checkpoint": "a", "setting": "s", "file": name} for name in ("x.wav", "y.wav")])
    results.remove(["x.wav"])
    assert [row["file"] for row in results.rows()] == ["y.wav"]
    assert (tmp_path / "results_backup.sqlite").read_bytes() == b"mine"


def test_a_damaged_table_is_named(tmp_path):
    Path(tmp_path, "results.sqlite").write_bytes(b"no table" * 200)
    with pytest.raises(UserError, match=r"results\.sqlite: is damaged"):
        Results(tmp_path, {})


def test_references_follow_the_protocol(folder):
    test_set = open_all_protocols(folder)
    item = test_set.items[0]
    own = test_set.reference(item, "disjoint", RATE).waveform
    np.testing.assert_allclose(test_set.reference(item, "louder", RATE).waveform, own * 10**0.3, rtol=1e-5)
    assert test_set.reference(item, "none", RATE).waveform is None
    shuffled = test_set.reference(item, "shuffled", RATE, seed=1).waveform
    assert shuffled.std() == pytest.approx(own.std(), rel=0.1)
    assert not np.array_equal(shuffled, own)
    assert "mismatched" in test_set.refused, "there is no manifest"
    assert "mismatched" not in test_set.runnable
    assert {"oracle", "estimated", "softer"} <= set(test_set.runnable)
