"""The verdict on a reference: the protocols, and the command from checkpoint to table."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call, refusal, saved_run
from short_set import short_set
from tiny import enhanced

from scripts import reference_use
from scripts.reference_use import UseSettings
from sgmse.common.errors import UserError
from sgmse.common.lock import locked_folder
from sgmse.data import audio, corpora, listing
from sgmse.data.mixing import rms
from sgmse.data.references import leak
from sgmse.data.references.estimated import estimate_noise
from sgmse.diagnostics import use
from sgmse.diagnostics.use import COLUMNS, open_set
from sgmse.diffusion.noise import FrameNoise
from sgmse.enhancement.engine import Engine
from sgmse.enhancement.signals import noise_key
from sgmse.evaluation import metrics
from sgmse.evaluation.results import read_rows
from sgmse.model.enhancer import Enhancer

RATE = 16000


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    """Four files with the manifest of the embedded set: pink, brown, hum, … ; nobody shares the kind of another."""
    folder = short_set(tmp_path_factory.mktemp("sets") / "set", 4, 1.0)
    shutil.copy(corpora.embedded_dir() / "test" / "manifest.csv", folder)
    return folder


def trained(folder, seed=0, **settings):
    """A checkpoint whose run had this seed; weights differ by seed."""
    torch.manual_seed(seed)
    path = saved_run(folder, **settings)
    content = torch.load(path, weights_only=True)
    average = content["average"]["weights"]
    average[next(iter(average))] += 0.1 * seed
    torch.save(content, path)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 0", f"\nseed: {seed}"))
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two seeds of a conditioned model and of its baseline."""
    root = tmp_path_factory.mktemp("logs")
    return {
        f"{name}{seed}": trained(root / f"{name}{seed}", seed, encoder=encoder, cond_drop_prob=drop)
        for name, encoder, drop in (("cnn", "cnn", 0.1), ("none", "none", 0.0))
        for seed in (0, 1)
    }


@pytest.fixture
def examine(capsys, tmp_path):
    """Run the command on two files of a set; returns what it prints and the scores."""

    def run(ckpt, test_set, *more):
        flags = ("--out", tmp_path / "out", "--jobs", 1, "--device", "cpu", "--max_files", 2)
        text = call(reference_use.main, capsys, ckpt, test_set, *flags, *more)
        types = {"keep_default_na": False, "na_values": {"pesq": [""], "seed": [""]}}
        return text, pd.read_csv(tmp_path / "out" / "scores.csv", **types)

    return run


@pytest.fixture
def own_set(test_set, tmp_path):
    """A copy of the set that may be changed."""
    return shutil.copytree(test_set, tmp_path / "own")


def model_of(path):
    return Enhancer.from_checkpoint(path, "cpu")


SYSTEMS = ["matched", "same_class", "mismatched", "louder", "softer", "shuffled", "estimated", "null", "oracle"]


def test_every_protocol_is_what_it_says(test_set, logs):
    found = open_set(test_set, model_of(logs["cnn0"]), None)
    names = ["disjoint", "mismatched", "louder", "softer", "shuffled", "estimated", "none", "oracle"]
    assert found.runnable == names
    assert "no file has another item" in found.refused["same_class"]
    item = found.items[0]
    own = audio.read(test_set / "ref" / item.noisy.name, RATE)
    given = {protocol: found.reference(item, protocol, RATE).waveform for protocol in names}
    assert np.array_equal(given["disjoint"], own)
    assert np.allclose(given["louder"], own * 10**0.3)
    assert np.allclose(given["softer"], own / 10**0.3)
    assert given["none"] is None
    noisy = audio.read(item.noisy, RATE)
    blind = [estimate_noise(noisy, RATE, seed).reference for seed in (0, 1)]
    assert np.array_equal(*blind), "no seed matters where stretches without speech serve"
    assert np.array_equal(given["estimated"], blind[0])
    assert len(given["oracle"]) == min(len(own), RATE)
    assert rms(given["mismatched"]) == pytest.approx(rms(own), rel=1e-5)
    assert found.path(item, "mismatched").stem != item.noisy.stem
    for protocol, shared in (("disjoint", False), ("mismatched", False), ("oracle", True)):
        leaks = found.leaks(protocol, RATE, 0, 1)
        assert [leaks[one.name].shared for one in found.items] == [shared] * 4
    assert leaks[item.name] == leak.score(given["oracle"], found.noise(item, RATE), RATE)


