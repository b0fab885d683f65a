"""A RUN_DIR → one folder with the answer: pages, tables and figures that need no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure
from sgmse.evaluation.figures import GREY, colour, difference_title, draw_intervals, finish_axes, judge_differences
from sgmse.evaluation.metrics import FIRST, METRICS
from sgmse.evaluation.page import INDEX, Section, json_for_script, page_folder, write_html, write_sections
from sgmse.experiments import comparisons, criteria, sets
from sgmse.experiments.page import listening, tables
from sgmse.experiments.results import Run, read_run
from sgmse.experiments.work import list_cells, list_shares, read_record

LISTENING = "listening.html"
_CURVES = {"valid_loss": "validation loss", FIRST: METRICS[FIRST].title, "cond_gap": "cond_gap"}
_PER_ROW = 8  # curves that can be told apart in one panel


def write(run_dir: Path, out: Path, max_items: int | None = None) -> Path:
    """Write the page of `run_dir` to the folder `out` and return its index.html; an older page there is replaced.

    The folder appears whole or not at all. max_items: see `listening.write_items`. Raises `UserError` for a folder that
    is no RUN_DIR, for results that belong in no table together, and for an `out` that holds something else.
    """
    with page_folder(out, "--out") as part:
        run = read_run(run_dir)
        differences = comparisons.compare_experiments(run.results, run.trainings, run.plan)
        judged = criteria.judge_criteria(run.results, run.trainings, run.plan)
        title, subtitle = f"Experiments at scale {run.plan.scale}", _describe_run(run)
        seed = next((s for s in run.plan.seeds if (run.enhanced["seed"] == s).any()), run.plan.seeds[0])
        data = listening.write_items(run, seed, part, max_items)
        sections = [_answer(judged), *_list_differences(run, differences, judged, part), *_list_rest(run, part)]
        links = {"Listen": LISTENING} if data["items"] else {}
        write_sections(part, title, subtitle, sections, _list_remarks(run), links)
        if data["items"]:
            per_set = max(Counter(item["set"] for item in data["items"]).values())
            words = f"At most {per_set} utterances per set, spread over the ranking by gain. Seed {seed}."
            write_html(part / LISTENING, "listening.html", title=title, subtitle=words, data=json_for_script(data))
    return out / INDEX


def _answer(judged: pd.DataFrame) -> Section:
    text = (
        "Met: the whole 95 % interval lies beyond the threshold. Not met: the whole interval lies short of it. Else "
        "this number of files, noise sources and seeds cannot decide."
    )
    return Section("Criteria", text, _list_cards(judged), tables=[criteria.make_table(judged)])


def _list_differences(run: Run, differences: pd.DataFrame, judged: pd.DataFrame, out: Path) -> list[Section]:
    """The comparison the project is about, then the scores of each set."""
    text = (
        f"Paired {METRICS[FIRST].title} differences with their 95 % intervals. A filled point excludes zero; the "
        "dotted line is what a criterion asks for" + ("; grey are networks with random weights." if run.smoke else ".")
    )
    drawn = draw_forests(differences, judged, out)
    table, slices = tables.list_differences(differences), tables.list_slices(run, differences)
    unprocessed = tables.list_unprocessed(run)
    return [
        Section("Differences", text, figures=drawn, tables=[table], folded=slices),
        Section("Scores per test set", tables=[unprocessed, *tables.list_scores(run, differences)]),
    ]


def _list_rest(run: Run, out: Path) -> list[Section]:
    """What was run, how it learned, what was chosen, and what it cost."""
    sections = [Section("What was run", tables=[tables.list_experiments(run)])]
    figures = draw_figures(run, out)
    if "curves" in figures:
        text = (
            "Averaged weights on fixed validation mixtures; dashed: the unprocessed files. cond_gap is the validation "
            "loss with other files' references minus that with the right ones: at 0 the reference is ignored."
        )
        sections.append(Section("Training", text, figures=[figures["curves"]]))
    if "sweep" in figures:
        text = (
            "On the validation set, on which guidance scale, steps and checkpoint were chosen; over each axis the best "
            "of the other."
        )
        sections.append(Section("Guidance and steps", text, figures=[figures["sweep"]]))
    return [*sections, Section("Convergence, latency, size", tables=tables.list_costs(run))]


def _describe_run(run: Run) -> str:
    """What was run, in a sentence, with the code of the trainings, as their config.yaml opens with it."""
    paths = sorted((run.folder / "trainings").glob("*/seed*/config.yaml"))
    openings = (path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] for path in paths)
    commits = dict.fromkeys(line.removeprefix("# code: ") for line in openings if line.startswith("# code: "))
    code = f"; code {', '.join(commits)}" if commits else ""
    files = run.noisy.groupby("set")["file"].nunique()
    tested = ", ".join(f"{name} ({files.get(name, 0)} files)" for name in run.plan.sets)
    trained = f"{len(run.plan.experiments)} experiments, {len(run.plan.trainings)} trainings"
    return f"{trained}; seeds: {', '.join(map(str, run.plan.seeds))}; test sets: {tested}{code}."


def _list_remarks(run: Run) -> list[str]:
    """What a reader must know before any number: what failed, what is missing, what does not count."""
    left_out: dict[str, str] = {}
    with suppress(UserError):  # where the data are on another machine
        left_out = sets.left_out(run.plan.sets, run.plan.data)
    cells = list_cells(run.plan, list_shares(run.plan), "all", left_out)
    records = {cell: read_record(run.folder, cell.key) or {"status": "running"} for cell in cells}
    remarks = [f"Failed: {cell}: {record['error']}" for cell, record in records.items() if record["status"] == "failed"]
    remarks += [f"Left out: {name}; {remedy}." for name, remedy in left_out.items()]
    left = sum(record["status"] == "running" for record in records.values())
    if left:
        remarks.append(
            f"Not complete: {left} of {len(cells)} parts of the plan are not done yet; what is missing has no row."
        )
    if run.smoke:
        names = ", ".join(run.smoke)
        remarks.append(f"Smoke rows: the encoders of {names} have random weights; they enter no criterion.")
    return remarks


def _list_cards(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """A card per criterion: its claim, and how many of its rows have which verdict."""
    cards = []
    for name, rows in judged.groupby("criterion", sort=False):
        counts = rows["verdict"].value_counts(sort=False)
        verdicts = [(f"{count} {verdict}", criteria.find_tone(str(verdict))) for verdict, count in counts.items()]
        tone = verdicts[0][1] if len(verdicts) == 1 else "mixed"
        title, claim = str(name).replace("_", " ").capitalize(), rows["claim"].iloc[0]
        text = f"{claim[:1].upper()}{claim[1:]}."
        cards.append({"figure": title, "text": text, "tone": tone, "verdicts": verdicts})
    return cards


def draw_forests(differences: pd.DataFrame, judged: pd.DataFrame, out: Path) -> list[tuple[str, str]]:
    """A forest plot of the ranking metric for each set that has differences."""
    known = (differences["metric"] == FIRST) & (differences["by"] == comparisons.WHOLE) & differences["mean"].notna()
    judged = judged[judged["metric"] == FIRST]
    asked = zip(judged["experiment"], judged["against"], judged["set"], strict=True)
    thresholds = dict(zip(asked, judged["threshold"], strict=True))
    drawn = []
    for name, rows in differences[known].groupby("set", sort=False):
        rows = judge_differences(rows, FIRST)
        keys = zip(rows["experiment"], rows["against"], rows["set"], strict=True)
        rows = rows.assign(
            label=rows["experiment"] + " − " + rows["against"],
            colour=rows["colour"].where(~rows["smoke"].astype(bool), GREY),
            threshold=[thresholds.get(key, math.nan) for key in keys],
        )
        draw_intervals(rows, difference_title(FIRST), 0.0, out / f"forest-{name}.png", str(name))
        drawn.append((f"forest-{name}.png", f"Forest plot of the {METRICS[FIRST].title} differences on {name}"))
    return drawn


def draw_figures(run: Run, out: Path) -> dict[str, tuple[str, str]]:
    """Draw the figures of training and choice for which there is something to draw: file and words by name."""
    drawn = {}
    if run.validations:
        _draw_curves(run.validations, out / "curves.png")
        drawn["curves"] = ("curves.png", f"Validation loss, {METRICS[FIRST].title} and cond_gap over steps")
    if len(run.sweeps):
        _draw_sweeps(run.sweeps, out / "sweep.png")
        words = f"{METRICS[FIRST].title} over guidance scale and over network passes"
        drawn["sweep"] = ("sweep.png", words)
    return drawn


def _draw_curves(trainings: Mapping[tuple[str, int], pd.DataFrame], path: Path) -> None:
    """Validation loss, PESQ and cond_gap over steps: a colour per training, a line per seed, eight trainings a row.

    `trainings`: validation.csv by training and seed.
    """
    names = list(dict.fromkeys(name for name, _ in trainings))
    rows = [names[start : start + _PER_ROW] for start in range(0, len(names), _PER_ROW)]
    figure = Figure(figsize=(13.5, 3.1 * len(rows)), dpi=130, layout="constrained")
    grid = figure.subplots(len(rows), len(_CURVES), squeeze=False, sharex=True, sharey="col")
    for shown, panels in zip(rows, grid, strict=True):
        for axes, (column, title) in zip(panels, _CURVES.items(), strict=True):
            for (name, _), values in trainings.items():
                if name in shown and column in values:
                    known = values.dropna(subset=[column])
                    style: dict[str, Any] = {"color": colour(shown.index(name)), "lw": 1.5, "marker": ".", "ms": 4}
                    axes.plot(known["step"], known[column], label=name, **style)
            if column == "cond_gap":
                axes.axhline(0, color="0.4", lw=0.9, zorder=0)
            elif column == FIRST:
                noisy = f"noisy/{FIRST}"
                for value in {v[noisy].iloc[0] for v in trainings.values() if noisy in v}:
                    axes.axhline(value, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
            axes.set(title=title, xlabel="step")
            finish_axes(axes)
        handles, labels = panels[0].get_legend_handles_labels()
        lines = dict(zip(labels, handles, strict=True))  # seeds share a colour and a line of the legend
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
        panels[-1].legend(lines.values(), lines, frameon=False, fontsize=8, **place)
    save_figure(figure, path)


def _draw_sweeps(lines: pd.DataFrame, path: Path) -> None:
    """PESQ on the validation set over the guidance scale and over network passes: a colour per experiment.

    `lines`: the columns experiment, guidance_scale, passes, pesq. Over the one, the best of the other is shown.
    """
    names = list(lines["experiment"].drop_duplicates())
    figure = Figure(figsize=(12, 4 + 0.12 * max(0, len(names) - 14)), dpi=130, layout="constrained")
    titles = {"guidance_scale": "guidance scale w", "passes": "network passes per file"}
    panels: list[Axes] = list(figure.subplots(1, len(titles), sharey=True))
    if lines["passes"].nunique() > 1:
        panels[1].set_xscale("log", base=2)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for place, name in enumerate(names):
            best = lines[lines["experiment"] == name].groupby(column)[FIRST].max()
            style: dict[str, Any] = {"color": colour(place), "marker": "osD^vP"[place // 10 % 6], "ms": 5, "lw": 1.4}
            axes.plot(best.index, best, label=name, alpha=0.9, **style)
        ticks = sorted(set(lines[column]))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel=title)
        finish_axes(axes)
    panels[0].set_ylabel(f"{METRICS[FIRST].title} on the validation set")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    save_figure(figure, path)
