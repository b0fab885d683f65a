"""The doctor on test sets, settings and checkpoints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import altered, saved_run
from examined import RATE, only, problems, speech, white, write_pairs
from small_corpora import save

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest
from sgmse.doctor import models
from sgmse.doctor.examine import Request, examine


def save_bytes(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def test_set(tmp_path):
    """Two items with references: a good one, and one cut from the mixture's own noise."""
    folder = tmp_path / "set"
    for number in range(2):
        clean, noise = speech(1.5, 40, number), 0.5 * white(1.5, 41, number)
        save(folder / f"clean/i{number}.wav", samples=clean, rate=RATE)
        save(folder / f"noisy/i{number}.wav", samples=clean + noise, rate=RATE)
        save(folder / f"ref/i{number}.wav", samples=white(0.5, 42, number), rate=RATE)
        save(folder / f"ref_oracle/i{number}.wav", samples=noise[2000:10000], rate=RATE)
    return folder


def test_oracle_references_may_leak_and_disjoint_ones_may_not(test_set):
    assert problems(test_dir=[test_set]) == {}
    (test_set / "ref/i1.wav").write_bytes((test_set / "ref_oracle/i1.wav").read_bytes())
    only(problems(test_dir=[test_set]), "1 hold samples of the noise that they help to remove")


def test_silent_and_missing_references_are_found(test_set):
    save(test_set / "ref/i0.wav", samples=np.zeros(4000), rate=RATE)
    (test_set / "ref/i1.wav").unlink()
    found = problems(test_dir=[test_set])
    assert all(found.values())
    assert ["1 are silent" in what for what in found] == [False, True]
    assert "1 have no reference" in next(iter(found))


def test_a_changed_set_and_an_unfinished_one_are_found(test_set):
    (test_set / "set.json").write_text('{"sha256": "0"}')
    only(problems(test_dir=[test_set]), "files were changed, added or removed since the set was built")
    (test_set / "set.json").unlink()
    only(problems(test_dir=[test_set.rename(test_set.with_name("set.incomplete"))]), "was interrupted")


def test_a_test_set_made_of_training_noise_is_found(test_set, tmp_path):
    noise = save(tmp_path / "noise/train/n.wav", samples=white(2, 50), rate=RATE)
    digest = file_digest(noise)
    (test_set / "manifest.csv").write_text(f"id,speech,noise,noise_sha256\ni0,s,n.wav,{digest}\ni1,s,m.wav,0\n")
    found = problems(test_dir=[test_set], noise_dir=[tmp_path / "noise"])
    only(found, "set: of the recordings behind its items, 1 are in the training data")


def test_a_good_checkpoint_has_no_problem_and_names_its_facts(tmp_path):
    page = examine(Request(ckpt=saved_run(tmp_path / "run"), data=write_pairs(tmp_path / "corpus")))
    assert page.problems == []
    assert any("step 4, averaged weights present, sha256 " in fact for fact in page.facts)


def test_absent_averages_diverged_weights_and_another_rate_are_found(tmp_path):
    ckpt = saved_run(tmp_path / "run")
    only(problems(ckpt=altered(ckpt, tmp_path / "raw.ckpt", average=None)), "no averaged weights", falsifies=False)
    weights = torch.load(ckpt, weights_only=True)["state_dict"]
    name = next(name for name, value in weights.items() if torch.is_floating_point(value))
    weights[name] = weights[name] * float("nan")
    only(problems(ckpt=altered(ckpt, tmp_path / "nan.ckpt", state_dict=weights)), "weights that are no numbers")
    config = tmp_path / "c.yaml"
    config.write_text("sample_rate: 48000\n")
    only(problems(ckpt=ckpt, config=[config]), "was trained with --sample_rate 16000, but the settings say 48000")


def test_a_small_effective_batch_is_found(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("batch_size: 2\naccumulate_grad_batches: 2\n")
    page = examine(Request(config=[config]))
    assert "--accumulate_grad_batches" in page.problems[0].remedy
    assert not page.is_falsified
    assert any("2 per device x 2 batches per step x 1 devices = 4" in fact for fact in page.facts)


def test_encoder_weights_are_looked_for_and_hashed(tmp_path, monkeypatch):
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path))
    config = tmp_path / "c.yaml"
    config.write_text("encoder: clap\n")
    only(problems(config=[config]), "--encoder clap needs its weights", falsifies=False)
    (tmp_path / "encoders").mkdir()
    path = models.weights.PUBLISHED["clap"].default_path()
    path.write_bytes(b"weights")
    page = examine(Request(config=[config]))
    assert page.problems == []
    assert any(file_digest(path)[:16] in fact for fact in page.facts)
    config.write_text("encoder: clap\nencoder_checkpoint: random\n")
    only(problems(config=[config]), "has random weights")


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_weights_are_held_against_the_published_hash_of_either_kind(tmp_path, monkeypatch, algorithm):
    path = save_bytes(tmp_path / "voice.pt", b"weights")
    digest = f"{algorithm}:{file_digest(path, algorithm)}"
    monkeypatch.setitem(models.weights.PUBLISHED, "voice", replace(models.weights.VOICE, digest=digest))
    config = tmp_path / "c.yaml"
    config.write_text(f"encoder: voice\nencoder_checkpoint: {path}\n")
    assert problems(config=[config]) == {}
    path.write_bytes(b"others")
    only(problems(config=[config]), "is not the published file")


def test_other_encoder_weights_than_those_of_the_checkpoint_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("SGMSE_CACHE", str(tmp_path))
    ckpt = saved_run(tmp_path / "run")
    settings = torch.load(ckpt, weights_only=True)["model_settings"] | {"encoder": "clap"}
    path = save_bytes(models.weights.PUBLISHED["clap"].default_path(), b"weights")
    kept = {"model_settings": settings, "encoder_identity": models.weights.identity(path)}
    assert problems(ckpt=altered(ckpt, tmp_path / "clap.ckpt", **kept)) == {}
    path.write_bytes(b"others")
    only(problems(ckpt=tmp_path / "clap.ckpt"), "was trained with clap weights of hash")
    path.unlink()
    trained_along = altered(ckpt, tmp_path / "free.ckpt", model_settings=settings | {"freeze_encoder": False})
    assert problems(ckpt=trained_along) == {}  # its weights are in the checkpoint


def test_files_that_cannot_be_read_are_problems_and_the_others_are_looked_at(test_set, tmp_path):
    save(tmp_path / "noise/train/n.wav", samples=white(2, 50), rate=RATE)
    save_bytes(tmp_path / "noise/train/broken.wav", b"not audio")
    page = examine(Request(noise_dir=[tmp_path / "noise"]))
    assert [problem.where[0].partition(":")[0] for problem in page.problems] == [
        str(tmp_path / "noise/train/broken.wav")
    ]
    assert any("1 files" in fact for fact in page.facts)
    save_bytes(test_set / "ref/i0.wav", b"not audio")
    only(problems(test_dir=[test_set]), "1 cannot be read", falsifies=False)


def test_a_folder_of_speech_that_is_not_there_is_called_speech(tmp_path):
    with pytest.raises(UserError, match=r"gone: no such folder \(for speech\)"):
        examine(Request(speech_dir=[tmp_path / "gone"]))
