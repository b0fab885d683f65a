"""Tables from folders of audio, and the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call, refusal

import sgmse
from sgmse.commands import evaluate
from sgmse.common.errors import UserError
from sgmse.common.files import write_csv
from sgmse.data import audio, listing
from sgmse.data.references import leak
from sgmse.evaluation import leakage, metrics
from sgmse.evaluation import scores as evaluation
from sgmse.evaluation.tables import print_table, scores_table

TEST_SET = Path(sgmse.__file__).parent / "data" / "embedded" / "test"
ROOT = Path(__file__).parent.parent
FILES = 3


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """clean/, noisy/, ref/ of a few files, and half/ where half of the noise is gone, plus a steady hiss."""
    names = [path.name for path in listing.find(TEST_SET / "clean")[:FILES]]
    for part in ("clean", "noisy", "ref"):
        (tmp_path / part).mkdir()
        for name in names:
            shutil.copy(TEST_SET / part / name, tmp_path / part / name)
    for name in names:
        clean, noisy = (audio.read(tmp_path / part / name, 16000) for part in ("clean", "noisy"))
        hiss = 1e-3 * np.random.default_rng(0).normal(size=len(clean))
        audio.write(tmp_path / "half" / Path(name).with_suffix(".wav"), (clean + noisy) / 2 + hiss, 16000)
    return tmp_path


def table() -> pd.DataFrame:
    """Made-up scores of two systems; b lacks PESQ for one file."""
    rows = [
        ("a", 1.0, 10.0),
        ("a", 2.0, 20.0),
        ("a", 3.0, 60.0),
        ("b", 1.5, 11.0),
        ("b", np.nan, 22.0),
        ("b", 2.0, 63.0),
    ]
    frame = pd.DataFrame(rows, columns=["system", "pesq", "si_sdr"]).reindex(columns=evaluation.columns())
    return frame.assign(file=["x", "y", "z"] * 2, reason="", seconds=1.0)


def test_the_noisy_system_comes_first_and_scores_are_those_of_the_metrics(folders: Path) -> None:
    frame = evaluation.evaluate(folders / "clean", {"half": folders / "half"}, folders / "noisy", jobs=2)
    assert list(frame["system"]) == ["noisy"] * FILES + ["half"] * FILES
    name = frame["file"].iloc[0]
    clean, noisy = (audio.read(folders / part / f"{name}.flac", 16000) for part in ("clean", "noisy"))
    half = audio.read(folders / "half" / f"{name}.wav", 16000)
    expected = metrics.score(clean, half, 16000, noisy)
    row = frame.iloc[FILES]
    for metric in metrics.STANDARD:  # sums round by the number of threads
        assert row[metric] == pytest.approx(expected[metric], rel=1e-12)
    assert row["seconds"] == pytest.approx(len(clean) / 16000, abs=1e-3)
    gain = evaluation.paired(frame, "half", "noisy").set_index("metric").loc["si_sdr"]
    assert gain["mean"] == pytest.approx(6, abs=0.5)


def test_a_flat_folder_matches_a_nested_one_by_name(folders: Path) -> None:
    nested = folders / "nested" / "speaker"
    shutil.copytree(folders / "clean", nested)
    found = evaluation.match(folders / "nested", folders / "half", "half")
    assert list(found) == [f"speaker/{path.stem}" for path in listing.find(folders / "clean")]
    assert [path.stem for path in found.values()] == [Path(key).name for key in found]


def test_files_at_another_common_rate_are_resampled_and_this_is_said(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("clean", "noisy"):
        for path in listing.find(folders / part):
            audio.write(folders / "48k" / part / path.name, audio.read(path, 48000), 48000)
    at_48k = evaluation.evaluate(folders / "48k" / "clean", {}, folders / "48k" / "noisy", jobs=1)
    assert "48000 Hz are resampled to 16000 Hz" in capsys.readouterr().out
    at_16k = evaluation.evaluate(folders / "clean", {}, folders / "noisy", jobs=1)
    assert capsys.readouterr().out == ""
    assert np.allclose(at_48k["si_sdr"], at_16k["si_sdr"], atol=0.05)
    with pytest.raises(UserError, match=r"16000 Hz, but .* has 48000 Hz"):
        evaluation.evaluate(folders / "48k" / "clean", {"half": folders / "half"}, jobs=1)


@pytest.mark.parametrize(
    ("mishap", "complaint"),
    [
        ("missing", "1 of the 3 files .* have no counterpart"),
        ("extra", "1 files have no counterpart"),
        ("short", "samples, but"),
        ("twice", "could be its partner"),
    ],
)
def test_folders_that_do_not_fit_are_refused(folders: Path, mishap: str, complaint: str) -> None:
    first = listing.find(folders / "half")[0]
    if mishap == "missing":
        first.unlink()
    elif mishap == "short":
        audio.write(first, audio.read(first, None)[:-1], 16000)
    else:
        shutil.copy(first, first.with_name("extra.wav") if mishap == "extra" else first.with_suffix(".flac"))
    with pytest.raises(UserError, match=complaint):
        evaluation.evaluate(folders / "clean", {"half": folders / "half"}, jobs=1)


def test_the_summary_leaves_out_and_counts_files_without_a_score() -> None:
    rows = evaluation.summary(table()).set_index(["system", "metric"])
    assert rows.loc[("a", "pesq"), "mean"] == 2
    assert rows.loc[("b", "pesq"), "mean"] == 1.75
    assert list(rows.loc[("b", "pesq"), ["n_scored", "n_unscored"]]) == [2, 1]
    assert list(rows.loc[("b", "estoi"), ["n_scored", "n_unscored"]]) == [0, 3]


def test_paired_differences_use_the_files_that_both_systems_have() -> None:
    rows = evaluation.paired(table(), "b", "a").set_index("metric")
    assert rows.loc["pesq", "mean"] == pytest.approx((0.5 - 1.0) / 2)
    assert list(rows.loc["pesq", ["n_scored", "n_unscored"]]) == [2, 1]
    assert rows.loc["si_sdr", "mean"] == 2
    low, high = rows.loc["si_sdr", ["low", "high"]].to_numpy(float)
    assert low < 2 < high
    with pytest.raises(UserError, match='no system is named "c"; there are a, b'):
        evaluation.paired(table(), "c", "a")


def test_the_interval_is_that_over_the_sources_of_the_files() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 2, 20).repeat(10) + rng.normal(0, 0.1, 200)
    frame = pd.DataFrame({"system": "a", "file": range(200), "pesq": values})
    by_file, by_source = (
        evaluation.summary(table).set_index("metric").loc["pesq"]
        for table in (frame, frame.assign(source=np.arange(200) // 10))
    )
    assert (by_file["mean"], by_source["mean"]) == pytest.approx((values.mean(), values.mean()))
    assert by_file["high"] - by_file["low"] == pytest.approx(3.94 * values.std() / np.sqrt(200), rel=0.01)
    assert by_source["high"] - by_source["low"] > 3 * (by_file["high"] - by_file["low"])


@pytest.mark.parametrize("column", ["noise", "source"])
def test_sources_come_from_the_manifest_beside_the_folder(folders: Path, column: str) -> None:
    expected = ["rain", "rain", "dog"]
    names = [path.stem for path in listing.find(folders / "clean")]
    rows = zip(names, expected, strict=True)
    (folders / "manifest.csv").write_text(f"id,{column}\n" + "".join(f"{name},{noise}\n" for name, noise in rows))
    for folder in (folders / "clean", folders):
        assert list(evaluation.find_sources(folder, pd.Series(names))) == expected
    assert list(evaluation.find_sources(folders / "clean", pd.Series(["other"]))) == ["other"]


def test_rows_of_a_manifest_are_found_by_path_and_whole_name(tmp_path: Path) -> None:
    sources = {"a/1": "rain", "b/1": "rain", "n_2": "dog", "n_2.5": "fan"}
    (tmp_path / "manifest.csv").write_text("id,source\n" + "".join(f"{one},{two}\n" for one, two in sources.items()))
    assert list(evaluation.find_sources(tmp_path, pd.Series([*sources]))) == [*sources.values()]
    assert list(evaluation.find_sources(tmp_path, pd.Series(["x/n_2", "n_2.5"]))) == ["dog", "fan"]
    assert list(evaluation.find_sources(tmp_path, pd.Series(["x/n_2", "y/n_2"]))) == ["x/n_2", "y/n_2"]


def test_the_printed_table_counts_what_could_not_be_scored(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(scores_table(evaluation.summary(table()), "means", "Means"))
    printed = capsys.readouterr().out
    assert "b: PESQ is the mean of 2 files; 1 could not be scored" in printed
    assert "SI-SIR" not in printed
    lines = printed.splitlines()
    assert lines[0].index("PESQ") == lines[1].index("2.000") == lines[2].index("1.750")


def test_run_settings_become_columns_of_their_system_only(tmp_path: Path) -> None:
    settings = {"sampler": "ode", "N": 5, "guidance_scale": 1.5, "seconds": 9, "encoders": ["cnn"]}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    write_csv(evaluation.with_settings(table(), {"b": tmp_path}), tmp_path / "out" / "scores.csv")
    frame = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert frame["N"].isna().tolist() == [True] * 3 + [False] * 3
    row = dict(frame.iloc[3])
    assert (row["sampler"], row["guidance_scale"], row["encoders"], row["run_seconds"]) == ("ode", 1.5, '["cnn"]', 9)
    assert set(frame["seconds"]) == {1.0}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        evaluation.run_settings(tmp_path)


def test_files_of_other_settings_than_those_of_the_run_are_refused_by_name(folders: Path) -> None:
    names = [f"{path.stem}.wav" for path in listing.find(folders / "half")]
    (folders / "half" / "run.json").write_text(json.dumps({"N": 5, "files": dict.fromkeys(names[:2], "")}))
    with pytest.raises(UserError, match=names[2]):
        evaluation.evaluate(folders / "clean", {"half": folders / "half"}, jobs=1)


def test_the_command_prints_tables_and_writes_the_csv(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = call(
        evaluate.main,
        capsys,
        *("--clean_dir", folders / "clean", "--noisy_dir", folders / "noisy", "--enhanced_dir", folders / "half"),
        *("--csv", folders / "scores.csv", "--jobs", "1", "--ref_dir", folders / "ref"),
    )
    assert "half: references: the reference folder's; leak: 0 of 3 share samples with their mixture" in printed
    assert printed.splitlines()[1].startswith("noisy")
    assert "half - noisy" in printed
    assert len(pd.read_csv(folders / "scores.csv")) == 2 * FILES


def test_without_clean_files_only_what_is_asked_for_and_needs_none_is_scored(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    level = metrics.Metric("level", "level dB", 1, False, lambda estimate: 20 * np.log10(estimate.std()), (), 0, "loud")
    monkeypatch.setitem(metrics.METRICS, "level", level)
    folders_named = ("--noisy_dir", folders / "noisy", "--enhanced_dir", folders / "half")
    more = ("--metrics", "loud", "--csv", folders / "scores.csv", "--page", folders / "page", "--jobs", 1)
    printed = call(evaluate.main, capsys, *folders_named, *more)
    assert "level dB" in printed
    assert "half - noisy" in printed
    assert "PESQ" not in printed
    frame = pd.read_csv(folders / "scores.csv")
    assert frame["level"].notna().all()
    assert list(frame["system"]) == ["noisy"] * FILES + ["half"] * FILES
    assert frame.loc[frame["system"] == "half", evaluation.REMOVED].notna().all()
    assert "level dB" in (folders / "page" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        ("--clean_dir clean --enhanced_dir half", "half/"),
        ("--clean_dir clean", "--noisy_dir"),
        ("--clean_dir missing --enhanced_dir half", "missing: no such folder"),
        ("--clean_dir clean --enhanced_dir half --metrics right_talker", "--noisy_dir"),
        ("--clean_dir clean --enhanced_dir half --metrics peqs", "peqs"),
        ("--noisy_dir noisy --enhanced_dir half --metrics speaker_similarity", "--clean_dir"),
        ("--clean_dir clean --enhanced_dir half --ref_dir other --noisy_dir noisy", "other: none of its files"),
        ("--clean_dir clean --noisy_dir noisy --csv other", "--csv other"),
        ("--clean_dir clean --noisy_dir noisy --csv other/elsewhere.flac", "--csv other/elsewhere.flac"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence_with_exit_code_two(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: str, culprit: str
) -> None:
    audio.write(folders / "other/elsewhere.flac", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    listing.find(folders / "half")[0].write_text("no audio")
    monkeypatch.chdir(folders)
    assert culprit in refusal(evaluate.main, capsys, *flags.split(), "--jobs", 1)


def test_the_command_starts_without_what_it_does_not_need() -> None:
    """Loading torch, matplotlib and scipy.signal takes seconds, which --help and refusals need not wait for."""
    script = "import sys, sgmse.commands.evaluate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not {"torch", "matplotlib", "scipy.signal", "pystoi"} & set(loaded.split())


def enhanced(folders: Path, **run: object) -> Path:
    """half/ with a run.json that names references: of the first file a stretch of its own noise."""
    names = [path.stem for path in listing.find(folders / "clean")]
    clean, noisy = (audio.read(folders / part / f"{names[0]}.flac", 16000) for part in ("clean", "noisy"))
    audio.write(folders / "leaking" / f"{names[0]}.flac", (noisy - clean)[4000:16000], 16000)
    references = {f"{name}.wav": str(folders / "ref" / f"{name}.flac") for name in names}
    references[f"{names[0]}.wav"] = str(folders / "leaking" / f"{names[0]}.flac")
    content = {"reference": "disjoint", "references": references, "files": {}, **run}
    (folders / "half" / "run.json").write_text(json.dumps(content))
    return folders / "half"


def scored(folders: Path, **more: Path) -> pd.DataFrame:
    rows = [(system, path.stem) for system in ("noisy", "half") for path in listing.find(folders / "clean")]
    frame = pd.DataFrame(rows, columns=["system", "file"])
    systems = {"half": folders / "half"}
    tasks = leakage.find_references(systems, folders / "clean", folders / "noisy", **more)
    return leakage.with_leaks(frame, tasks, jobs=1)


def test_the_leak_score_of_each_item_is_that_of_the_reference_it_was_enhanced_with(folders: Path) -> None:
    enhanced(folders)
    frame = scored(folders)
    assert frame["leak"].isna().tolist() == [True] * FILES + [False] * FILES
    assert frame["leak_shared"].tolist() == [None] * FILES + [True] + [False] * (FILES - 1)
    name = frame["file"].iloc[-1]
    clean, noisy, reference = (audio.read(folders / p / f"{name}.flac", 16000) for p in ("clean", "noisy", "ref"))
    assert frame["leak"].iloc[-1] == pytest.approx(leak.score(reference, noisy - clean, 16000).peak, abs=1e-4)
    (line,) = leakage.describe_leaks(frame, {"half": folders / "half"})
    first = frame["file"].iloc[0]
    assert line.startswith("half: references: disjoint; leak: 1 of 3 share samples with their mixture (largest")
    assert line.endswith(f": {first})")


def test_a_reference_folder_serves_where_no_run_tells(folders: Path) -> None:
    frame = scored(folders, ref_dir=folders / "ref")
    assert frame["leak"].notna().all()
    assert not any(frame["leak_shared"])
    assert len(leakage.describe_leaks(frame, {"half": folders / "half"})) == 2
    assert scored(folders)["leak"].isna().all()


@pytest.mark.parametrize("protocol", ["none", "self", "estimated"])
def test_what_is_made_from_the_noisy_file_alone_has_no_leak_score(folders: Path, protocol: str) -> None:
    enhanced(folders, reference=protocol, references={"000.wav": "gaps"})
    frame = scored(folders, ref_dir=folders / "ref")
    assert frame["leak"].isna().tolist() == [False] * FILES + [True] * FILES


def test_the_oracle_leaks_by_definition_and_a_lost_reference_is_counted(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [path.stem for path in listing.find(folders / "clean")]
    clean = {f"{name}.wav": str(folders / "clean" / f"{name}.flac") for name in names}
    enhanced(folders, reference="own_noise", references=clean | {f"{names[2]}.wav": "gone.flac"})
    frame = scored(folders).iloc[FILES:]
    assert frame["leak"].tolist()[:2] == [1, 1]
    assert frame["leak"].isna().tolist() == [False, False, True]
    assert "1 of its references are not there any more" in capsys.readouterr().out


def test_what_concerns_single_files_is_no_column_of_the_run(folders: Path) -> None:
    assert evaluation.run_settings(enhanced(folders)) == {"reference": "disjoint"}
