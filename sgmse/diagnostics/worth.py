"""Where a reference pays, and where other training is the better buy: several verdicts side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure, write_csv, write_text
from sgmse.diagnostics import differences, use
from sgmse.diagnostics.differences import BASELINE, METRICS, Pair, interval_text, pair_title
from sgmse.diagnostics.figures import draw_interval
from sgmse.diagnostics.verdict import SMALL
from sgmse.evaluation.statistics import Difference
from sgmse.evaluation.tables import markdown_rows

_REFERENCE: Pair = ("disjoint", BASELINE)
_WRONG: Pair = ("disjoint", "mismatched")
_WITHIN = (_REFERENCE, _WRONG, ("disjoint", "estimated"), ("estimated", BASELINE))
_DATA: Pair = (BASELINE, BASELINE)  # of two trainings
_BETWEEN = (_DATA, (BASELINE, "disjoint"), ("disjoint", "disjoint"))
ALL = "all"
_PICTURES = {"class": "class.png", "SNR dB": "snr.png"}
_MOST_PESQ = 0.3  # the ends of the colour scale


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
    for system, rows in frame.groupby("system"):
        if rows.duplicated(["file", "seed"]).any():
            raise UserError(f"{folder}: scores.csv holds two checkpoints of one seed as {system}; give each a folder")
    counted = frame[~frame["file"].isin(differences.leaking_files(frame))]
    if counted.empty:
        raise UserError(f"{folder}: every matched reference shares samples with its mixture, so nothing counts")
    return counted


def compare_trainings(scores: pd.DataFrame, against: str | None) -> pd.DataFrame:
    """Differences within each training and set, as a whole, by noise class and by SNR; and those to the training
    `against` (None: the first) on the same set, file by file.

    Returns a row per difference and metric: training, set, by (what the files were grouped by, or `ALL`), group,
    difference (in words), metric, found (a `Difference`).

    Raises:
        UserError: no rows are of `against`, or another training shares no file of a set with it.
    """
    trainings = scores["training"].unique()
    against = against or trainings[0]
    if against not in trainings:
        raise UserError(f"--against {against}: none of the trainings {', '.join(trainings)}")
    rows = []
    for (training, test_set), own in scores.groupby(["training", "set"], sort=False):
        is_other = (scores["training"] == against) & (scores["set"] == test_set)
        other = scores[is_other & (training != against)]
        if len(other) and not set(own["file"]) & set(other["file"]):
            raise UserError(f"{test_set}: {training} and {against} were scored on different files of it")
        for by, groups in ({ALL: {ALL: own}} | differences.split_by_noise(own)).items():
            for group, part in groups.items():
                for difference, values in _compare_group(part, other, against):
                    rows += [[training, test_set, by, group, difference, *value] for value in values.items()]
    return pd.DataFrame(rows, columns=["training", "set", "by", "group", "difference", "metric", "found"])


def _compare_group(own: pd.DataFrame, other: pd.DataFrame, against: str) -> Iterator[tuple[str, dict[str, Difference]]]:
    for pair, values in differences.paired_differences(own, _WITHIN).items():
        yield pair_title(pair), values
    for first, second in _BETWEEN:
        rows, others = own[own["system"] == first], other[other["system"] == second]
        is_another = set(rows["checkpoint"]) != set(others["checkpoint"])  # two models may share a baseline
        if is_another and set(rows["file"]) & set(others["file"]):
            yield f"{pair_title((first, second))} of {against}", differences.subtract(rows, others)


def write_map(scores: pd.DataFrame, found: pd.DataFrame, out: Path) -> tuple[str, list[str]]:
    """Write map.md, map.csv and the pictures. Returns the text of map.md and the names of the files.

    found: the rows of `compare_trainings`.
    """
    parts = ["# Where a reference pays", markdown_rows(_list_trainings(scores))]
    whole = found[found["by"] == ALL]
    for metric in SMALL:
        parts += [f"## {METRICS[metric]}", _pivot(whole[whole["metric"] == metric], ["training", "difference"], "set")]
    draw_map(whole, out / "map.png")
    written = ["map.md", "map.csv", "map.png"]
    is_gain = (found["difference"] == pair_title(_REFERENCE)) & (found["metric"] == "pesq") & (found["by"] != ALL)
    for by, picture in _PICTURES.items():
        rows = found[is_gain & (found["by"] == by)]
        if rows.empty:
            continue
        text, says_something = differences.count_exclusions(rows["found"])
        parts += [f"## {pair_title(_REFERENCE)} by {by}, PESQ", text]
        if says_something:
            rows = rows.assign(files=[one.n_files for one in rows["found"]])
            rows["files"] = rows.groupby(["set", "group"])["files"].transform("max").astype(str)
            parts.append(_pivot(rows.rename(columns={"group": by}), ["set", by, "files"], "training"))
        draw_groups(rows, out / picture)
        written.append(picture)
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    write_text(out / "map.md", text)
    values = [[one.mean, one.low, one.high, one.n_files, one.n_sources, one.n_seeds] for one in found["found"]]
    numbers = pd.DataFrame(values, columns=["mean", "low", "high", "files", "sources", "seeds"])
    write_csv(found.drop(columns="found").join(numbers), out / "map.csv")
    return text, written


def _list_trainings(scores: pd.DataFrame) -> list[list[str]]:
    """A row per training: its name, its seeds, those of its baseline, the steps and guidance it was sampled with."""
    rows = [["training", "seeds", "of the baseline", "N", "w"]]
    for name, frame in scores.groupby("training", sort=False):
        model, bare = (frame[frame["system"] == system] for system in ("disjoint", BASELINE))
        columns = [model["seed"], bare["seed"], model["N"], model["guidance_scale"]]
        rows.append([str(name), *(", ".join(f"{v:g}" for v in sorted(set(one.dropna()))) for one in columns)])
    return rows


def _pivot(rows: pd.DataFrame, index: list[str], columns: str) -> str:
    """Markdown: an interval per combination of `index` (down) and `columns` (across), in the order they come."""
    texts = rows.assign(text=list(map(interval_text, rows["found"], rows["metric"])))
    table = texts.pivot_table("text", index, columns, aggfunc="first", fill_value="", sort=False).reset_index()
    return markdown_rows([list(table.columns), *table[[*index, *rows[columns].unique()]].to_numpy().tolist()])


def draw_map(whole: pd.DataFrame, path: Path) -> None:
    """A panel per set and metric: what the reference adds to each training, beside what the training itself does."""
    is_data = whole["difference"].str.startswith(f"{pair_title(_DATA)} of ")
    colours = {pair_title(_REFERENCE): "C0", pair_title(_WRONG): "0.6"}
    colours |= dict.fromkeys(whole.loc[is_data, "difference"], "C1")
    drawn = whole[whole["difference"].isin(colours)]
    sets, trainings = (list(drawn[name].unique()) for name in ("set", "training"))
    colours = {name: colour for name, colour in colours.items() if name in set(drawn["difference"])}
    figure = Figure(figsize=(1.6 + 2.9 * len(sets), 6.6), dpi=110, layout="constrained")
    panels = figure.subplots(len(SMALL), len(sets), sharex=True, sharey="row", squeeze=False)
    for row, (metric, small) in zip(panels, SMALL.items(), strict=True):
        for axes, test_set in zip(row, sets, strict=True):
            axes.axhspan(-small, small, color="0.94", zorder=0)
            axes.axhline(0, color="0.6", lw=1, zorder=1)
            for one in drawn[(drawn["set"] == test_set) & (drawn["metric"] == metric)].itertuples():
                shift = 0.17 * (list(colours).index(one.difference) - (len(colours) - 1) / 2)  # side by side
                place = trainings.index(one.training) + shift
                draw_interval(axes, place, one.found, colours[one.difference], upright=True)
            axes.set_xticks(range(len(trainings)), trainings)
            axes.set_xlim(-0.5, len(trainings) - 0.5)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"Δ {METRICS[metric]}, 95 % interval")
    for axes, test_set in zip(panels[0], sets, strict=True):
        axes.set_title(test_set)
    marks = [panels[0, 0].plot([], [], "o-", color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    save_figure(figure, path)


def draw_groups(rows: pd.DataFrame, path: Path) -> None:
    """Gains in PESQ, a row per set and group of files, a column per training; bold where the interval excludes 0."""
    labels, trainings = rows["set"] + ": " + rows["group"], list(rows["training"].unique())
    names = list(labels.unique())
    values = np.full((len(names), len(trainings)), np.nan)
    figure = Figure(figsize=(3.4 + 1.35 * len(trainings), 1.4 + 0.27 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for label, training, one in zip(labels, rows["training"], rows["found"], strict=True):
        row, column = names.index(label), trainings.index(training)
        values[row, column] = one.mean
        if not np.isnan(one.mean):
            look: dict[str, Any] = {"weight": "bold" if one.excludes_zero else "normal", "fontsize": 9}
            look["color"] = "white" if abs(one.mean) > 0.7 * _MOST_PESQ else "black"
            axes.text(column, row, f"{one.mean:+z.2f}", ha="center", va="center", **look)
    image = axes.imshow(values, cmap="RdBu", vmin=-_MOST_PESQ, vmax=_MOST_PESQ, aspect="auto")
    axes.set_xticks(range(len(trainings)), trainings)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), names)
    for row in np.flatnonzero(np.diff(rows.groupby(labels, sort=False)["set"].first().factorize()[0])):
        axes.axhline(row + 0.5, color="black", lw=1)  # between two sets
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"Δ PESQ, {pair_title(_REFERENCE)}", shrink=min(1.0, 6 / len(names)))
    save_figure(figure, path)
