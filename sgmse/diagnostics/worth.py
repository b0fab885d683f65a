"""Where a reference pays, and where other training is the better buy: several verdicts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure, write_csv, write_text
from sgmse.diagnostics import differences, use
from sgmse.diagnostics.differences import ALL, BASELINE, SMALL, interval_table, pair_title
from sgmse.evaluation.metrics import METRICS
from sgmse.evaluation.tables import markdown_rows, number

_GAIN, _COST = pair_title("disjoint", BASELINE), pair_title("disjoint", "mismatched")
_WITHIN = (("disjoint", BASELINE), ("disjoint", "mismatched"), ("disjoint", "estimated"), ("estimated", BASELINE))
_BETWEEN = ((BASELINE, BASELINE), (BASELINE, "disjoint"), ("disjoint", "disjoint"))  # of two trainings
_PICTURES = {"class": "class.png", "SNR dB": "snr.png"}
_MOST_PESQ = 0.3  # the ends of the colour scale
_COLUMNS = [
    "training",
    "set",
    "by",
    "group",
    "difference",
    "metric",
    "mean",
    "low",
    "high",
    "files",
    "sources",
    "seeds",
]


def read_scores(folders: Sequence[Path]) -> pd.DataFrame:
    """The rows that count of TRAINING/SET folders, in their order: `use.COLUMNS`, training and set.

    Files whose disjoint reference leaks are left out.

    Raises:
        UserError: a folder holds no table of scores, nothing that counts, or two checkpoints of one seed; or it is
            named like another one.
    """
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for folder in folders:
        path = folder.absolute()  # links keep their names
        training, test_set = path.parent.name, path.name
        if not (path / "scores.csv").is_file():
            raise UserError(f"{folder}: holds no scores.csv; name folders that scripts/reference_use.py wrote")
        if (training, test_set) in found:
            raise UserError(f"{folder}: {training}/{test_set} is there twice; the names of the folders tell them apart")
        rows = _leave_out_leaks(folder, use.read_scores(path / "scores.csv"))
        found[training, test_set] = rows.assign(training=training, set=test_set)
    return pd.concat(found.values(), ignore_index=True)


def _leave_out_leaks(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if not {"disjoint", BASELINE} <= set(frame["system"]):
        raise UserError(
            f"{folder}: holds no scores of matched references and of a baseline; run scripts/reference_use.py with "
            "--baseline to its end"
        )
    twice = frame.loc[frame.duplicated(["system", "file", "seed"]), "system"]
    if len(twice):
        raise UserError(
            f"{folder}: scores.csv holds two checkpoints of one seed as {twice.iloc[0]}; give each a folder"
        )
    counted, _ = differences.count_leaks(frame)
    if counted.empty:
        raise UserError(f"{folder}: every matched reference shares samples with its mixture, so nothing counts")
    return counted


def compare_trainings(scores: pd.DataFrame, against: str | None) -> pd.DataFrame:
    """The long table of differences within each training and set, as a whole, by noise class and by SNR; and to the
    training `against` (None: the first) on the same set, file by file. It has the columns training and set besides.

    Raises:
        UserError: no rows are of `against`, or another training shares no file of a set with it.
    """
    trainings = scores["training"].unique()
    against = against or trainings[0]
    if against not in trainings:
        raise UserError(f"--against {against}: none of the trainings {', '.join(trainings)}")
    parts = []
    for (training, test_set), own in scores.groupby(["training", "set"], sort=False):
        is_other = (scores["training"] == against) & (scores["set"] == test_set)
        other = scores[is_other & (training != against)]
        if len(other) and not set(own["file"]) & set(other["file"]):
            raise UserError(f"{test_set}: {training} and {against} were scored on different files of it")
        for by, groups in ({ALL: {ALL: own}} | differences.split_by_noise(own)).items():
            for group, rows in groups.items():
                lines = pd.concat([differences.paired_differences(rows, _WITHIN), _compare(rows, other, against)])
                parts.append(lines.assign(training=str(training), set=str(test_set), by=by, group=group))
    return pd.concat(parts, ignore_index=True)[_COLUMNS]


def _compare(own: pd.DataFrame, other: pd.DataFrame, against: str) -> pd.DataFrame:
    """The long table of a group of files of one training against those of another."""
    lines: list[dict[str, Any]] = []
    for first, second in _BETWEEN:
        rows, others = own[own["system"] == first], other[other["system"] == second]
        is_another = set(rows["checkpoint"]) != set(others["checkpoint"])  # two models may share a baseline
        if is_another and set(rows["file"]) & set(others["file"]):
            lines += differences.summarise(first, rows, second, others, f" of {against}")
    return pd.DataFrame(lines)


def write_map(scores: pd.DataFrame, found: pd.DataFrame, out: Path) -> tuple[str, list[str]]:
    """Write map.md, map.csv and the pictures. Returns the text of map.md and the names of the files.

    found: the rows of `compare_trainings`.
    """
    parts = ["# Where a reference pays", markdown_rows(_list_trainings(scores))]
    whole = found[found["by"] == ALL]
    for metric in SMALL:
        table = interval_table(whole[whole["metric"] == metric], ["training", "difference"], "set")
        parts += [f"## {METRICS[metric].title}", table]
    write_csv(found, out / "map.csv")  # first: by it the folder is known as ours
    draw_map(whole, out / "map.png")
    written = ["map.md", "map.csv", "map.png"]
    gains = found[(found["difference"] == _GAIN) & (found["metric"] == "pesq")]
    for by, picture in _PICTURES.items():
        rows = gains[gains["by"] == by]
        if rows.empty:
            continue
        text, says_something = differences.count_exclusions(rows)
        parts += [f"## {_GAIN} by {by}, PESQ", text]
        if says_something:
            parts.append(
                interval_table(rows.rename(columns={"by": "_", "group": by}), ["set", by], "training", ["files"])
            )
        draw_groups(rows, out / picture)
        written.append(picture)
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    write_text(out / "map.md", text)
    return text, written


def _list_trainings(scores: pd.DataFrame) -> list[list[str]]:
    """A row per training: its name, its seeds, those of its baseline, the steps and guidance it was sampled with."""
    rows = [["training", "seeds", "of the baseline", "N", "w"]]
    for name, frame in scores.groupby("training", sort=False):
        model, bare = (frame[frame["system"] == system] for system in ("disjoint", BASELINE))
        columns = [model["seed"], bare["seed"], model["N"], model["guidance_scale"]]
        rows.append([str(name), *(", ".join(f"{v:g}" for v in sorted(set(one.dropna()))) for one in columns)])
    return rows


def draw_map(whole: pd.DataFrame, path: Path) -> None:
    """A panel per set and metric: what the reference adds to each training, beside what the training itself does."""
    of_training = whole["difference"].str.startswith(f"{pair_title(BASELINE, BASELINE)} of ")
    colours = {_GAIN: "C0", _COST: "0.6", **dict.fromkeys(whole.loc[of_training, "difference"], "C1")}
    sets, trainings = (whole[name].nunique() for name in ("set", "training"))
    figure = Figure(figsize=(2.2 + 2.9 * sets, 2.2 + 1.2 * trainings), dpi=110, layout="constrained")
    panels = figure.subplots(len(SMALL), sets, sharex="row", sharey=True, squeeze=False)
    for row, metric in zip(panels, SMALL, strict=True):
        for axes, (name, table) in zip(row, whole.groupby("set", sort=False), strict=True):
            differences.draw_differences(axes, table, metric, "training", colours, spread=0.17)
            axes.set_title(str(name))
    marks = [panels[0, 0].plot([], [], "o-", color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    save_figure(figure, path)


def draw_groups(rows: pd.DataFrame, path: Path) -> None:
    """Gains in PESQ, a row per set and group of files, a column per training; bold where the interval excludes 0."""
    rows = rows.assign(label=rows["set"] + ": " + rows["group"], is_certain=differences.excludes_zero(rows))
    gains, certain = (
        rows.pivot_table(name, "label", "training", aggfunc="first", sort=False, dropna=False)
        for name in ("mean", "is_certain")
    )
    height, width = gains.shape
    figure = Figure(figsize=(3.4 + 1.35 * width, 1.4 + 0.27 * height), dpi=110, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(gains.to_numpy(float), cmap="RdBu", vmin=-_MOST_PESQ, vmax=_MOST_PESQ, aspect="auto")
    for (row, column), gain in np.ndenumerate(gains.to_numpy(float)):
        if not np.isnan(gain):
            look: dict[str, Any] = {"weight": "bold" if certain.iloc[row, column] else "normal", "fontsize": 9}
            look["color"] = "white" if abs(gain) > 0.7 * _MOST_PESQ else "black"
            axes.text(column, row, number(gain, 2, signed=True), ha="center", va="center", **look)
    axes.set_xticks(range(width), gains.columns)
    axes.xaxis.tick_top()
    axes.set_yticks(range(height), gains.index)
    sets = rows.drop_duplicates("label").set_index("label").loc[gains.index, "set"]
    for row in np.flatnonzero(np.diff(sets.factorize()[0])):
        axes.axhline(row + 0.5, color="black", lw=1)  # between two sets
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"Δ PESQ, {_GAIN}", shrink=min(1.0, 6 / height))
    save_figure(figure, path)
