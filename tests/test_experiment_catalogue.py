"""Experiments as data: what the files in configs/experiments/ say, and which files are refused."""

from pathlib import Path

import pytest

from sgmse.common.errors import UserError
from sgmse.experiments.catalogue import load_experiments, select_experiments
from sgmse.experiments.scales import check_baselines, resolve_settings, with_defaults

CATALOGUE = load_experiments()
PLANNED = """CFG-00 CFG-01 CFG-02 CFG-03 CFG-04 CFG-05 CFG-06 CLAP-01 CLAP-02 CLAP-03 PANNs-01
XAttn-01 XAttn-02 XAttn-03 COMB-01 COMB-02 COMB-03""".split()
BASE = "# Hypothesis: none.\ntrain: {encoder: none}\n"


def folder(tmp_path: Path, **files: str) -> Path:
    """A folder of experiment files; `B` is a baseline."""
    for name, text in {"B": BASE, **files}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def refused(tmp_path: Path, **files: str) -> str:
    """Why a folder of experiment files is refused."""
    with pytest.raises(UserError) as error:
        check_baselines(load_experiments(folder(tmp_path, **files)))
    return str(error.value)


def test_every_planned_id_is_there_with_a_hypothesis_of_its_own():
    assert set(PLANNED) <= set(CATALOGUE)
    hypotheses = [e.hypothesis for e in CATALOGUE.values() if not e.hypothesis.startswith("none")]
    assert len(set(hypotheses)) == len(hypotheses)
    assert all(len(e.hypothesis) > 10 for e in CATALOGUE.values())


def test_every_experiment_differs_from_its_baseline_in_conditioning_alone():
    check_baselines(CATALOGUE)
    conditioned = [e for e in CATALOGUE.values() if e.baseline]
    assert {e.id for e in CATALOGUE.values()} - {e.id for e in conditioned} == {
        e.id for e in CATALOGUE.values() if resolve_settings(e)["encoder"] == "none"
    }


def test_the_guidance_experiments_are_those_of_the_plan():
    planned = {
        f"CFG-0{i}": (p, [float(w)]) for i, (p, w) in enumerate([(p, w) for p in (0.1, 0.2) for w in (1, 3, 5)], 1)
    }
    found = {name: (CATALOGUE[name].train["cond_drop_prob"], CATALOGUE[name].guidance_scale) for name in planned}
    assert found == planned
    assert CATALOGUE["CFG-00"].train["cond_drop_prob"] == 0


def test_the_second_base_repeats_the_first_but_for_its_objective():
    for i in range(7):
        first, second = CATALOGUE[f"CFG-0{i}"], CATALOGUE[f"SGM-0{i}"]
        assert second.train == first.train
        assert second.guidance_scale == first.guidance_scale
        assert with_defaults(resolve_settings(second))["sde"] == "ouve"
        assert CATALOGUE[second.baseline].base == "sgmse_plus"


def test_global_pooling_differs_from_cross_attention_in_attention_alone():
    pooled, attending = (with_defaults(resolve_settings(CATALOGUE[name])) for name in ("XAttn-03", "XAttn-02"))
    assert {name for name in pooled if pooled[name] != attending[name]} == {"cross_attention_resolutions"}
    assert set(CATALOGUE["XAttn-01"].sets) | set(CATALOGUE["XAttn-02"].sets) <= set(CATALOGUE["XAttn-03"].sets)


def test_like_takes_everything_and_what_follows_wins(tmp_path):
    files = {
        "A": "# Hypothesis: one.\ntrain: {encoder: cnn, cond_drop_prob: 0.2}\nguidance_scale: 3\nbaseline: B\n",
        "C": "# Hypothesis: two,\n# told on two lines.\nlike: A\ntrain: {cond_drop_prob: 0.3}\nsets: [id]\n",
    }
    child = load_experiments(folder(tmp_path, **files))["C"]
    assert child.hypothesis == "two, told on two lines."
    assert child.train == {"encoder": "cnn", "cond_drop_prob": 0.3}
    assert (child.guidance_scale, child.baseline, child.sets) == ([3.0], "B", ["id"])


