"""From experiments and a scale to trainings: what is shared, what a scale may change, what a plan costs."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from plans import CATALOGUE, EVERYTHING, SCALES, plan
from small_tower import SmallTower

from sgmse.commands import train
from sgmse.common.errors import UserError
from sgmse.data import corpora
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.encoders.clap import CLAPNoiseEncoder
from sgmse.encoders.panns import PANNsNoiseEncoder
from sgmse.encoders.voice import VoiceEncoder
from sgmse.experiments.catalogue import CHOICE_SETS, SETS, select_experiments
from sgmse.experiments.plan import Data, complete_data, join_plan, make_plan, read_plan
from sgmse.experiments.scales import load_scale, resolve_settings, with_defaults
from sgmse.experiments.training import write_speech
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import CONFIGS, ModelConfig, TrainConfig

ITEMS = dict.fromkeys((*SETS, *CHOICE_SETS), 2)
MINIMAL = f"items: {ITEMS}\n"
MINIMAL += "steps: {bridge: [1], sgmse_plus: [2]}\n"


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


def test_film_is_an_experiment_of_its_own_where_the_network_has_a_choice():
    """The light network scales and shifts after the norm always."""
    for scale, opponents in (("paper", ["BASE-08", "DENSE-01"]), ("mini", ["BASE-08"])):
        assert EVERYTHING[scale].opponents("DENSE-07") == opponents
        assert EVERYTHING[scale].training("DENSE-07").values["film"] == (scale == "paper")


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
        other = {"cross_attention_resolutions", *(["film"] if values["backbone"] == "light" else [])}
        for setting, value in experiment.train.items():
            if setting not in other:
                assert values[setting] == value, name


def test_mini_takes_sizes_and_losses_of_the_cpu_preset_and_neither_its_mixing_nor_its_process():
    preset, mini = yaml.safe_load((CONFIGS / "cpu.yaml").read_text()), EVERYTHING["mini"]
    own = {"ch_mult", "max_steps", "val_every_n_steps"}
    varied = {"synthetic_share", "babble_share", "talker_share", "sde"}
    values = mini.training("CFG-01").values
    assert {name: values[name] for name in preset.keys() - own - varied} == {
        name: value for name, value in preset.items() if name not in own | varied
    }
    assert {name: values[name] for name in varied - {"sde"}} == dict.fromkeys(varied - {"sde"}, 0)
    assert mini.training("SGM-01").values["sde"] == "ouve"


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
        ("preset: cpus\n", "preset: cpus: no such preset; did you mean cpu?"),
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
        ("data_dir: data\n", "nothing ends the training of BASE-00"),
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
