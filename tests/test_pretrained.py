"""Models in folders: exported, found by name or path, and got from a Hugging Face repository."""

import json

import numpy as np
import pytest
import torch
from commands import call, refusal, saved_run
from export_model import main
from short_set import short_set
from tiny import batch, enhanced, tiny

from scripts import reference_use
from sgmse.commands import enhance
from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.corpora import embedded_dir
from sgmse.diffusion.adaptive import fit
from sgmse.diffusion.samplers import gaussian
from sgmse.evaluation.metrics import si_sdr
from sgmse.model import Enhancer, NoiseCondScoreModel, pretrained
from sgmse.model.checkpoints import read_checkpoint
from sgmse.model.pretrained import released_models


@pytest.fixture
def run_dir(tmp_path):
    """The folder of a run, as far as exporting wants it."""
    saved_run(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text("# code: 0123abc\nmax_steps: 7\nsynthetic_share: 0.5\n")
    return tmp_path / "run"


def waveform(model: Enhancer) -> torch.Tensor:
    data = batch()
    return enhanced(model, data["noisy"], data["reference"], gaussian(torch.Generator().manual_seed(3))).waveform


def test_an_exported_model_enhances_as_its_checkpoint_does(run_dir, tmp_path, capsys):
    out = tmp_path / "fans"
    printed = call(main, capsys, run_dir, out, "--license", "MIT", "--data", "forty fans", "--limits", "sing")
    assert f"--ckpt {out}" in printed
    before = waveform(Enhancer.from_checkpoint(run_dir / "checkpoints/last.ckpt", "cpu"))
    for cls in (Enhancer, NoiseCondScoreModel):
        model = cls.from_pretrained(str(out), "cpu")
        assert torch.equal(waveform(model), before)
        assert model.averaged
        assert len(model.checkpoint_sha256) == 16
    card, config = (out / "README.md").read_text(), json.loads((out / "config.json").read_text())
    for fact in ("license: mit", "forty fans", "sing", "0123abc", "max_steps", "0.5"):
        assert fact in card
    assert config["commit"] == "0123abc"
    assert config["license"] == "MIT"


def test_the_card_says_what_the_model_began_with_and_not_how_pairs_were_mixed(run_dir, tmp_path, capsys):
    with (run_dir / "config.yaml").open("a") as file:
        file.write("base_dir: pairs\ninit_ckpt: before.ckpt\naccumulate_grad_batches: 2\n")
    call(main, capsys, run_dir, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "from the weights of another training" in card
    assert "accumulate_grad_batches" in card
    assert "synthetic_share" not in card


def test_the_card_says_what_earlier_sittings_of_the_run_had(run_dir, tmp_path, capsys):
    (run_dir / "config.1.yaml").write_text("# code: 0123abc\nmax_steps: 3\nsynthetic_share: 0.5\n")
    call(main, capsys, run_dir, tmp_path / "out")
    assert "3, then 7" in (tmp_path / "out/README.md").read_text()


def test_the_scores_of_its_sets_stand_on_the_card(run_dir, tmp_path, capsys):
    rows = ["system,file,pesq,estoi,si_sdr", *(f"ours,{i},{1 + i / 10},0.7,{i}" for i in range(5))]
    (tmp_path / "ood.csv").write_text("\n".join(rows))
    call(main, capsys, run_dir, tmp_path / "out", "--scores", tmp_path / "ood.csv")
    card = (tmp_path / "out/README.md").read_text()
    assert "ood" in card
    assert "1.200 [1.004, 1.396]" in card


def test_the_statistics_of_the_training_references_go_along(tmp_path):
    vectors = torch.randn(32, 16)
    model = tiny()
    content = {"model_settings": model.settings, "state_dict": model.state_dict(), "global_step": 1}
    torch.save(content | {"familiarity": fit(vectors).state_dict()}, tmp_path / "x.ckpt")
    stored = read_checkpoint(tmp_path / "x.ckpt")
    pretrained.write_folder(tmp_path / "out", stored, "a card", {})
    loaded = Enhancer.from_pretrained(tmp_path / "out", "cpu")
    assert torch.equal(loaded.familiarity.distance(vectors), fit(vectors).distance(vectors))


def test_models_that_come_along_are_found_by_name(run_dir, tmp_path, capsys, monkeypatch):
    call(main, capsys, run_dir, tmp_path / "released/fans")
    monkeypatch.setattr(pretrained, "released_models", lambda: {"fans": tmp_path / "released/fans"})
    assert Enhancer.from_pretrained("fans", "cpu").averaged
    with pytest.raises(UserError, match="fans"):
        Enhancer.from_pretrained("fnas", "cpu")


def test_a_repository_comes_from_the_cache_of_the_hub(run_dir, tmp_path, capsys, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub._snapshot_download.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"somebody/fans.*cannot be had"):
        Enhancer.from_pretrained("somebody/fans", "cpu")
    place = tmp_path / "cache/models--somebody--fans"
    call(main, capsys, run_dir, place / "snapshots/0123abc")
    (place / "refs").mkdir()
    (place / "refs/main").write_text("0123abc")
    assert Enhancer.from_pretrained("somebody/fans", "cpu").averaged


def damaged(folder, what):
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "no settings":
        (folder / "config.json").unlink()
    elif what == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif what == "text for settings":
        (folder / "config.json").write_text("{")
    else:
        config = json.loads((folder / "config.json").read_text())
        change = {"another shape": {"nf": 8}, "no such setting": {"backbone": "resnet"}}[what]
        config["model"] |= change
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "what", ["no weights", "no settings", "cut weights", "text for settings", "another shape", "no such setting"]
)
def test_a_folder_that_holds_no_whole_model_is_refused_by_name(what, run_dir, tmp_path, capsys):
    call(main, capsys, run_dir, tmp_path / "out")
    with pytest.raises(UserError, match=r"out|resnet"):
        Enhancer.from_pretrained(damaged(tmp_path / "out", what), "cpu")


def test_what_cannot_be_exported_is_refused(run_dir, tmp_path, capsys):
    assert "nothing" in refusal(main, capsys, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("chapter 1")
    assert "thesis: exists and is no exported model" in refusal(main, capsys, run_dir, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "chapter 1"
    assert "absent.csv" in refusal(main, capsys, run_dir, tmp_path / "out", "--scores", tmp_path / "absent.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert "bad.csv" in refusal(main, capsys, run_dir, tmp_path / "out", "--scores", tmp_path / "bad.csv")
    assert not (tmp_path / "out").exists()


def test_the_model_that_comes_along_enhances_where_nothing_was_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noisy = short_set(tmp_path / "set", 2, 2.0)
    printed = call(enhance.main, capsys, "--test_dir", noisy, "--device", "cpu", "--enhanced_dir", tmp_path / "out")
    assert "small" in printed
    for name in ("000", "001"):
        clean, before, after = (
            audio.read(folder / f"{name}.wav", 16000) for folder in (noisy / "clean", noisy / "noisy", tmp_path / "out")
        )
        assert si_sdr(clean, after) > si_sdr(clean, before) + 4


def test_a_model_that_comes_along_is_examined_by_its_name(tmp_path, capsys):
    flags = ("--max_files", 1, "--jobs", 1, "--device", "cpu", "--out", tmp_path / "use")
    printed = call(reference_use.main, capsys, "small", embedded_dir() / "test", *flags)
    assert "matched" in printed
    assert (tmp_path / "use" / "scores.csv").is_file()


@pytest.mark.parametrize("name", released_models())
def test_models_that_come_along_are_small_load_and_have_a_card(name):
    folder = released_models()[name]
    assert (folder / "model.safetensors").stat().st_size < 8e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Licence:** MIT" in card
    assert "**Cannot do:**" in card
    model = Enhancer.from_pretrained(name, "cpu")
    noisy = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert np.isfinite(model.enhance(noisy, 16000, noise_ref=noisy[:6000])).all()