def test_rows_of_another_set_or_batching_are_not_kept(test_set, own_set, logs):
    model, settings = model_of(logs["cnn0"]), UseSettings(logs["cnn0"], own_set)

    def facts(max_files=None, device="cpu", **changed):
        return reference_use.shared_facts(replace(settings, **changed), device, open_set(own_set, model, max_files))

    before = facts()
    assert facts() == before
    found = [facts(max_files=3), facts(device="cuda"), facts(batch_size=4), facts(test_set=test_set)]
    for kind in ("noisy", "clean", "ref"):
        path = listing.find(own_set / kind)[1]
        audio.write(path, 0.5 * audio.read(path, RATE), RATE)
        found.append(facts())
    rows = pd.read_csv(own_set / "manifest.csv", dtype=str)
    rows.assign(source="one recording").to_csv(own_set / "manifest.csv", index=False)
    found.append(facts())
    hashes = [str(one) for one in (before, *found)]
    assert len(set(hashes)) == len(hashes)


def test_rows_hold_the_scores_of_the_batch_enhanced_with_that_reference(test_set, logs, examine):
    _, frame = examine(logs["cnn0"], test_set, "--guidance_scale", 2)
    model = model_of(logs["cnn0"])
    found = open_set(test_set, model, 2)
    for system, protocol in (("matched", "disjoint"), ("softer", "softer"), ("null", "none"), ("mismatched",) * 2):
        for item in found.items:
            noisy = torch.from_numpy(audio.read(item.noisy, RATE))[None]
            reference, scale = found.reference(item, protocol, RATE).waveform, 0.0 if system == "null" else 2.0
            given = None if reference is None else torch.from_numpy(reference)[None]
            made = enhanced(model, noisy, given, FrameNoise([noise_key(0, item.name)]), scale).waveform[0].numpy()
            expected = metrics.score(audio.read(item.clean, RATE), made, RATE)
            row = frame[(frame["system"] == system) & (frame["file"] == item.name)].iloc[0]
            assert row["si_sdr"] == pytest.approx(expected["si_sdr"], abs=1e-2)
            assert row["estoi"] == pytest.approx(expected["estoi"], abs=1e-3)
            assert row["passes"] == row["nfe"] * (1 if system == "null" else 2)


