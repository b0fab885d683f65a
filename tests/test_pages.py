"""The page of a set: what it compares, what it shows of files, before and after without clean files, what it weighs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from commands import call, refusal
from PIL import Image

from sgmse.commands import evaluate
from sgmse.commands.evaluate import named_systems
from sgmse.data import audio
from sgmse.evaluation import figures, listening, page, scores, set_page
from sgmse.evaluation.metrics import METRICS

RATE = 16000
KINDS, SNRS = ("rain", "dog"), (0, 5, 10)


def write_set(folder: Path, files: int = 4, seconds: float = 1.0) -> None:
    """clean/, noisy/, ref/ of tones in noise, two systems that remove a part of the noise, and a manifest."""
    rng, rows = np.random.default_rng(0), []
    time = np.arange(round(seconds * RATE)) / RATE
    for place in range(files):
        clean = 0.3 * np.sin(2 * np.pi * (300 + 100 * place) * time) * np.sin(2 * np.pi * 3 * time) ** 2
        noise = 0.05 * rng.standard_normal(len(time))
        signals = {"clean": clean, "noisy": clean + noise, "ref": 0.05 * rng.standard_normal(RATE // 2)}
        signals |= {"half": clean + 0.5 * noise, "all": clean + 0.1 * noise}
        for name, waveform in signals.items():
            audio.write(folder / name / f"f{place}.wav", waveform, RATE)
        rows.append((f"f{place}", f"n{place}", KINDS[place % 2], SNRS[place % 3]))
    pd.DataFrame(rows, columns=["id", "source", "kind", "snr_db"]).to_csv(folder / "manifest.csv", index=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_set(folder)
    return folder


def made_scores(systems: list[str], gains: dict[str, float]) -> pd.DataFrame:
    """Scores as `scores.evaluate` returns them, drawn instead of measured."""
    rng = np.random.default_rng(1)
    rows = [
        {"system": name, "file": f"f{place}", "seconds": 1.0, "source": f"n{place}", "reason": ""}
        | {"pesq": 1.5 + gains.get(name, 0) + rng.normal(0, 0.02), "estoi": 0.7, "si_sdr": 5.0}
        for name in systems
        for place in range(4)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def scored(folders: Path) -> Path:
    """The page of two systems beside the noisy files."""
    frame = made_scores(["noisy", "half", "all"], {"half": 0.5, "all": 0.5})
    systems = {name: folders / name for name in ("half", "all")}
    where = (folders / "noisy", folders / "clean", folders / "ref")
    return set_page.write_page(folders / "page", frame, systems, *where, max_items=3).parent


@pytest.fixture(scope="module")
def before_after(folders: Path) -> Path:
    systems = {"half": folders / "half"}
    frame = scores.measure_removed(folders / "noisy", systems)
    return set_page.write_page(folders / "before_after", frame, systems, folders / "noisy", max_items=2).parent


def content(folder: Path) -> dict:
    """What the script of a page reads."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_differences_come_before_scores_and_scores_before_files(scored: Path) -> None:
    text = (scored / "index.html").read_text(encoding="utf-8")
    titles = [re.sub("<.*?>", "", title) for title in re.findall("<h2.*?</h2>", text)]
    assert titles == ["Systems against each other", "Gain over the noisy files", "Scores", "Listen", "Settings"]
    assert text.count("undecided</span>") == 1  # all − half
    assert text.count("better</span>") == 2
    for stem in ("forest", "gain", "means"):
        for metric in ("pesq", "estoi", "si_sdr"):
            with Image.open(scored / f"{stem}_{metric}.png") as picture:
                assert picture.width > 600


def test_a_page_needs_nothing_outside_its_folder(scored: Path, before_after: Path) -> None:
    for folder in (scored, before_after):
        text = (folder / "index.html").read_text(encoding="utf-8")
        assert "http" not in text
        for link in re.findall('(?:src|href)="([^"#]+)"', text):
            assert link.startswith("data:") or (folder / link).is_file()
        panels = [panel for item in content(folder)["items"] for panel in item["panels"].values()]
        for panel in [*panels, *(panel["removed"] for panel in panels if "removed" in panel)]:
            assert soundfile.info(folder / panel["sound"]).duration == pytest.approx(panel["seconds"], abs=1e-3)
            assert (folder / panel["picture"]).stat().st_size < 30_000


def test_every_file_has_its_kind_of_noise_its_snr_and_its_scores(scored: Path) -> None:
    data = content(scored)
    assert len(data["items"]) == 3
    for item in data["items"]:
        place = int(item["file"][1:])
        assert (item["kind"], item["snr"]) == (KINDS[place % 2], SNRS[place % 3])
        assert list(item["panels"]) == ["clean", "noisy", "half", "all", "reference"]
        assert item["panels"]["all"]["scores"][0].startswith("PESQ 2.")
    rows = data["table"]["rows"]
    assert [row["file"] for row in rows] == ["f0", "f1", "f2", "f3"]
    assert len(rows[0]["values"]["pesq"]) == len(data["table"]["systems"]) == 3


