"""From experiments and a scale to trainings: what is shared, what a scale may change, what a plan costs."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from small_tower import SmallTower

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders.clap import CLAPNoiseEncoder
from sgmse.encoders.panns import PANNsNoiseEncoder
from sgmse.encoders.voice import VoiceEncoder
from sgmse.experiments import forecast
from sgmse.experiments.catalogue import CHOICE_SETS, SETS, load_experiments, select_experiments
from sgmse.experiments.forecast import describe_plan
from sgmse.experiments.plan import Data, Plan, complete_data, join_plan, make_plan, read_plan
from sgmse.experiments.scales import Scale, load_scale, resolve_settings, with_defaults
from sgmse.experiments.training import write_speech
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import ModelConfig, TrainConfig
from sgmse.training.saving import BEST_BY

CATALOGUE = load_experiments()
SCALES = {name: load_scale(name) for name in ("paper", "mini")}
ITEMS = dict.fromkeys((*SETS, *CHOICE_SETS), 2)
MINIMAL = f"items: {ITEMS}\n"
MINIMAL += "steps: {bridge: [1], sgmse_plus: [2]}\n"


def plan(scale: str | Scale = "mini", ids: tuple[str, ...] = (), weights: str = "random", **data: object) -> Plan:
    """Of one seed."""
    known = SCALES[scale] if isinstance(scale, str) else scale
    return make_plan(select_experiments(CATALOGUE, ids), known, complete_data(known, Data(**data)), [0], weights)


EVERYTHING = {name: plan(name) for name in SCALES}


@pytest.fixture
def small_towers(monkeypatch) -> None:
    """CLAP and PANNs with a network of a few weights."""
    for encoder in (CLAPNoiseEncoder, PANNsNoiseEncoder, VoiceEncoder):
        monkeypatch.setattr(encoder, "tower_class", SmallTower)


# ---- what is shared ----


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("ids", [("CFG-01", "CFG-02", "CFG-03"), ("CLAP-03", "COMB-01"), ("XAttn-01", "XAttn-02")])
def test_experiments_with_equal_settings_train_once(scale, ids):
    (training,) = {EVERYTHING[scale].training_of[name] for name in ids}
    assert set(ids) <= set(EVERYTHING[scale].experiments_of(training))
    assert plan(scale, ids).training_of[ids[0]] == training  # whatever else is in the plan


def test_experiments_that_train_differently_do_not_share():
    ids = "BASE-00 BASE-01 BASE-02 CFG-00 CFG-01 CFG-04 CLAP-01 CLAP-02 CLAP-03 PANNs-01 XAttn-02 XAttn-03".split()
    ids += "COMB-02 COMB-03 LEVER-00 LEVER-01 PRED-00 PRED-01 SGM-00 SGM-01".split()
    assert len({EVERYTHING["paper"].training_of[name] for name in ids}) == len(ids)


def test_a_plan_compares_with_what_it_has_and_always_with_the_baseline():
    wanted = plan(ids=("COMB-03",))
    assert wanted.opponents("COMB-03") == ["BASE-01", "COMB-02"]
    assert wanted.opponents("COMB-02") == ["BASE-00"]  # COMB-01 is in the catalogue, not in this plan


def test_names_are_readable_and_unlike_for_other_data():
    folders = [{}, {"speech_dir": ["s"], "noise_dir": ["n"]}, {"speech_dir": ["s"], "noise_dir": ["m"]}]
    names = {plan(ids=("CFG-01",), **data).training_of["CFG-01"] for data in folders}
    assert len(names) == 3
    assert all(name.startswith("bridge_cnn_p0.1_") for name in names)


def test_the_hash_knows_what_decides_the_numbers_and_neither_the_machine_nor_where_corpora_lie():
    paper, ids = SCALES["paper"], ("CFG-01",)
    here = plan("paper", ids)
    workers = replace(paper, train={**paper.train, "num_workers": 9, "save_every_n_steps": 7})
    for same in (plan("paper", ids, data_dir="/elsewhere"), plan(workers, ids)):
        assert same.config_hash("CFG-01") == here.config_hash("CFG-01")
        assert same.training_of == here.training_of
    steps = plan(replace(paper, steps={"bridge": [5], "sgmse_plus": [30]}), ids)
    assert steps.config_hash("CFG-01") != here.config_hash("CFG-01")
    hashes = {name: EVERYTHING["paper"].config_hash(name) for name in CATALOGUE}
    same = [("XAttn-01", "XAttn-02"), ("BASE-05", "BASE-08"), ("LEVER-02", "DENSE-01")]  # but for their test sets
    assert len(set(hashes.values())) == len(hashes) - len(same)
    assert all(hashes[one] == hashes[other] for one, other in same)


def test_random_weights_make_another_training_and_are_smoke_and_where_weights_lie_is_no_setting():
    here, there, random = (
        plan(ids=("CLAP-01", "CFG-00"), weights=w) for w in ("here/clap.pt", "there/clap.pt", "random")
    )
    assert here.training_of == there.training_of
    assert here.training_of["CLAP-01"] != random.training_of["CLAP-01"]
    assert here.training_of["BASE-00"] == random.training_of["BASE-00"]
    smoke = {name: random.training(name).smoke for name in random.experiments}
    assert smoke == {"BASE-00": False, "CLAP-01": True, "CFG-00": False}
    assert not any(training.smoke for training in here.trainings.values())


@pytest.mark.parametrize("scale", SCALES)
def test_a_plan_comes_back_from_its_folder(scale, tmp_path):
    join_plan(tmp_path, EVERYTHING[scale])
    again = read_plan(tmp_path)
    assert again == EVERYTHING[scale]
    assert again.config_hash("COMB-03") == EVERYTHING[scale].config_hash("COMB-03")


def _without(name: str) -> bytes:
    content = asdict(EVERYTHING["mini"]) | {name: ["a"] if name == "seeds" else {}}
    return json.dumps(content).encode()


_DAMAGED = [_without(name) for name in ("training_of", "steps", "items", "set_names", "seeds")]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"experiments": {"A": {}}}', b"\xff\xfe", *_DAMAGED])
def test_a_damaged_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_bytes(text)
    with pytest.raises(UserError, match=r"plan\.json: is damaged"):
        read_plan(tmp_path)


# ---- what a scale changes ----


@pytest.mark.parametrize("scale", SCALES)
def test_every_training_can_be_built(scale, small_towers):
    parts = (ModelConfig, SamplerSettings, TrainConfig)
    for settings in ([cli.take(part, t.values) for part in parts] for t in EVERYTHING[scale].trainings.values()):
        with torch.device("meta"):  # no memory is taken
            NoiseCondScoreModel(*settings)


def test_the_training_command_takes_the_settings_of_every_training(tmp_path):
    wanted = EVERYTHING["paper"]
    for training in wanted.trainings.values():
        settings = dict(training.settings) | wanted.data.settings(training.corpora, Path("speech"))
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
        values = train.read_settings(["--config", str(tmp_path / "settings.yaml"), "--seed", "3"])
        assert {name: values[name] for name in training.settings} == dict(training.settings)


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_leaves_what_an_experiment_varies(scale):
    for name, experiment in CATALOGUE.items():
        values = with_defaults(resolve_settings(experiment, SCALES[scale]))
        for setting, value in experiment.train.items():
            if setting != "cross_attention_resolutions":
                assert values[setting] == value, name


def test_mini_attends_where_its_network_has_levels():
    mini = EVERYTHING["mini"]
    for name in ("XAttn-02", "COMB-02", "ABL-INJ-02"):
        wanted = CATALOGUE[name].train["cross_attention_resolutions"]
        assert mini.training(name).settings["cross_attention_resolutions"] == [r for r in wanted if r >= 32]


def test_a_one_step_predictor_is_tried_with_one_step_and_each_set_of_a_small_scale_once():
    steps = SCALES["paper"].steps
    wanted = {"PRED-01": [1], "CFG-01": steps["bridge"], "SGM-01": steps["sgmse_plus"]}
    assert {name: EVERYTHING["paper"].steps[name] for name in wanted} == wanted
    assert EVERYTHING["mini"].sets_of("CFG-01") == ["id", "ood", "nonstationary"]
    assert EVERYTHING["mini"].sets_of("XAttn-01") == ["id"]


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("trian: {nf: 4}\n", "trian"),
        ("train: {nf: many}\n", "nf many"),
        ("train: {cond_drop_prob: 0.5}\n", "cond_drop_prob is 0.1, but the scale odd makes it 0.5"),
        ("train: {ch_mult: [1, 2]}\n", "attends at [64, 32, 16], and the network of the scale odd has [256, 128]"),
        ("sets: {esc50: ood}\n", "items: esc50"),
        ("sets: {esc50: id}\nitems: {id: 3}\n", "items: nonstationary is missing"),
        (f"items: {ITEMS | {'id': 0}}\n", "items"),
        ("steps: {bridge: [], sgmse_plus: [2]}\n", "steps"),
        ("sets: {esc: ood}\n", "esc"),
        ("encoders: {clip: {nf: 4}}\n", "clip"),
        ("sets: {esc50: [ood]}\n", "sets"),
        ("data_dir: [data]\n", "data_dir ['data']"),
        ("figures: {item_seconds: long}\n", "item_seconds long"),
        ("figures: {seconds_per_pass: 3}\n", "seconds_per_pass 3"),
        ("figures: {seconds_per_step: {bridge: 3}}\n", "seconds_per_step"),
        ("figures: {spread: {seed: 1}}\n", "spread"),
        ("figures: [1]\n", "figures"),
    ],
)
def test_a_scale_that_cannot_be_meant_is_refused(tmp_path, text, culprit):
    minimal = [line for line in MINIMAL.splitlines() if line.partition(" ")[0] not in text]  # a key stands once
    (tmp_path / "odd.yaml").write_text("\n".join([*minimal, text]))

    def make() -> None:
        scale = load_scale(str(tmp_path / "odd.yaml"))
        make_plan(select_experiments(CATALOGUE, ["CFG-04", "XAttn-02"]), scale, Data(), [0])

    with pytest.raises(UserError, match=re.escape(culprit)) as error:
        make()
    assert "\n" not in str(error.value)


def test_an_unknown_scale_is_answered_with_those_there_are():
    with pytest.raises(UserError, match=r"--scale minni: no such scale; did you mean mini\? \(there are mini, paper\)"):
        load_scale("minni")


# ---- where audio lies ----


def test_data_come_from_flags_else_from_where_the_scale_looks():
    assert complete_data(SCALES["paper"], Data()).data_dir == "data"
    assert complete_data(SCALES["mini"], Data()) == Data()
    folders = Data(None, ["s"], ["n"])
    assert complete_data(SCALES["paper"], folders) == folders


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"speech_dir": ["s"]}, "give both --speech_dir and --noise_dir"),
        ({"speech_dir": ["s"], "noise_dir": ["n"], "data_dir": "d"}, "give one kind"),
        ({"ood_noise_dir": "o"}, "goes with --speech_dir"),
        ({"test_sets": "nowhere"}, "--test_sets nowhere: holds none of the folders id, ood, nonstationary"),
    ],
)
def test_data_that_cannot_be_meant_are_refused(given, told):
    with pytest.raises(UserError, match=told):
        complete_data(SCALES["mini"], Data(**given))


@pytest.mark.parametrize(
    ("data", "corpora", "settings"),
    [
        (Data("data"), ["voicebank"], {"base_dir": "data/voicebank"}),
        (
            Data("data"),
            ["voicebank", "demand", "wham"],
            {"speech_dir": ["speech"], "noise_dir": ["data/demand", "data/wham"]},
        ),
        (Data(None, ["s"], ["n"]), [], {"speech_dir": ["s"], "noise_dir": ["n"]}),
        (Data(), [], {}),
    ],
)
def test_pairs_serve_alone_and_more_corpora_are_mixed(data, corpora, settings):
    assert data.settings(corpora, Path("speech")) == settings


def test_mixing_settings_are_refused_for_a_corpus_of_pairs():
    levered = replace(CATALOGUE["LEVER-01"], corpora=["voicebank"], versus=[])
    alone = replace(CATALOGUE["BASE-04"], corpora=["voicebank"], versus=[])
    with pytest.raises(UserError, match=r"--talker_share is for dynamic mixing"):
        make_plan({"BASE-04": alone, "LEVER-01": levered}, SCALES["paper"], Data("data"), [0])


def test_clean_speech_of_voicebank_serves_dynamic_mixing_by_split(tmp_path):
    for split, name in (("train", "p226_001"), ("valid", "p287_001")):
        for side in ("clean", "noisy"):
            folder = tmp_path / "voicebank" / split / side
            folder.mkdir(parents=True)
            soundfile.write(folder / f"{name}.flac", np.zeros(8000), 16000)
    write_speech(tmp_path / "voicebank", tmp_path / "speech")
    for split, name in (("train", "p226_001"), ("valid", "p287_001")):
        (found,) = corpora.split_files([tmp_path / "speech"], split, "speech")
        assert found.path == tmp_path / "voicebank" / split / "clean" / f"{name}.flac"


def test_absent_corpora_are_told_with_the_commands_that_prepare_them(tmp_path):
    wanted = plan("paper", ("COMB-03",), data_dir=str(tmp_path))
    with pytest.raises(UserError) as error:
        forecast.check_corpora(wanted)
    for name in ("voicebank", "demand", "wham", "urbansound8k", "esc50"):
        assert f"`python scripts/prepare.py {name} --out {tmp_path / name}`" in str(error.value)
    assert "prepare.py audioset --source FOLDER_WITH_ITS_CLIPS" in str(error.value)
    for name in forecast.list_corpora(wanted):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.csv").touch()
    forecast.check_corpora(wanted)
    for name in ("id", "esc50", "urbansound8k", "nonstationary", "valid"):
        (tmp_path / "ready" / name).mkdir(parents=True)
    ready = plan("paper", ("CFG-01",), test_sets=str(tmp_path / "ready"))
    assert forecast.list_corpora(ready) == ["voicebank"], "sets that are ready need no corpora of their own"


# ---- what it costs ----


def test_the_estimated_checkpoints_are_as_large_as_those_of_a_run(tmp_path):
    training = EVERYTHING["mini"].training("CFG-01")
    values = training.values
    parts = [cli.take(part, values) for part in (ModelConfig, SamplerSettings, TrainConfig)]
    model = NoiseCondScoreModel(*parts)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert forecast.count_parameters(training) == sum(p.numel() for p in trained)
    optimizer = torch.optim.Adam(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": [p.clone() for p in trained],
    }
    torch.save(content, tmp_path / "as.ckpt")
    kept = 1 + len(BEST_BY)  # last.ckpt and the best ones
    assert forecast.checkpoint_bytes(training) / kept == pytest.approx((tmp_path / "as.ckpt").stat().st_size, rel=0.03)


def test_a_frozen_encoder_is_in_no_checkpoint_and_a_trained_one_is():
    frozen, trained = (forecast.count_parameters(EVERYTHING["paper"].training(name)) for name in ("CLAP-01", "CLAP-02"))
    assert trained - frozen == 28_700_000


def test_sets_that_exist_are_counted_as_they_are(tmp_path):
    embedded = plan(ids=("CFG-01",))
    embedded_files = corpora.clips(corpora.embedded_dir() / "test" / "noisy")
    assert forecast.count_items(embedded, SCALES["mini"], "id")[0] == len(embedded_files)
    assert forecast.count_items(embedded, SCALES["mini"], "ood")[0] == SCALES["mini"].items["ood"]
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / "manifest.csv").write_text("id,noise\na,rain_1\nb,rain_1\nc,dog\n")
    ready = plan(ids=("CFG-01",), test_sets=str(tmp_path))
    assert forecast.count_items(ready, SCALES["mini"], "ood") == (3, 2)


def test_hours_grow_with_guidance_and_are_unknown_where_nobody_measured():
    mini, paper = SCALES["mini"], SCALES["paper"]
    hours = [forecast.evaluation_hours(EVERYTHING["mini"], name, mini) for name in ("CFG-01", "CFG-02")]
    assert hours[1] == pytest.approx(2 * hours[0])  # guided: two passes
    unknown = plan("paper", ("CFG-01",))
    assert math.isnan(forecast.evaluation_hours(unknown, "CFG-01", paper))
    assert math.isnan(forecast.training_hours(unknown, next(iter(unknown.trainings.values())), paper))
    assert forecast.disk_bytes(unknown, paper) > 1e9


def test_mini_trains_every_id_in_ten_minutes_or_little_more():
    for training in EVERYTHING["mini"].trainings.values():
        hours = forecast.training_hours(EVERYTHING["mini"], training, SCALES["mini"])
        assert hours < 10.5 / 60, training.name


def test_a_disk_too_small_is_refused_with_both_numbers(tmp_path, monkeypatch):
    wanted = plan(ids=("CFG-01",))
    monkeypatch.setattr(forecast, "free_bytes", lambda out: 5_000_000)
    needed = forecast.format_bytes(forecast.disk_bytes(wanted, SCALES["mini"]))
    with pytest.raises(UserError, match=rf"takes {needed} more and its disk has 5\.00MB free"):
        forecast.check_plan(wanted, SCALES["mini"], tmp_path / "run")
    monkeypatch.setattr(forecast, "free_bytes", lambda out: 10**12)
    assert forecast.check_plan(wanted, SCALES["mini"], tmp_path / "run") == {}


def test_the_overview_names_trainings_costs_and_unequal_budgets(tmp_path):
    text = describe_plan(replace(plan(ids=("CFG-02", "XAttn-02", "CLAP-01")), seeds=[0, 1]), SCALES["mini"], tmp_path)
    assert "scale mini, seeds 0 1: 7 experiments with 6 trainings, each with every seed" in text
    assert "CFG-02 CFG-01" in text or "CFG-01 CFG-02" in text
    assert "(random weights: smoke)" in text
    assert "note: CLAP-01 gets 200 steps and its baseline BASE-00 800: unequal budgets decide no criterion" in text
    assert "note: XAttn-02 attends at [64, 32], not [64, 32, 16]" in text
    assert "smallest PESQ difference" in text
    assert "unknown where nobody measured" in describe_plan(plan("paper", ("CFG-01",)), SCALES["paper"], tmp_path)
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


def test_scores_that_exist_tell_how_small_a_difference_can_be_shown(tmp_path):
    wanted = replace(plan(ids=("CFG-01",)), seeds=[0, 1])
    before = describe_plan(wanted, SCALES["mini"], tmp_path).splitlines()[-1]
    rng = np.random.default_rng(0)
    files = [f"f{i}" for i in range(40)]
    rows = [
        pd.DataFrame({"experiment": name, "set": "id", "seed": seed, "file": files, "source": files})
        for name in ("BASE-00", "CFG-01")
        for seed in (0, 1)
    ]
    table = pd.concat(rows)
    table["pesq"] = rng.normal(2, 1, len(table))
    table.to_csv(tmp_path / "results.csv", index=False)
    after = describe_plan(wanted, SCALES["mini"], tmp_path).splitlines()[-1]
    assert "spread of 1 comparisons" in after

    def least(line: str) -> float:
        return float(line.split("id ")[1].split(",")[0])

    assert least(after) > 3 * least(before)
    assert not math.isnan(least(after))