def test_the_command_leaves_scores_and_table(test_set, logs, examine, tmp_path):
    text, frame = examine(logs["cnn0"], test_set)
    assert list(frame.columns) == COLUMNS
    systems = [system for system in SYSTEMS if system != "same_class"]  # no other item is of the same class
    assert list(frame["system"].unique()) == ["noisy", *systems]
    assert (frame.groupby("system")["file"].nunique() == 2).all()
    assert set(frame["kind"]) <= set(pd.read_csv(test_set / "manifest.csv")["kind"])
    assert (tmp_path / "out" / "table.md").read_text() in text
    assert text.index("| unprocessed") < text.index("| matched") < text.index("matched − mismatched")
    for part in (
        "same_class does not run: no file has another item",
        "no baseline runs: name one with --baseline",
        "share samples with their mixture: matched 0 of 2, mismatched 0 of 2, oracle 2 of 2",
        "## By class",
        "leak share: an overlapping reference gives",
    ):
        assert part in text
    assert (tmp_path / "out" / "use.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoints_without_a_run_are_said_to_be_of_unknown_seeds(test_set, logs, tmp_path, examine):
    copies = [shutil.copyfile(logs[name], tmp_path / f"{name}.ckpt") for name in ("cnn0", "cnn1")]
    text, _ = examine(copies[0], test_set, "--more_seeds", copies[1])
    assert text.count("of a seed that is not known") == 2


def test_a_rerun_does_what_is_not_done_yet(test_set, logs, examine, monkeypatch, tmp_path):
    done, encode = [], Engine.encode_groups

    def encode_groups(engine, found, setting):
        done.append((engine.model.checkpoint_sha256, setting.protocol))
        return encode(engine, found, setting)

    monkeypatch.setattr(Engine, "encode_groups", encode_groups)
    shas = {name: model_of(path).checkpoint_sha256 for name, path in logs.items()}
    examine(logs["cnn0"], test_set)
    count = len(done)
    text, _ = examine(logs["cnn0"], test_set, "--baseline", logs["none0"])
    assert done[count:] == [(shas["none0"], "none")], "the rows of the model were kept"
    assert "training: baseline 4 steps, this model 4 steps" in text
    flags = ("--baseline", logs["none0"], logs["none1"], "--more_seeds", logs["cnn1"])
    text, _ = examine(logs["cnn0"], test_set, *flags)
    assert {sha for sha, _ in done[count + 1 :]} == {shas["cnn1"], shas["none1"]}
    (line,) = [line for line in text.splitlines() if line.startswith("| matched − baseline")]
    assert [cell.strip() for cell in line.split("|")[-4:-1]] == ["2", "2", "2"], "files, sources, seeds"
    done.clear()
    examine(logs["cnn0"], test_set, "--seed", 1)
    assert len(done) == count, "another seed is another setting"
    _, again = examine(logs["cnn0"], test_set)
    assert len(done) == count, "both are kept"
    assert set(again["seed"].dropna()) == {0}, "checkpoints that are not asked for are left aside"
    kept = len(read_rows(tmp_path / "out"))
    assert "done again: batch_size changed" in examine(logs["cnn0"], test_set, "--batch_size", 1)[0]
    count = len(done)
    assert "done again" not in examine(logs["cnn0"], test_set)[0]
    assert (len(read_rows(tmp_path / "out")), len(done)) == (kept, count), "a mistake can be taken back"
    with locked_folder(tmp_path / "out", "filled"), pytest.raises(UserError, match="already being filled"):
        examine(logs["cnn0"], test_set)


def test_a_file_whose_matched_reference_leaks_counts_in_no_difference(own_set, logs, examine):
    first = listing.find(own_set / "noisy")[0]
    noise = audio.read(first, RATE) - audio.read(own_set / "clean" / first.name, RATE)
    audio.write(own_set / "ref" / first.name, noise[2000:12000], RATE)
    text, _ = examine(logs["cnn0"], own_set)
    assert f"1 files whose matched reference leaks count in no difference, first {first.name}" in text
    line = next(line for line in text.splitlines() if line.startswith("| matched − mismatched"))
    assert line.split("|")[-4].strip() == "1"


def test_what_a_set_lacks_is_said_and_the_rest_runs(own_set, logs, examine):
    (own_set / "manifest.csv").unlink()
    text, _ = examine(logs["cnn0"], own_set)
    assert "mismatched does not run" in text
    assert "without manifest.csv none is borrowed" in text
    assert "**undecided**: there are no mismatched references" in text
    assert "## By" not in text
    shutil.rmtree(own_set / "ref")
    text, frame = examine(logs["cnn0"], own_set)
    assert "matched does not run" in text
    assert list(frame["system"].unique()) == ["noisy", "estimated", "null", "oracle"]
    assert "oracle − null" in text


def test_files_without_a_match_are_left_out_of_that_protocol_alone(own_set, logs, examine):
    table = pd.read_csv(own_set / "manifest.csv", dtype=str)
    names = [path.stem for path in listing.find(own_set / "noisy")]
    rainy = [names[0], names[3]]
    table.loc[table["id"].isin(rainy), "kind"] = "rain"
    table.to_csv(own_set / "manifest.csv", index=False)
    text, frame = examine(logs["cnn0"], own_set, "--max_files", 3)
    assert "same_class runs for 2 of 3 files, the others have no match" in text
    assert sorted(frame.loc[frame["system"] == "same_class", "file"]) == [f"{name}.wav" for name in rainy]


def test_files_with_a_silent_reference_count_in_no_difference(own_set, logs, examine):
    paths = listing.find(own_set / "ref")
    audio.write(paths[0], np.zeros(8000, np.float32), RATE)
    _, frame = examine(logs["cnn0"], own_set)
    assert frame[frame["system"] == "noisy"]["file"].nunique() == 2
    assert paths[0].name not in set(frame[frame["system"].isin(["matched", "louder", "shuffled"])]["file"])
    audio.write(paths[-1], np.zeros(8000, np.float32), RATE)
    assert "**undecided**: there are no matched references to judge" in examine(logs["cnn0"], own_set)[0]


def test_a_model_trained_without_dropping_has_no_null(test_set, tmp_path, examine, capsys):
    ckpt = trained(tmp_path / "logs" / "run", cond_drop_prob=0.0)
    text, frame = examine(ckpt, test_set, "--max_files", 1)
    assert "null does not run: the model was trained without dropping references" in text
    assert "null" not in set(frame["system"])
    assert "nothing to guide" in refusal(reference_use.main, capsys, ckpt, test_set, "--guidance_scale", 3)


def test_a_baseline_of_another_rate_runs_and_its_scores_are_of_the_same_files(test_set, logs, tmp_path, examine):
    other = trained(tmp_path / "logs" / "slow", encoder="none", cond_drop_prob=0.0, sample_rate=8000)
    text, frame = examine(logs["cnn0"], test_set, "--baseline", other)
    assert "the baseline differs in more than the reference: sample_rate 8000, not 16000" in text
    assert frame.loc[frame["system"] == "baseline", "si_sdr"].notna().all()


def test_a_baseline_of_another_budget_network_data_or_sampling_is_told_apart(logs):
    ours, bare = (use.load_subjects([logs[run]], None)[0] for run in ("cnn0", "none0"))
    assert use.compare_training(ours, bare, None) == []
    for name in ("batch_size", "lr", "weight_decay", "init_ckpt", "max_steps", "speech_dir", "nf", "objective"):
        (found,) = use.compare_training(ours, replace(bare, settings=bare.settings | {name: "other"}), None)
        assert found.startswith(f"{name} other, not ")
    assert use.compare_training(ours, replace(bare, settings=bare.settings | {"encoder": "other"}), None) == []
    assert use.compare_training(ours, replace(bare, steps=8), None) == ["8 steps of training, not 4"]
    bare.model.sampler = replace(bare.model.sampler, N=3)
    assert use.compare_training(ours, bare, None) == ["3 sampling steps, not 1 (equal ones with --N)"]
    assert use.compare_training(ours, bare, 5) == []
    bare.model.sampler = replace(bare.model.sampler, schedule="quadratic")
    assert use.compare_training(ours, bare, 5) == ["schedule quadratic, not uniform"]
    given = [replace(one, settings=one.settings | {"init_ckpt": "given"}) for one in (ours, bare)]
    assert "the weights with which each began, which may differ" in use.compare_training(*given, 5)


ENCODERS = {
    "tokens": {"encoder": "sequence", "num_tokens": 4, "token_bands": 2, "cross_attention_resolutions": [128]},
    "statistics": {"encoder": "cnn", "reference_statistics": True},
    "learned null": {"encoder": "cnn", "null_condition": "learned"},
    "predictive": {"encoder": "cnn", "objective": "predictive"},
    "clap": {"encoder": "clap", "encoder_checkpoint": "random"},
}
PANNS = {"encoder": "panns", "encoder_checkpoint": "random"}
KINDS = [pytest.param(settings, id=name) for name, settings in ENCODERS.items()]
KINDS += [pytest.param(PANNS, id="panns", marks=pytest.mark.slow)]  # 81 million parameters


@pytest.mark.parametrize("settings", KINDS)
def test_models_of_every_kind_can_be_examined(settings, test_set, tmp_path, examine):
    ckpt = trained(tmp_path / "logs" / "run", **settings)
    _, frame = examine(ckpt, test_set, "--max_files", 1, "--N", 1)
    assert frame["si_sdr"].notna().all()
    louder, matched = (frame.loc[frame["system"] == name, "si_sdr"].item() for name in ("louder", "matched"))
    assert louder != matched, "the level of the reference arrives"


REFUSED = [
    ("NONE SET", "has no noise encoder, so there is no reference to use"),
    ("CNN SET --baseline CNN1", "takes a noise reference, but the baseline"),
    ("CNN SET --baseline CNN", "is model and baseline at once"),
    ("CNN SET --baseline NONE NONE", "are trainings with the seeds 0, 0"),
    ("CNN SET --more_seeds NONE", "is to differ in its seed alone (cond_drop_prob 0.0, not 0.1"),
    ("CNN SET --more_seeds COPY", "hold one training twice"),
    ("CNN absent", "absent: no such folder"),
    ("absent.ckpt SET", "absent.ckpt: no such checkpoint"),
    ("CNN SET --N 0", "--N 0"),
    ("CNN SET --guidance_scale nan", "--guidance_scale nan"),
    ("CNN SET --guidance_scale 100", "--guidance_scale 100"),
    ("CNN SET --baseline ONE_STEP --N 5", "--N 5 does not fit the objective predictive"),
    ("CNN LOUD", "snr_db of 000.wav is loud, no number"),
    ("CNN", "TEST_SET"),
]


@pytest.mark.parametrize(("words", "culprit"), REFUSED)
def test_bad_input_is_refused_before_any_work(words, culprit, test_set, logs, tmp_path, capsys):
    known = {"CNN": logs["cnn0"], "CNN1": logs["cnn1"], "NONE": logs["none0"], "SET": test_set}
    if "LOUD" in words:
        known["LOUD"] = shutil.copytree(test_set, tmp_path / "set")
        table = pd.read_csv(test_set / "manifest.csv", dtype=str)
        table.assign(snr_db="loud").to_csv(known["LOUD"] / "manifest.csv", index=False)
    if "COPY" in words:
        known["CNN"] = shutil.copyfile(logs["cnn0"], tmp_path / "a.ckpt")
        known["COPY"] = shutil.copyfile(logs["cnn0"], tmp_path / "b.ckpt")
    if "ONE_STEP" in words:
        one_step = {"encoder": "none", "cond_drop_prob": 0.0, "objective": "predictive"}
        known["ONE_STEP"] = trained(tmp_path / "logs" / "run", **one_step)
    given = [known.get(word, word) for word in words.split()]
    assert culprit in refusal(reference_use.main, capsys, *given, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_of_something_else_are_left_as_they_are(test_set, logs, capsys):
    before = sorted(test_set.rglob("*"))
    assert "choose another --out" in refusal(reference_use.main, capsys, logs["cnn0"], test_set, "--out", test_set)
    assert sorted(test_set.rglob("*")) == before


@pytest.mark.parametrize(("content", "culprit"), [("seed: many\n", "seed many"), ("seed: [1", "no valid YAML")])
def test_a_run_with_damaged_settings_is_refused(content, culprit, tmp_path):
    ckpt = saved_run(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"config\.yaml: .*{culprit}"):
        use.load_subjects([ckpt], None)


@pytest.mark.parametrize(("step", "count"), [("many", 4), ("nan", 4), ("", 4), ("8", 8)])
def test_steps_are_those_of_the_validation_table_or_else_of_the_checkpoint(step, count, tmp_path):
    ckpt = saved_run(tmp_path / "run")
    (tmp_path / "run" / "validation.csv").write_text(f"step,seconds\n{step},1.0\n")
    assert use.load_subjects([ckpt], None)[0].steps == count
