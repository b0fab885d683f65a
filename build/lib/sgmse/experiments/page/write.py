"""A RUN_DIR → one folder with the answer: pages, tables and figures that need no network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure, whole_folder
from sgmse.evaluation.figures import colour, draw_forest, finish_axes
from sgmse.evaluation.metrics import FIRST, METRICS
from sgmse.evaluation.page import json_for_script, write_html
from sgmse.evaluation.tables import Table, latex, markdown
from sgmse.experiments import comparisons, criteria, sets
from sgmse.experiments.page import listening, tables
from sgmse.experiments.results import Run, read_run
from sgmse.experiments.work import list_cells, list_shares, read_record

_MARK = "tables.md"  # beside index.html: what tells a folder of ours, which may be replaced, from any other
_CURVES = {"valid_loss": "validation loss", FIRST: METRICS[FIRST].title, "cond_gap": "cond_gap"}
_PER_ROW = 8  # curves that can be told apart in one panel


def write(run_dir: Path, out: Path, max_items: int) -> Path:
    """Write the page of `run_dir` to the folder `out` and return its index.html; an older page there is replaced.

    The folder appears whole or not at all. Raises `UserError` for a folder that is no RUN_DIR, for results that belong
    in no table together, and for an `out` that holds something else.
    """
    ours = (out / _MARK).is_file() and (out / "index.html").is_file()
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is no page of this command; choose another --out")
    run = read_run(run_dir)
    differences = comparisons.compare_experiments(run.results, run.trainings, run.plan)
    judged = criteria.judge_criteria(run.results, run.trainings, run.plan)
    with whole_folder(out) as part:
        _fill(part, run, differences, judged, max_items)
    return out / "index.html"


def _fill(out: Path, run: Run, differences: pd.DataFrame, judged: pd.DataFrame, max_items: int) -> None:
    title, subtitle = f"Experiments at scale {run.plan.scale}", _describe_run(run)
    seed = next((s for s in run.plan.seeds if (run.enhanced["seed"] == s).any()), run.plan.seeds[0])
    heard = listening.write_items(run, seed, out, max_items)
    shown: dict[str, Any] = {
        "criteria": criteria.make_table(judged),
        "run": tables.list_experiments(run),
        "unprocessed": tables.list_unprocessed(run),
        "sets": tables.list_scores(run, differences),
        "differences": tables.list_differences(differences),
        "slices": tables.list_slices(run, differences),
        "secondary": tables.list_costs(run),
    }
    flat = [table for value in shown.values() for table in ([value] if isinstance(value, Table) else value)]
    (out / _MARK).write_text(f"# {title}\n\n{subtitle}\n\n" + "\n".join(map(markdown, flat)), encoding="utf-8")
    opening = f"% {title}. {subtitle}\n% \\usepackage{{booktabs}}\n\n"
    (out / "tables.tex").write_text(opening + "\n".join(map(latex, flat)), encoding="utf-8")
    shown |= draw_figures(run, differences, judged, out) | {"listening": bool(heard["items"]), "smoke": run.smoke}
    shown |= {"title": title, "subtitle": subtitle, "remarks": _list_remarks(run), "cards": _list_cards(judged)}
    write_html(out / "index.html", "experiments.html", **shown)
    if heard["items"]:
        write_html(
            out / "listening.html",
            "listening.html",
            title=title,
            data=json_for_script(heard),
            seed=seed,
            chosen=f"At most {max_items} utterances per set, spread over the ranking by gain.",
            colours=listening.colours(),
            khz=f"{heard['items'][0]['khz']:g}",
        )


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
        counted = [(verdict, criteria.find_tone(str(verdict)), int(count)) for verdict, count in counts.items()]
        tone = counted[0][1] if len(counted) == 1 else "mixed"
        title, claim = str(name).replace("_", " ").capitalize(), rows["claim"].iloc[0]
        cards.append({"name": title, "claim": claim[:1].upper() + claim[1:], "tone": tone, "counts": counted})
    return cards


def draw_figures(run: Run, differences: pd.DataFrame, judged: pd.DataFrame, out: Path) -> dict[str, bool]:
    """Draw the figures for which there is something to draw; returns which."""
    known = (differences["metric"] == FIRST) & (differences["by"] == comparisons.WHOLE) & differences["mean"].notna()
    asked = zip(judged["experiment"], judged["against"], judged["set"], strict=True)
    if known.any():
        thresholds = dict(zip(asked, judged["threshold"], strict=True))
        draw_forest(differences[known], FIRST, thresholds, out / "forest.png")
    if run.validations:
        _draw_curves(run.validations, out / "curves.png")
    if len(run.sweeps):
        _draw_sweeps(run.sweeps, out / "sweep.png")
    return {"forest": bool(known.any()), "curves": bool(run.validations), "sweep": bool(len(run.sweeps))}


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
