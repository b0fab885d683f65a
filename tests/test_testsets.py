"""Test sets: balance, references under every protocol, provenance, interruption."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from noise_classes import KINDS, RATE, white, write_corpus
from small_corpora import save

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import SILENCE_RMS, rms
from sgmse.data.references import leak
from sgmse.data.testsets import build, items, make
from sgmse.data.testsets.build import PROTOCOLS, folder_of, read_rows, set_digest
from sgmse.data.testsets.plan import CHANGES, Recipe, make_plan


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def plan_of(corpus):
    speech = [audio.info(path) for path in audio.find(corpus / "speech")]

    def plan(name="ood", **settings):
        clips = corpora.clips(corpus / "noise")
        recipe = Recipe(name, sample_rate=RATE, **settings)
        return make_plan(recipe, corpus / "speech", speech, corpus / "noise", clips)

    return plan


def test_every_class_has_every_snr_equally_often(plan_of):
    draws = plan_of(num=27).draws
    counts = Counter((draw.clips[0].kind, draw.snr_db) for draw in draws)
    assert counts == {(kind, snr): 3 for kind in KINDS for snr in (0.0, 5.0, 10.0)}


def test_sources_and_speech_are_used_equally_often(plan_of):
    draws = plan_of(num=18).draws
    assert set(Counter(draw.clips[0].path for draw in draws).values()) == {2}
    assert set(Counter(draw.speech for draw in draws).values()) == {3}


def test_an_item_does_not_depend_on_how_many_follow(plan_of):
    assert plan_of(num=5).draws == plan_of(num=20).draws[:5]


def test_another_seed_draws_other_items(plan_of):
    assert plan_of(num=9).draws != plan_of(num=9, seed=1).draws


def test_the_two_noises_of_an_item_are_of_two_classes(plan_of):
    draws = plan_of("nonstationary", num=30).draws
    assert Counter(draw.change for draw in draws) == dict.fromkeys(CHANGES, 10)
    assert all(len({clip.kind for clip in draw.clips}) == len(draw.clips) for draw in draws)


@pytest.fixture(scope="module")
def ood(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "ood"
    clips = corpora.clips(corpus / "noise")
    speech = [audio.info(path) for path in audio.find(corpus / "speech")]
    plan = make_plan(Recipe("ood", num=9, sample_rate=RATE), corpus / "speech", speech, corpus / "noise", clips)
    build.build(plan, out, {})
    return out


def part(folder: Path, name: str, item: str) -> np.ndarray:
    return audio.read(folder / name / f"{item}.flac", RATE)


def test_noisy_is_clean_plus_noise_up_to_rounding(ood):
    for row in read_rows(ood):
        clean, noise, noisy = (part(ood, name, row["id"]) for name in ("clean", "noise", "noisy"))
        assert np.abs(clean + noise - noisy).max() < 2 / 2**15


def test_the_files_have_the_snr_of_the_manifest(ood):
    for row in read_rows(ood):
        clean, noise = (part(ood, name, row["id"]) for name in ("clean", "noise"))
        assert 20 * np.log10(rms(clean) / rms(noise)) == pytest.approx(float(row["snr_db"]), abs=0.05)


def test_the_disjoint_reference_comes_from_the_source_of_its_mixture_without_its_samples(ood):
    for row in read_rows(ood):
        reference, noise = part(ood, "ref", row["id"]), part(ood, "noise", row["id"])
        assert not leak.score(reference, noise, RATE).shared
        assert row["leak_shared"] == "0"
        assert float(row["ref_seconds"]) == pytest.approx(len(reference) / RATE, abs=1e-4)


def test_offsets_lead_back_to_the_source(ood, corpus):
    for row in read_rows(ood):
        source = items.without_rumble(audio.read(corpus / "noise" / row["noise_file"], RATE), RATE)
        for name, column in (("ref", "ref_start"), ("noise", "noise_start")):
            written = part(ood, name, row["id"])[: RATE // 5]
            there = source[int(row[column]) :][: len(written)]
            assert np.corrcoef(written, there)[0, 1] > 0.99


def test_the_oracle_reference_leaks(ood):
    row = read_rows(ood)[0]
    assert leak.score(part(ood, "ref_oracle", row["id"]), part(ood, "noise", row["id"]), RATE).peak > 0.99


def test_borrowed_references_have_the_level_of_the_noise(ood):
    for row in read_rows(ood):
        noise = part(ood, "noise", row["id"])
        for protocol in ("same_class", "mismatched"):
            borrowed = part(ood, folder_of(protocol), row["id"])
            assert 20 * np.log10(rms(borrowed) / rms(noise)) == pytest.approx(0, abs=1.5)  # all noises are white


def test_borrowed_references_come_from_the_right_class(ood):
    rows = {row["id"]: row for row in read_rows(ood)}
    for row in rows.values():
        assert rows[row["same_class_from"]]["kind"] == row["kind"]
        assert rows[row["same_class_from"]]["source"] != row["source"]
        assert rows[row["mismatched_from"]]["kind"] != row["kind"]


def test_the_set_says_what_it_lacks_and_hashes_every_file(ood):
    told = json.loads((ood / "set.json").read_text())
    assert told["sha256"] == set_digest(ood)
    assert set(told["protocols"]) == set(PROTOCOLS) - {"other_take"}
    assert "9 of 9" in told["not_built"]["other_take"]
    assert not (ood / "ref_other_take").exists()
    assert not list(ood.rglob(".*"))
    (ood / "copy").mkdir()
    (ood / "copy" / "x.flac").write_bytes(b"x")
    assert set_digest(ood) != told["sha256"]
    (ood / "copy" / "x.flac").unlink()
    (ood / "copy").rmdir()


def test_nonstationary_items_have_a_timeline_and_references_of_what_is_heard_before(tmp_path, plan_of):
    out = tmp_path / "set"
    build.build(plan_of("nonstationary", num=6), out, {})
    for row in read_rows(out):
        assert row["change"] in CHANGES
        assert len(row["kind"].split("+")) == (1 if row["change"] == "ramp" else 2)
        assert len(row["ref_source"].split("+")) == (2 if row["change"] == "concat" else 1)
        clean, noise = part(out, "clean", row["id"]), part(out, "noise", row["id"])
        assert 20 * np.log10(rms(clean) / rms(noise)) == pytest.approx(float(row["snr_db"]), abs=0.05)
        assert row["timeline"].startswith("0.00-")


def test_other_takes_serve_as_references_where_every_source_has_two(tmp_path):
    speech = [audio.info(save(tmp_path / f"speech/{n}.wav", 1.0, rate=RATE)) for n in range(4)]
    clips = []
    for number in range(8):
        path = save(tmp_path / f"noise/{number}.wav", samples=white(3, 11, number))
        clips.append(Clip(path, f"k{number % 2}", f"source{number // 2 % 2}{number % 2}", "test", RATE, 3.0))
    plan = make_plan(Recipe("ood", sample_rate=RATE), tmp_path / "speech", speech, tmp_path / "noise", clips)
    told = build.build(plan, tmp_path / "set", {})
    assert told["protocols"] == list(PROTOCOLS)
    for row in read_rows(tmp_path / "set"):
        taken, noise = (part(tmp_path / "set", name, row["id"]) for name in ("ref_other_take", "noise"))
        assert not leak.score(taken, noise, RATE).shared


def test_an_interrupted_build_goes_on_to_the_same_set(tmp_path, plan_of, monkeypatch):
    plan = plan_of(num=6)
    whole = build.build(plan, tmp_path / "whole", {})
    count = iter(range(4))

    def stop(plan, draw):
        if next(count) == 3:
            raise KeyboardInterrupt
        return make.make_item(plan, draw)

    monkeypatch.setattr(build, "make_item", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(plan, tmp_path / "set", {})
    assert not (tmp_path / "set").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set.incomplete/noisy").iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(build, "make_item", make.make_item)
    resumed = build.build(plan, tmp_path / "set", {})
    assert resumed["sha256"] == whole["sha256"]
    assert not (tmp_path / "set.incomplete").exists()
    for path, time in before.items():
        assert (tmp_path / "set" / "noisy" / path.name).stat().st_mtime_ns == time


def test_two_processes_make_the_same_set_as_one(tmp_path, plan_of):
    plan = plan_of(num=4)
    assert build.build(plan, tmp_path / "one", {})["sha256"] == build.build(plan, tmp_path / "two", {}, 2)["sha256"]


def test_an_unfinished_build_of_other_arguments_is_refused(tmp_path, plan_of, monkeypatch):
    def stop(plan, draw):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "make_item", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(plan_of(num=2), tmp_path / "set", {})
    with pytest.raises(UserError, match="unfinished build of other files or arguments"):
        build.build(plan_of(num=2, seed=1), tmp_path / "set", {})


def test_a_long_recording_is_read_in_part(tmp_path, monkeypatch):
    clip = Clip(save(tmp_path / "long.wav", 60.0, rate=RATE), "a", "long", "test", RATE, 60.0)
    samples, offset = make._read_stretch(clip, RATE, RATE, 2.0, np.random.default_rng(0))
    assert len(samples) < 6 * RATE
    assert offset > 0


def test_the_manifest_keeps_the_columns_of_other_sets(ood):
    with open(ood / "manifest.csv", newline="") as file:
        header = next(csv.reader(file))
    assert header[:7] == ["id", "speech", "noise", "kind", "snr_db", "seconds", "ref_seconds"]
    assert rms(part(ood, "ref", read_rows(ood)[0]["id"])) > SILENCE_RMS
