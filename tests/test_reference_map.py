"""The map of where a reference pays: differences put into tables of scores come out of it, and wrong folders do not."""

import pandas as pd
import pytest
from commands import call, refusal

from scripts import reference_map
from sgmse.diagnostics.use import COLUMNS

FILES = [f"f{place}.flac" for place in range(8)]


def result(folder, baseline, matched, mismatched, seeds=(0,), files=FILES):
    """scores.csv with these PESQ scores: the files of class `hum` as given, those of `rain` 0.1 more when matched."""
    rows = []
    systems = {"baseline": baseline, "matched": matched, "mismatched": mismatched, "estimated": matched - 0.05}
    for seed in seeds:
        for system, pesq in systems.items():
            for place, name in enumerate(files):
                rain = place % 2 == 1
                told = {"file": name, "kind": "rain" if rain else "hum", "source": name, "snr_db": 5.0 * (place // 4)}
                moved = pesq + 0.01 * (place % 4 // 2) * (system == "matched") + 0.1 * (rain and system == "matched")
                told |= {"checkpoint": f"{folder}{system}{seed}", "system": system, "seed": seed, "pesq": moved}
                told |= {"estoi": 0.5, "si_sdr": 10 * pesq, "nfe": 1, "passes": 1, "guidance_scale": 1.0, "N": 1}
                rows.append(told | {"leak": 0.1, "leak_shared": False})
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "scores.csv", index=False)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two trainings on two sets; on `id` the second one's baseline is 0.4 PESQ better and its reference gives less."""
    result(tmp_path / "narrow" / "id", 1.2, 1.5, 1.1)
    result(tmp_path / "narrow" / "ood", 1.2, 1.3, 1.2)
    result(tmp_path / "diverse" / "id", 1.6, 1.7, 1.6)
    result(tmp_path / "diverse" / "ood", 1.3, 1.3, 1.2)
    return [tmp_path / training / name for training in ("narrow", "diverse") for name in ("id", "ood")]


def rows(out, **chosen):
    table = pd.read_csv(out / "map.csv")
    for name, value in chosen.items():
        table = table[table[name] == value]
    return table


def test_the_map_holds_what_the_reference_adds_and_what_the_training_does(folders, tmp_path, capsys):
    printed = call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    whole = rows(tmp_path / "map", set="id", by="all", metric="pesq").set_index(["training", "difference"])["mean"]
    moved = 0.05 + 0.005  # by the matched reference: half of the files 0.1, half 0.01
    assert whole.to_dict() == pytest.approx(
        {
            ("narrow", "matched − baseline"): 0.3 + moved,
            ("narrow", "matched − mismatched"): 0.4 + moved,
            ("narrow", "matched − estimated"): 0.05 + moved,
            ("narrow", "estimated − baseline"): 0.3 - 0.05,
            ("diverse", "matched − baseline"): 0.1 + moved,
            ("diverse", "matched − mismatched"): 0.1 + moved,
            ("diverse", "matched − estimated"): 0.05 + moved,
            ("diverse", "estimated − baseline"): 0.1 - 0.05,
            ("diverse", "baseline − baseline of narrow"): 0.4,
            ("diverse", "baseline − matched of narrow"): 0.1 - moved,
            ("diverse", "matched − matched of narrow"): 0.2,
        }
    )
    assert printed.startswith("# Where a reference pays")
    assert (tmp_path / "map" / "map.md").read_text() in printed
    written = {"map.md", "map.csv", "map.png", "class.png", "snr.png"}
    assert {path.name for path in (tmp_path / "map").iterdir()} == written


def test_a_table_in_which_no_interval_excludes_0_is_left_out(tmp_path, capsys):
    folder = result(tmp_path / "narrow" / "id", 1.2, 1.5, 1.1)
    table = pd.read_csv(folder / "scores.csv")
    gains = [0.2, 0.2, -0.2, -0.2] * 2  # none on average, in every class and at every SNR
    table.loc[table["system"] == "matched", "pesq"] = [1.2 + gain for gain in gains]
    table.to_csv(folder / "scores.csv", index=False)
    printed = call(reference_map.main, capsys, folder, "--out", tmp_path / "map")
    assert printed.count("0 of 2 intervals exclude 0") == 2
    assert "| rain" not in printed
    assert len(rows(tmp_path / "map", by="class", metric="pesq", difference="matched − baseline")) == 2


def test_classes_and_snrs_of_each_set_have_rows_of_their_own(folders, tmp_path, capsys):
    printed = call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    by_class = rows(tmp_path / "map", by="class", training="narrow", difference="matched − baseline", metric="pesq")
    means = by_class.set_index(["set", "group"])["mean"]
    assert means["id", "hum"] == pytest.approx(0.305)
    assert means["id", "rain"] == pytest.approx(0.405)
    assert means["ood", "hum"] == pytest.approx(0.105)
    assert by_class["files"].tolist() == [4, 4, 4, 4]
    assert set(rows(tmp_path / "map", by="SNR dB")["group"]) == {"0", "5"}
    assert "7 of 8 intervals exclude 0; where nothing is, 0.4 would on average." in printed


def test_any_training_can_be_the_one_that_others_are_held_against(folders, tmp_path, capsys):
    call(reference_map.main, capsys, *folders, "--against", "diverse", "--out", tmp_path / "map")
    found = rows(tmp_path / "map", by="all", metric="si_sdr", difference="baseline − baseline of diverse")
    assert found.set_index(["training", "set"])["mean"].to_dict() == pytest.approx(
        {("narrow", "id"): -4.0, ("narrow", "ood"): -1.0}
    )


def test_one_baseline_of_two_models_is_held_against_itself_nowhere(folders, tmp_path, capsys):
    for name in ("id", "ood"):
        narrow, diverse = (pd.read_csv(tmp_path / training / name / "scores.csv") for training in ("narrow", "diverse"))
        same = pd.concat([diverse[diverse["system"] != "baseline"], narrow[narrow["system"] == "baseline"]])
        same.to_csv(tmp_path / "diverse" / name / "scores.csv", index=False)
    call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    told = set(rows(tmp_path / "map", training="diverse")["difference"])
    within = {"matched − baseline", "matched − mismatched", "matched − estimated", "estimated − baseline"}
    assert told == within | {"matched − matched of narrow", "baseline − matched of narrow"}


def test_seeds_are_counted_and_paired_and_told_with_the_sampling(tmp_path, capsys):
    folders = [result(tmp_path / training / "id", 1.2, 1.5, 1.1, seeds=(0, 1)) for training in ("narrow", "diverse")]
    printed = call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    assert set(rows(tmp_path / "map")["seeds"]) == {2}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "narrow " in line]
    assert cells[0] == ["narrow", "0, 1", "0, 1", "1", "1"], "seeds, those of the baseline, N, w"


def test_groups_of_which_the_other_training_has_no_file_are_left_out(tmp_path, capsys):
    folders = [
        result(tmp_path / "few" / "id", 1.2, 1.5, 1.1, files=FILES[::2]),
        result(tmp_path / "all" / "id", 1, 2, 1),
    ]
    call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    found = rows(tmp_path / "map", difference="matched − matched of few", metric="pesq").set_index(["by", "group"])
    assert found["files"].to_dict() == {("all", "all"): 4, ("SNR dB", "0"): 2, ("SNR dB", "5"): 2, ("class", "hum"): 4}


def test_files_whose_matched_reference_leaks_do_not_count(folders, tmp_path, capsys):
    path = tmp_path / "narrow" / "id" / "scores.csv"
    table = pd.read_csv(path)
    table.loc[(table["system"] == "matched") & (table["file"] == "f1.flac"), "leak_shared"] = True
    table.to_csv(path, index=False)
    call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    found = rows(tmp_path / "map", training="narrow", set="id", by="all", metric="pesq")
    assert set(found["files"]) == {7}


REFUSED = [
    ("NOTHING", "holds no scores.csv"),
    ("narrow/id narrow/id", "narrow/id is there twice"),
    ("narrow/id diverse/id --against wide", "--against wide: none of the trainings narrow, diverse"),
    ("narrow/id files/id", "id: files and narrow were scored on different files"),
    ("seeds/id", "seeds/id: scores.csv holds two checkpoints of one seed as baseline"),
    ("bare/id", "bare/id: holds no scores of matched references and of a baseline"),
    ("leaks/id", "leaks/id: every matched reference shares samples"),
    ("narrow/id --out FILE", "FILE/results: cannot be written"),
    ("", "FOLDERS"),
]


@pytest.mark.parametrize(("words", "culprit"), REFUSED)
def test_folders_that_cannot_be_compared_are_refused(words, culprit, folders, tmp_path, capsys):
    result(tmp_path / "files" / "id", 1.2, 1.5, 1.1, files=["x.flac", "y.flac"])
    table = pd.read_csv(folders[0] / "scores.csv")
    changed = {
        "seeds": pd.concat([table, table.assign(checkpoint="another")]),
        "bare": table[table["system"] != "baseline"],
        "leaks": table.assign(leak_shared=True),
    }
    for name, rows in changed.items():
        (tmp_path / name / "id").mkdir(parents=True)
        rows.to_csv(tmp_path / name / "id" / "scores.csv", index=False)
    (tmp_path / "FILE").write_text("")
    paths = [word if word.startswith("--") or word == "wide" else tmp_path / word for word in words.split()]
    out = () if "--out" in words else ("--out", tmp_path / "map")
    assert culprit in refusal(reference_map.main, capsys, *paths, *out)
    assert not list(tmp_path.glob("map/*"))
