"""The page of a sweep: what guidance changes first, then quality over cost, then all cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from sgmse.evaluation.figures import difference_title, draw_intervals, judge_differences
from sgmse.evaluation.metrics import METRICS, names_in
from sgmse.evaluation.page import INDEX, Section, page_folder, write_sections
from sgmse.evaluation.sweep import draw_curves, draw_pareto, list_cells


def write_page(lines: pd.DataFrame, out: Path, title: str, subtitle: str) -> Path:
    """Write the page of the result of `sweep.summarise_cells` to the folder `out`. Returns its index.html."""
    with page_folder(out, "--out") as part:
        draw_curves(lines, part / "curves.png")
        draw_pareto(lines, part / "pareto.png")
        sections = [
            *_compare(lines, part),
            Section(
                "Quality over cost",
                "A cell per point; the line joins those that no cheaper or equally dear one surpasses.",
                figures=[("pareto.png", "Scores of all cells over network passes")],
            ),
            Section(
                "Quality over steps",
                "A curve per sampler, scale and interval, with 95 % intervals; dashed: the noisy files.",
                figures=[("curves.png", "Scores over evaluations and over network passes")],
            ),
            Section("All cells", tables=[list_cells(lines, [""])]),
        ]
        remark = "Choose on validation mixtures: the best of many cells is biased upwards."
        write_sections(part, title, subtitle, sections, [remark])
    return out / INDEX


def _compare(lines: pd.DataFrame, out: Path) -> list[Section]:
    """The differences of each cell to the same sampler and steps with w = 1; nothing where there is no such cell."""
    table = replace(list_cells(lines, ["d_"]), name="differences", caption="Differences to w = 1")
    if not table.rows:
        return []
    drawn = []
    for metric in names_in(lines.columns):
        ends = {"mean": lines[f"d_{metric}"], "low": lines[f"d_{metric}_low"], "high": lines[f"d_{metric}_high"]}
        rows = lines.assign(**ends, label=[_label(line) for _, line in lines.iterrows()]).dropna(subset="mean")
        draw_intervals(judge_differences(rows, metric), difference_title(metric), 0.0, out / f"forest_{metric}.png")
        drawn.append((f"forest_{metric}.png", f"Differences of {METRICS[metric].title} to w = 1 for each cell"))
    text = (
        "Paired differences to the same sampler and steps with w = 1, file by file, with 95 % intervals. A filled "
        "point excludes 0 (green: better, red: worse); a hollow one is undecided."
    )
    return [Section(table.caption, text, figures=drawn, tables=[table])]


def _label(line: pd.Series) -> str:
    where = "" if line["interval"] == "none" else f", t in {line['interval'].replace(':', ' to ')}"
    return f"{line['sampler']}, N {line['N']}, w {line['guidance_scale']:g}{where}"