def test_an_experiment_comes_with_those_it_is_compared_with_but_not_with_theirs():
    picked = select_experiments(CATALOGUE, ["COMB-03"])
    assert set(picked) == {"COMB-03", "BASE-01", "COMB-02", "BASE-00"}
    assert list(picked)[-1] == "COMB-03"
    assert all(e.baseline in picked for e in picked.values() if e.baseline)
    everything = select_experiments(CATALOGUE, [])
    assert everything == CATALOGUE


@pytest.mark.parametrize(("name", "meant"), [("CFG-1", "CFG-01"), ("xattn-02", "XAttn-02"), ("pann-01", "PANNs-01")])
def test_an_unknown_id_is_answered_with_the_nearest(name, meant):
    with pytest.raises(UserError, match=f"{name}: no such experiment; did you mean {meant}"):
        select_experiments(CATALOGUE, [name])


CNN = "# x\ntrain: {encoder: cnn}\n"


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("train: {encoder: cnn}\nbaseline: B\n", "hypothesis"),
        ("# x\ntrain: {encodr: cnn}\nbaseline: B\n", "encodr; did you mean encoder?"),
        ("# x\ntrain: {encoder: cnn, nf: wide}\nbaseline: B\n", "nf wide"),
        ("# x\ntrain: {encoder: cnn, cond_drop_prob: 2}\nbaseline: B\n", "cond_drop_prob 2.0"),
        ("# x\ntrain: {encoder: cnn, num_tokens: 8}\nbaseline: B\n", "num_tokens"),
        ("# x\ntrain: {encoder: cnn, seed: 3}\nbaseline: B\n", "seed"),
        (f"{CNN}baselin: B\n", "baselin; did you mean baseline?"),
        (f"{CNN}base: brige\nbaseline: B\n", "base brige"),
        (f"{CNN}sets: [id, esc5]\nbaseline: B\n", "esc5: no such test set; did you mean esc50?"),
        (f"{CNN}corpora: [voicebank, wam]\nbaseline: B\n", "wam: no such corpus; did you mean wham"),
        (f"{CNN}corpora: [demand]\nbaseline: B\n", "voicebank"),
        (f"{CNN}guidance_scale: []\nbaseline: B\n", "guidance_scale is empty"),
        (f"{CNN}reference: disjunct\nbaseline: B\n", "reference disjunct"),
        (f"{CNN}baseline: b\n", "b: no such experiment; did you mean B?"),
        (f"{CNN}baseline: A\n", "compared with itself"),
        (CNN, "no baseline"),
        ("# x\nlike: A\n", "is like itself (A → A)"),
        ("# x\nlike: Z\n", "Z: no such experiment"),
        ("# x\ntrain: {encoder: cnn, nf: 32}\nbaseline: B\n", "A: has nf 32, its baseline B 128"),
        (f"{CNN}corpora: [voicebank, wham]\nbaseline: B\n", "A: has corpora ['voicebank', 'wham'], its baseline B"),
        ("# x\ntrain: {encoder: cnn, cond_drop_prob: 0}\nguidance_scale: 3\nbaseline: B\n", "drops no reference"),
        ("# x\ntrain: {encoder: none}\nguidance_scale: 3\n", "has no encoder"),
        ("# x\ntrain: [encoder]\n", "train ['encoder']"),
        ("# x\ntrain: {encoder: cnn\n", "YAML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_one_sentence(tmp_path, text, culprit):
    message = refused(tmp_path, A=text)
    assert culprit in message
    assert "A" in message.partition(":")[0]
    assert "\n" not in message


def test_a_circle_of_like_is_named(tmp_path):
    message = refused(tmp_path, A="# x\nlike: C\n", C="# x\nlike: A\n")
    assert "A.yaml: is like itself (A → C → A)" in message


def test_a_baseline_with_an_encoder_is_refused(tmp_path):
    message = refused(tmp_path, A="# x\ntrain: {encoder: cnn}\nbaseline: C\n", C="# x\nlike: A\nbaseline: B\n")
    assert "A: its baseline C has the encoder cnn, not none" in message


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no experiment"):
        load_experiments(tmp_path)
