"""The map of where a reference pays: differences put into tables of scores come out of it, and wrong folders do not."""

import pandas as pd
import pytest
from commands import call, refusal

from scripts import reference_map
from sgmse.common.errors import UserError
from sgmse.diagnostics import worth
from sgmse.diagnostics.use import COLUMNS, read_scores

FILES = [f"f{place}.flac" for place in range(8)]


def result(folder, baseline, matched, mismatched, seeds=(0,), files=FILES):
    """scores.csv with these PESQ scores: the files of class `hum` as given, those of `rain` 0.1 more when matched."""
    rows = []
    systems = {"baseline": baseline, "matched": matched, "mismatched": mismatched, "estimated": matched - 0.05}
    fixed = {"estoi": 0.5, "nfe": 1, "passes": 1, "guidance_scale": 1.0, "N": 1, "leak": 0.1, "leak_shared": False}
    for seed in seeds:
        for system, pesq in systems.items():
            for place, name in enumerate(files):
                rain = place % 2 == 1
                moved = pesq + 0.01 * (place % 4 // 2) * (system == "matched") + 0.1 * (rain and system == "matched")
                row = {"file": name, "kind": "rain" if rain else "hum", "source": name, "snr_db": 5.0 * (place // 4)}
                row |= {"checkpoint": f"{folder}{system}{seed}", "system": system, "seed": seed, "pesq": moved}
                rows.append(row | fixed | {"si_sdr": 10 * pesq})
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "scores.csv", index=False)
    return folder


def change(folder, changed):
    """Put what `changed` makes of the scores in their place."""
    table = pd.read_csv(folder / "scores.csv")
    changed(table).to_csv(folder / "scores.csv", index=False)


@pytest.fixture
def folders(tmp_path):
    """Two trainings on two sets; on `id` the second one's baseline is 0.4 PESQ better and its reference gives less."""
    result(tmp_path / "narrow" / "id", 1.2, 1.5, 1.1)
    result(tmp_path / "narrow" / "ood", 1.2, 1.3, 1.2)
    result(tmp_path / "diverse" / "id", 1.6, 1.7, 1.6)
    result(tmp_path / "diverse" / "ood", 1.3, 1.3, 1.2)
    return [tmp_path / training / name for training in ("narrow", "diverse") for name in ("id", "ood")]


def compare(folders, against=None, **chosen):
    """The rows of the map that hold these values."""
    table = worth.compare_trainings(worth.read_scores(folders), against)
    for name, value in chosen.items():
        table = table[table[name] == value]
    return table


def test_the_map_holds_what_the_reference_adds_and_what_the_training_does(folders):
    whole = compare(folders, set="id", by="all", metric="pesq").set_index(["training", "difference"])["mean"]
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


def test_the_command_writes_tables_and_pictures_and_prints_the_tables(folders, tmp_path, capsys):
    printed = call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    assert printed.startswith("# Where a reference pays")
    assert (tmp_path / "map" / "map.md").read_text() in printed
    assert "7 of 8 intervals exclude 0; where nothing is, 0.4 would on average." in printed
    assert len(pd.read_csv(tmp_path / "map" / "map.csv")) == len(compare(folders))
    written = {"map.md", "map.csv", "map.png", "class.png", "snr.png"}
    assert {path.name for path in (tmp_path / "map").iterdir()} == written


def test_a_table_in_which_no_interval_excludes_0_is_left_out(tmp_path, capsys):
    folder = result(tmp_path / "narrow" / "id", 1.2, 1.5, 1.1)
    gains = [0.2, 0.2, -0.2, -0.2] * 2  # none on average, in every class and at every SNR
    pesq = pd.Series([1.2 + gain for gain in gains])
    change(folder, lambda t: t.assign(pesq=t["pesq"].mask(t["system"] == "matched", pesq[t.index % 8].to_numpy())))
    printed = call(reference_map.main, capsys, folder, "--out", tmp_path / "map")
    assert printed.count("0 of 2 intervals exclude 0") == 2
    assert "| rain" not in printed
    assert len(compare([folder], by="class", metric="pesq", difference="matched − baseline")) == 2


def test_classes_and_snrs_of_each_set_have_rows_of_their_own(folders):
    by_class = compare(folders, by="class", training="narrow", difference="matched − baseline", metric="pesq")
    means = by_class.set_index(["set", "group"])["mean"].to_dict()
    expected = {("id", "hum"): 0.305, ("id", "rain"): 0.405, ("ood", "hum"): 0.105, ("ood", "rain"): 0.205}
    assert means == pytest.approx(expected)
    assert by_class["files"].tolist() == [4, 4, 4, 4]
    assert set(compare(folders, by="SNR dB")["group"]) == {"0", "5"}


def test_any_training_can_be_the_one_that_others_are_held_against(folders):
    found = compare(folders, "diverse", by="all", metric="si_sdr", difference="baseline − baseline of diverse")
    means = found.set_index(["training", "set"])["mean"].to_dict()
    assert means == pytest.approx({("narrow", "id"): -4.0, ("narrow", "ood"): -1.0})


def test_one_baseline_of_two_models_is_held_against_itself_nowhere(folders, tmp_path):
    for name in ("id", "ood"):
        narrow, diverse = (pd.read_csv(tmp_path / training / name / "scores.csv") for training in ("narrow", "diverse"))
        same = pd.concat([diverse[diverse["system"] != "baseline"], narrow[narrow["system"] == "baseline"]])
        same.to_csv(tmp_path / "diverse" / name / "scores.csv", index=False)
    within = {"matched − baseline", "matched − mismatched", "matched − estimated", "estimated − baseline"}
    others = {"matched − matched of narrow", "baseline − matched of narrow"}
    assert set(compare(folders, training="diverse")["difference"]) == within | others


def test_seeds_are_counted_and_paired_and_told_with_the_sampling(tmp_path, capsys):
    folders = [result(tmp_path / training / "id", 1.2, 1.5, 1.1, seeds=(0, 1)) for training in ("narrow", "diverse")]
    printed = call(reference_map.main, capsys, *folders, "--out", tmp_path / "map")
    assert set(pd.read_csv(tmp_path / "map" / "map.csv")["seeds"]) == {2}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "narrow " in line]
    assert cells[0] == ["narrow", "0, 1", "0, 1", "1", "1"], "seeds, those of the baseline, N, w"


def test_groups_of_which_the_other_training_has_no_file_are_left_out(tmp_path):
    few = result(tmp_path / "few" / "id", 1.2, 1.5, 1.1, files=FILES[::2])
    every = result(tmp_path / "all" / "id", 1, 2, 1)
    found = compare([few, every], difference="matched − matched of few", metric="pesq").set_index(["by", "group"])
    assert found["files"].to_dict() == {("all", "all"): 4, ("SNR dB", "0"): 2, ("SNR dB", "5"): 2, ("class", "hum"): 4}


def test_files_whose_matched_reference_leaks_do_not_count(folders):
    change(folders[0], lambda t: t.assign(leak_shared=(t["system"] == "matched") & (t["file"] == "f1.flac")))
    assert set(compare(folders, training="narrow", set="id", by="all", metric="pesq")["files"]) == {7}


REFUSED = [
    ("NOTHING", "NOTHING: no such folder"),
    ("EMPTY", "holds no scores.csv"),
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
    for name in ("seeds", "bare", "leaks"):
        result(tmp_path / name / "id", 1.2, 1.5, 1.1)
    result(tmp_path / "files" / "id", 1.2, 1.5, 1.1, files=["x.flac", "y.flac"])
    change(tmp_path / "seeds" / "id", lambda table: pd.concat([table, table.assign(checkpoint="another")]))
    change(tmp_path / "bare" / "id", lambda table: table[table["system"] != "baseline"])
    change(tmp_path / "leaks" / "id", lambda table: table.assign(leak_shared=True))
    (tmp_path / "FILE").write_text("")
    (tmp_path / "EMPTY").mkdir()
    paths = [word if word.startswith("--") or word == "wide" else tmp_path / word for word in words.split()]
    out = () if "--out" in words else ("--out", tmp_path / "map")
    assert culprit in refusal(reference_map.main, capsys, *paths, *out)
    assert not list(tmp_path.glob("map/*"))


DAMAGES = {
    "cut": lambda path: path.write_text("checkpoint,system,se"),
    "other columns": lambda path: path.write_text("a,b\n1,2\n"),
    "a row twice": lambda path: path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n"),
    "a folder": lambda path: path.unlink() or path.mkdir(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_of_scores_is_refused(name, tmp_path):
    path = tmp_path / "scores.csv"
    row = dict.fromkeys(COLUMNS, "") | {"system": "matched", "nfe": 1, "passes": 1, "N": 1}
    pd.DataFrame([row]).to_csv(path, index=False)
    assert read_scores(path)["system"].tolist() == ["disjoint"]
    DAMAGES[name](path)
    with pytest.raises(UserError, match=r"scores\.csv: "):
        read_scores(path)