def test_files_span_the_ranking_from_worst_to_best() -> None:
    gains = pd.Series(np.linspace(-1, 1, 9), index=[f"f{place}" for place in range(9)]).sample(frac=1, random_state=0)
    assert listening.choose_items(gains, 3) == ["f0", "f4", "f8"]
    assert listening.choose_items(gains, 100) == [f"f{place}" for place in range(9)]


def test_the_figure_shows_the_median_of_the_files_that_have_a_score(folders: Path, monkeypatch) -> None:
    frame, drawn = made_scores(["noisy", "half"], {}), []
    gains = {"f0": -0.2, "f1": 0.0, "f2": 1.5, "f3": float("nan")}
    frame.loc[frame["system"] == "half", "pesq"] = 1.5 + np.array(list(gains.values()))
    frame.loc[frame["system"] == "noisy", "pesq"] = 1.5
    monkeypatch.setattr("sgmse.evaluation.set_files._draw_figure", lambda out, file, *_: drawn.append(file))
    systems = {"half": folders / "half"}
    set_page.write_page(folders / "median", frame, systems, folders / "noisy", folders / "clean", max_items=1)
    assert drawn == ["f1"]


def test_a_folder_that_is_called_as_the_clean_files_are_is_a_system_like_others(folders: Path, monkeypatch) -> None:
    monkeypatch.chdir(folders)
    assert not {"clean", "reference"} & named_systems([Path("clean"), Path("half")]).keys()


def test_names_of_systems_may_hold_anything(folders: Path, tmp_path: Path) -> None:
    systems = {"half <b>": folders / "half", "half >b>": folders / "noisy"}  # names that differ in a sign
    frame = made_scores(list(systems), {})
    out = set_page.write_page(tmp_path / "page", frame, systems, None, folders / "clean", max_items=1).parent
    assert "<b>" not in re.sub("<b>[^<]*</b>", "", (out / "index.html").read_text(encoding="utf-8"))
    panels = content(out)["items"][0]["panels"]
    sounds = [(out / panels[name]["sound"]).read_bytes() for name in systems]
    assert sounds[0] != sounds[1]


def test_metrics_that_need_no_clean_file_stand_beside_what_was_removed(folders: Path, tmp_path: Path) -> None:
    frame = made_scores(["noisy", "half"], {})[["system", "file", "seconds", "source"]]
    removed = scores.measure_removed(folders / "noisy", {"half": folders / "half"}).drop(columns="seconds")
    frame = frame.assign(dnsmos_sig=3.0, dnsmos_ovrl=2.5).merge(removed, "left")
    systems = {"half": folders / "half"}
    out = set_page.write_page(tmp_path / "page", frame, systems, folders / "noisy", max_items=1).parent
    words = content(out)["items"][0]["panels"]["half"]["scores"]
    assert words[:2] == ["DNSMOS SIG 3.00", "DNSMOS OVRL 2.50"]
    assert words[2].startswith("removed ")
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "the scores come from the recordings alone" in text
    assert "gain_dnsmos_ovrl.png" in text


@pytest.mark.parametrize("value", [1.5, np.nan])
def test_the_noisy_files_alone_have_a_page_scored_or_not(folders: Path, tmp_path: Path, value: float) -> None:
    frame = made_scores(["noisy"], {}).assign(pesq=value, estoi=value, si_sdr=value)
    out = set_page.write_page(tmp_path / "page", frame, {}, folders / "noisy", folders / "clean", max_items=1).parent
    assert content(out)["views"][0]["systems"] == ["noisy"]
    assert "Systems against" not in (out / "index.html").read_text(encoding="utf-8")


def test_what_can_be_compared_are_all_systems_each_pair_and_each_with_noisy() -> None:
    labels = [view["label"] for view in listening.make_views(["a", "b", "c"], has_noisy=True)]
    assert labels[0] == "all 3 systems"
    assert labels[1:4] == ["b against a", "c against a", "c against b"]
    assert labels[4:] == [f"{name} against noisy" for name in "abc"]
    assert [view["systems"] for view in listening.make_views(["a"], has_noisy=False)] == [["a"]]


def test_without_clean_files_the_page_shows_what_was_removed(folders: Path, before_after: Path) -> None:
    text = (before_after / "index.html").read_text(encoding="utf-8")
    assert "PESQ" not in text
    for item in content(before_after)["items"]:
        panel = item["panels"]["half"]
        noisy, half = (audio.read(folders / name / f"{item['file']}.wav", RATE) for name in ("noisy", "half"))
        assert panel["value"] == pytest.approx(100 * np.sum((noisy - half) ** 2) / np.sum(noisy**2), rel=1e-3)
        removed = audio.read(before_after / panel["removed"]["sound"], RATE)[: len(noisy)]
        assert np.corrcoef(removed, noisy - half)[0, 1] > 0.8  # Opus keeps no waveform of noise


