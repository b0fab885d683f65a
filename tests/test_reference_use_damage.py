"""Damaged states, settings and manifests of the verdict on a reference."""

import pytest
from commands import saved_run

from sgmse.common.errors import UserError
from sgmse.diagnostics import subjects
from sgmse.diagnostics.use import USE, facts
from sgmse.evaluation.kept import Kept


def twice(path):
    first, second = path.read_text().splitlines()[:2]
    path.write_text(f"{first}\n{second}\n{second}\n")


DAMAGES = {
    "broken JSON": (lambda out: (out / "scores.json").write_text("{"), "scores.json: is not valid JSON"),
    "cut table": (lambda out: (out / "scores.csv").write_text("checkpoint,system,se"), "scores.csv: "),
    "other columns": (lambda out: (out / "scores.csv").write_text("a,b\n1,2\n"), "scores.csv: "),
    "a row twice": (lambda out: twice(out / "scores.csv"), "scores.csv: holds a file twice"),
    "a folder": (lambda out: (out / "scores.csv").unlink() or (out / "scores.csv").mkdir(), "scores.csv: cannot be"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_refused_in_a_sentence(name, tmp_path):
    row = {"checkpoint": "abc", "system": "matched", "seed": 0, "file": "a.wav", "pesq": 2.0, "nfe": 1, "passes": 1}
    Kept(tmp_path, {}, USE).add([row | {"guidance_scale": 1.0, "N": 1}])
    assert Kept(tmp_path, {}, USE).has(("abc", "matched"))
    damage, message = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(UserError) as refused:
        Kept(tmp_path, {}, USE)
    assert message in str(refused.value)


def test_results_cannot_go_into_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        Kept(tmp_path / "file", {}, USE)
    with pytest.raises(UserError, match="choose another --out"):
        Kept(tmp_path / ("name" * 100), {}, USE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("config.yaml", "seed: many\n"), "config.yaml: seed many is no whole number"),
        (("config.yaml", "seed: [1"), "config.yaml: is no valid YAML"),
    ],
)
def test_a_run_with_damaged_settings_is_refused_in_a_sentence(damage, message, tmp_path):
    ckpt = saved_run(tmp_path / "run")
    name, content = damage
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=message):
        subjects.load_subjects([ckpt], None)


@pytest.mark.parametrize("step", ["many", "nan", "inf", ""])
def test_steps_that_the_validation_table_does_not_tell_are_those_of_the_checkpoint(step, tmp_path):
    ckpt = saved_run(tmp_path / "run")
    (tmp_path / "run" / "validation.csv").write_text(f"step,seconds\n{step},1.0\n")
    assert subjects.load_subjects([ckpt], None)[0].steps == 4


@pytest.mark.parametrize("snr_db", ["loud", "inf"])
def test_an_snr_that_is_no_number_is_refused_in_a_sentence(snr_db, tmp_path):
    (tmp_path / "manifest.csv").write_text(f"id,snr_db\na,{snr_db}\n")
    with pytest.raises(UserError, match=f"snr_db of a.wav is {snr_db}, no number"):
        facts(tmp_path, ["a.wav"])
