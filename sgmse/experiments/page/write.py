"""A RUN_DIR → one folder with the answer: pages, tables and figures that need no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import whole_folder
from sgmse.evaluation.figures import draw_forest
from sgmse.evaluation.metrics import FIRST
from sgmse.evaluation.page import json_for_script, write_html
from sgmse.evaluation.tables import Table, latex, markdown
from sgmse.experiments import comparisons, criteria
from sgmse.experiments.page import content, figures, listening
from sgmse.experiments.page.run import Run, read

_MARK = "tables.md"  # beside index.html: what tells a folder of ours, which may be replaced, from any other


class _Found(NamedTuple):
    """What the statistics say: differences of whole sets, those of PESQ by class and SNR too, and the criteria."""

    differences: pd.DataFrame
    slices: pd.DataFrame
    criteria: pd.DataFrame


def write(run_dir: Path, out: Path, max_items: int) -> Path:
    """Write the page of `run_dir` to the folder `out` and return its index.html; an older page there is replaced.

    The folder appears whole or not at all. Raises `UserError` for a folder that is no RUN_DIR, for results that belong
    in no table together, and for an `out` that holds something else.
    """
    ours = (out / _MARK).is_file() and (out / "index.html").is_file()
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is no page of this command; choose another --out")
    run = read(run_dir)
    found = _Found(
        comparisons.compare_experiments(run.results, run.trainings, run.plan, by=()),
        comparisons.compare_experiments(run.results, run.trainings, run.plan, metrics=(FIRST,)),
        criteria.judge_criteria(run.results, run.trainings, run.plan),
    )
    with whole_folder(out) as part:
        _fill(part, run, found, max_items)
    return out / "index.html"


def _fill(out: Path, run: Run, found: _Found, max_items: int) -> None:
    title = f"Experiments at scale {run.plan.scale}"
    seed = next((s for s in run.plan.seeds if (run.enhanced["seed"] == s).any()), run.plan.seeds[0])
    listening_data = listening.write(run, seed, out, max_items)
    tables: dict[str, Any] = {
        "criteria": content.criteria(found.criteria),
        "run": content.run_facts(run),
        "unprocessed": content.unprocessed(run),
        "sets": content.per_set(run, found.differences),
        "differences": content.all_differences(found.differences),
        "slices": content.slices(run, found.slices),
        "secondary": content.costs(run),
    }
    drawn = _draw(out, run, found)
    page = {"title": title, "listening": bool(listening_data["items"]), "smoke": run.smoke, **tables, **drawn}
    texts = {"subtitle": _subtitle(run), "remarks": _remarks(run), "cards": _cards(found.criteria)}
    write_html(out / "index.html", "experiments.html", **page, **texts)
    if listening_data["items"]:
        write_html(
            out / "listening.html",
            "listening.html",
            title=title,
            data=json_for_script(listening_data),
            seed=seed,
            chosen=f"At most {max_items} utterances per set, spread over the ranking by gain.",
            colours=listening.colours(),
            khz=f"{listening_data['items'][0]['khz']:g}",
        )
    flat = [table for value in tables.values() for table in ([value] if isinstance(value, Table) else value)]
    (out / _MARK).write_text(f"# {title}\n\n{_subtitle(run)}\n\n" + "\n".join(map(markdown, flat)), encoding="utf-8")
    opening = f"% {title}. {_subtitle(run)}\n% \\usepackage{{booktabs}}\n\n"
    (out / "tables.tex").write_text(opening + "\n".join(map(latex, flat)), encoding="utf-8")


def _draw(out: Path, run: Run, found: _Found) -> dict[str, bool]:
    """Draw the figures for which there is something to draw; returns which."""
    judged = found.criteria
    shown = found.differences[(found.differences["metric"] == FIRST) & found.differences["mean"].notna()]
    asked = zip(judged["experiment"], judged["against"], judged["set"], strict=True)
    thresholds = dict(zip(asked, judged["threshold"], strict=True))
    if len(shown):
        draw_forest(shown, FIRST, thresholds, out / "forest.png")
    if run.validations:
        figures.curves(run.validations, out / "curves.png")
    if len(run.sweeps):
        figures.sweeps(run.sweeps, out / "sweep.png")
    return {"forest": bool(len(shown)), "curves": bool(run.validations), "sweep": bool(len(run.sweeps))}


def _subtitle(run: Run) -> str:
    seeds = ", ".join(map(str, run.plan.seeds))
    code = f"; code {', '.join(run.commits)}" if run.commits else ""
    files = run.noisy.groupby("set")["file"].nunique()
    sets = ", ".join(f"{name} ({files.get(name, 0)} files)" for name in run.plan.sets)
    trainings = f"{len(run.experiments)} experiments, {len(run.plan.trainings)} trainings"
    return f"{trainings}, seed{'s' * (len(run.plan.seeds) > 1)} {seeds}; test sets: {sets}{code}."


def _remarks(run: Run) -> list[str]:
    """What a reader must know before any number: what failed, what is missing, what does not count."""
    failed, left, total = run.missing()
    remarks = [f"Failed: {line}" for line in failed]
    remarks += [f"Left out: {name}; {remedy}." for name, remedy in run.left_out.items()]
    if left:
        remarks.append(
            f"Not complete: {left} of {total} parts of the plan are not done yet; what is missing has no row."
        )
    if run.smoke:
        names = ", ".join(run.smoke)
        remarks.append(f"Smoke rows: the encoders of {names} have random weights; they enter no criterion.")
    return remarks


def _cards(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """A card per criterion: its claim, and how many of its rows have which verdict."""
    cards = []
    for name, rows in judged.groupby("criterion", sort=False):
        counts = rows["verdict"].value_counts(sort=False)
        counted = [(verdict, content.tone(str(verdict)), int(count)) for verdict, count in counts.items()]
        tone = counted[0][1] if len(counted) == 1 else "mixed"
        title, claim = str(name).replace("_", " ").capitalize(), rows["claim"].iloc[0]
        cards.append({"name": title, "claim": claim[:1].upper() + claim[1:], "tone": tone, "counts": counted})
    return cards