def test_versions_are_cut_at_one_moment_and_keep_their_levels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = np.concatenate([0.01 * rng.standard_normal(3 * RATE), 0.4 * rng.standard_normal(RATE)])
    audio.write(tmp_path / "noisy.wav", noisy, RATE)
    audio.write(tmp_path / "loud.wav", 3 * noisy, RATE)
    sounds = {name: tmp_path / f"{name}.wav" for name in ("noisy", "loud")}
    item = listening.write_versions(tmp_path / "out", "media/0", sounds, excerpt_s=1.0)
    assert item["excerpt"] == "3.00–4.00 s of 4.0 s"
    found = {name: audio.read(tmp_path / "out" / panel["sound"], RATE) for name, panel in item["panels"].items()}
    assert np.abs(found["loud"]).max() <= 1.1  # Opus overshoots a little
    assert np.std(found["loud"]) / np.std(found["noisy"]) == pytest.approx(3, rel=0.1)


def test_silence_can_be_shown(tmp_path: Path) -> None:
    audio.write(tmp_path / "noisy.wav", np.zeros(RATE), RATE)
    item = listening.write_versions(tmp_path / "out", "0", {"noisy": tmp_path / "noisy.wav"})
    assert (tmp_path / "out" / item["panels"]["noisy"]["picture"]).is_file()


def test_a_picture_is_small_and_shows_a_tone_at_its_frequency(tmp_path: Path) -> None:
    time = np.arange(4 * RATE) / RATE
    spectrum = figures.spectrum_db(np.sin(2 * np.pi * 2000 * time), RATE)
    figures.save_spectrum(spectrum, float(spectrum.max()), tmp_path / "tone.webp")
    with Image.open(tmp_path / "tone.webp") as picture:
        assert max(picture.size) <= 400
        brightness = np.asarray(picture.convert("L"), dtype=float).mean(axis=1)
        assert brightness.argmax() == pytest.approx(0.75 * picture.height, abs=1.5)  # 2 of 8 kHz, low ones below


def test_without_opus_sounds_are_flac_and_weigh_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = listening.estimate_bytes(4)
    monkeypatch.setattr(listening, "has_opus", lambda: False)
    write_set(tmp_path, files=1)
    item = listening.write_versions(tmp_path / "out", "0", {"noisy": tmp_path / "noisy" / "f0.wav"})
    assert item["panels"]["noisy"]["sound"] == "0_00.flac"
    assert listening.estimate_bytes(4) > 2 * heavy
    assert not page.listening_data([], [], {})["opus"], "the page says so"


def test_a_difference_is_better_worse_or_undecided_by_the_way_of_its_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"mean": [1.0, -1.0, 0.1], "low": [0.5, -1.5, -0.5], "high": [1.5, -0.5, 0.7]})
    judged = figures.judge_differences(rows, "pesq")
    assert judged["verdict"].tolist() == ["better", "worse", "undecided"]
    assert judged["is_filled"].tolist() == [True, True, False]
    word_errors = dataclasses.replace(METRICS["pesq"], higher_is_better=False)
    monkeypatch.setitem(METRICS, "pesq", word_errors)
    assert figures.judge_differences(rows, "pesq")["verdict"].tolist() == ["worse", "better", "undecided"]


def test_a_folder_that_is_no_page_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(page.UserError, match=r"choose another --page"), page.page_folder(tmp_path, "--page"):
        pass
    assert (tmp_path / "thesis.txt").exists()


def test_the_command_makes_a_page_without_clean_files(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--noisy_dir", folders / "noisy", "--enhanced_dir", folders / "half", "--max_items", 1)
    printed = call(evaluate.main, capsys, *flags, "--page", tmp_path / "page", "--csv", tmp_path / "levels.csv")
    assert re.search(r"half: \d+\.\d % of the noisy files' energy removed", printed)
    assert (tmp_path / "page" / "index.html").is_file()
    assert list(pd.read_csv(tmp_path / "levels.csv")["file"]) == ["f0", "f1", "f2", "f3"]


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        ("--noisy_dir noisy", "--enhanced_dir"),
        ("--noisy_dir noisy --enhanced_dir ref", "f0.wav: has 8000 samples, but"),
        ("--noisy_dir noisy --enhanced_dir half --metrics right_talker", "--clean_dir"),
        ("--noisy_dir noisy --enhanced_dir short", "have no counterpart here"),
        ("--noisy_dir missing --enhanced_dir half", "missing: no such folder"),
        ("--noisy_dir noisy --enhanced_dir half --excerpt_s 0", "--excerpt_s"),
        ("--noisy_dir noisy --enhanced_dir half --page noisy", "noisy: exists and is no page"),
    ],
)
def test_mistakes_are_one_sentence(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: str, culprit: str
) -> None:
    audio.write(folders / "short" / "f0.wav", np.ones(RATE) * 0.1, RATE)
    monkeypatch.chdir(folders)
    assert culprit in refusal(evaluate.main, capsys, *flags.split(), strict=False)
