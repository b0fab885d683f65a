"""Test sets: balance, references under every protocol, provenance, interruption."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from noise_classes import KINDS, RATE, white, write_corpus
from small_corpora import save

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora, listing
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import rms
from sgmse.data.references import leak
from sgmse.data.testsets import build, items, make
from sgmse.data.testsets.build import PROTOCOLS, folder_of, read_rows, set_digest
from sgmse.data.testsets.plan import CHANGES, Recipe, make_plan


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def plan_of(corpus):
    speech = [audio.info(path) for path in listing.find(corpus / "speech")]

    def plan(name="ood", **settings):
        clips = corpora.clips(corpus / "noise")
        recipe = Recipe(name, sample_rate=RATE, **settings)
        return make_plan(recipe, corpus / "speech", speech, corpus / "noise", clips)

    return plan


def test_classes_ratios_sources_and_speech_are_used_equally_often(plan_of):
    draws = plan_of(num=18).draws
    counts = Counter((draw.clips[0].kind, draw.snr_db) for draw in draws)
    assert counts == {(kind, snr): 2 for kind in KINDS for snr in (0.0, 5.0, 10.0)}
    assert set(Counter(draw.clips[0].path for draw in draws).values()) == {2}
    assert set(Counter(draw.speech for draw in draws).values()) == {3}


def test_an_item_depends_on_the_seed_and_not_on_how_many_follow(plan_of):
    assert plan_of(num=5).draws == plan_of(num=20).draws[:5] != plan_of(num=5, seed=1).draws


def test_the_two_noises_of_an_item_are_of_two_classes(plan_of):
    draws = plan_of("nonstationary", num=30).draws
    assert Counter(draw.change for draw in draws) == dict.fromkeys(CHANGES, 10)
    assert all(len({clip.kind for clip in draw.clips}) == len(draw.clips) for draw in draws)


@pytest.fixture(scope="module")
def ood(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "ood"
    clips = corpora.clips(corpus / "noise")
    speech = [audio.info(path) for path in listing.find(corpus / "speech")]
    plan = make_plan(Recipe("ood", num=9, sample_rate=RATE), corpus / "speech", speech, corpus / "noise", clips)
    build.build(plan, out, {})
    return out


def part(folder: Path, name: str, item: str) -> np.ndarray:
    return audio.read(folder / name / f"{item}.flac", RATE)


def level_db(a: np.ndarray, b: np.ndarray) -> float:
    return 20 * np.log10(rms(a) / rms(b))


def test_a_manifest_that_is_missing_or_names_an_item_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.csv: is missing"):
        build.read_rows(tmp_path)
    (tmp_path / "manifest.csv").write_text("id,snr_db\na,0\nb,5\na,10\n")
    with pytest.raises(UserError, match="2 rows have the id a"):
        build.read_rows(tmp_path)


def test_signals_ratios_and_references_are_those_of_the_manifest(ood):
    rows = {row["id"]: row for row in read_rows(ood)}
    assert list(rows["ood_000"])[:7] == ["id", "speech", "noise", "kind", "snr_db", "seconds", "ref_seconds"]
    for name, row in rows.items():
        clean, noise, noisy, reference = (part(ood, kind, name) for kind in ("clean", "noise", "noisy", "ref"))
        assert np.abs(clean + noise - noisy).max() < 2 / 2**15
        assert level_db(clean, noise) == pytest.approx(float(row["snr_db"]), abs=0.05)
        assert float(row["ref_seconds"]) == pytest.approx(len(reference) / RATE, abs=1e-4)
        assert not leak.score(reference, noise, RATE).shared
        assert row["leak_shared"] == "0"
        assert leak.score(part(ood, "ref_oracle", name), noise, RATE).peak > 0.99
        for protocol in ("same_class", "mismatched"):
            other = rows[row[f"{protocol}_from"]]
            assert (other["kind"] == row["kind"]) == (protocol == "same_class")
            assert other["source"] != row["source"]
            borrowed = part(ood, folder_of(protocol), name)
            assert level_db(borrowed, noise) == pytest.approx(0, abs=1.5)  # all noises are white


def test_offsets_lead_back_to_the_source(ood, corpus):
    for row in read_rows(ood):
        source = items.without_rumble(audio.read(corpus / "noise" / row["noise_file"], RATE), RATE)
        for name, column in (("ref", "ref_start"), ("noise", "noise_start")):
            written = part(ood, name, row["id"])[: RATE // 5]
            there = source[int(row[column]) :][: len(written)]
            assert np.corrcoef(written, there)[0, 1] > 0.99


def test_the_set_says_what_it_lacks_and_hashes_every_file(ood):
    content = json.loads((ood / "set.json").read_text())
    assert content["sha256"] == set_digest(ood)
    assert set(content["protocols"]) == set(PROTOCOLS) - {"other_take"}
    assert "9 of 9" in content["not_built"]["other_take"]
    assert not (ood / "ref_other_take").exists()
    assert not list(ood.rglob(".*"))
    (ood / "copy").mkdir()
    (ood / "copy" / "x.flac").write_bytes(b"x")
    assert set_digest(ood) != content["sha256"]
    (ood / "copy" / "x.flac").unlink()
    (ood / "copy").rmdir()


def test_nonstationary_items_have_a_timeline_and_references_of_what_sounds_before(tmp_path, plan_of):
    out = tmp_path / "set"
    build.build(plan_of("nonstationary", num=6), out, {})
    for row in read_rows(out):
        assert row["change"] in CHANGES
        assert len(row["kind"].split("+")) == (1 if row["change"] == "ramp" else 2)
        assert len(row["ref_source"].split("+")) == (2 if row["change"] == "concat" else 1)
        clean, noise = part(out, "clean", row["id"]), part(out, "noise", row["id"])
        assert level_db(clean, noise) == pytest.approx(float(row["snr_db"]), abs=0.05)
        assert row["timeline"].startswith("0.00-")


def test_other_takes_serve_as_references_where_every_source_has_two(tmp_path):
    speech = [audio.info(save(tmp_path / f"speech/{n}.wav", 1.0, rate=RATE)) for n in range(4)]
    clips = []
    for number in range(8):
        path = save(tmp_path / f"noise/{number}.wav", samples=white(3, 11, number))
        clips.append(Clip(path, f"k{number % 2}", f"source{number // 2 % 2}{number % 2}", "test", RATE, 3.0))
    plan = make_plan(Recipe("ood", sample_rate=RATE), tmp_path / "speech", speech, tmp_path / "noise", clips)
    content = build.build(plan, tmp_path / "set", {})
    assert content["protocols"] == list(PROTOCOLS)
    for row in read_rows(tmp_path / "set"):
        taken, noise = (part(tmp_path / "set", name, row["id"]) for name in ("ref_other_take", "noise"))
        assert not leak.score(taken, noise, RATE).shared


def test_of_a_long_recording_a_part_is_read(tmp_path, monkeypatch):
    speech = [audio.info(save(tmp_path / "speech/s.wav", 1.0, rate=RATE))]
    clip = Clip(save(tmp_path / "noise/long.wav", 60.0, rate=RATE), "a", "long", "test", RATE, 60.0)
    plan = make_plan(Recipe("ood", sample_rate=RATE), tmp_path / "speech", speech, tmp_path / "noise", [clip])
    lengths, read = [], audio.read
    monkeypatch.setattr(audio, "read", lambda *given: (waveform := read(*given), lengths.append(len(waveform)))[0])
    assert int(make.make_item(plan, plan.draws[0]).row["noise_start"]) > 0
    assert max(lengths) < 6 * RATE


def test_a_kill_as_the_folder_was_renamed_leaves_nothing_for_good(tmp_path, plan_of):
    build.build(plan_of(num=3), tmp_path / "set", {})
    (tmp_path / "set" / ".build").mkdir()
    build.build(plan_of(num=3), tmp_path / "set", {})
    assert not (tmp_path / "set" / ".build").exists()


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
    with pytest.raises(UserError, match="unfinished build of other files or arguments"):
        build.build(plan_of(num=6, seed=1), tmp_path / "set", {})
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
