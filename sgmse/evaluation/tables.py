"""Tables of text, and the one place where they become plain text, Markdown and LaTeX (pages show them as HTML)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from sgmse.evaluation.metrics import MAIN, METRICS, names_in

NOTHING = "–"
_MINUS = "−"
_WRAPPED = 44  # characters, beyond which a cell is set in several lines
_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    _MINUS: "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "\u00a0": "~",
}


@dataclass(frozen=True)
class Table:
    """Rows of text below a header. name: of its label. tones: a CSS class per row, where rows differ in kind."""

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    tones: Sequence[str] = ()


def scores_table(scores: pd.DataFrame, name: str, caption: str, signed: bool = False) -> Table:
    """The result of `scores.summary` or, `signed`, of `scores.paired`: a row per system, each cell `mean [low, high]`.

    Metrics nobody has are left out; notes say what could not be scored.
    """
    most_scored = scores.groupby("metric")["n_scored"].max()
    shown = [metric for metric in names_in(most_scored.index) if metric in MAIN or most_scored[metric]]
    rows, notes = [], []
    for system in scores["system"].unique():
        by_metric = scores[scores["system"] == system].set_index("metric")
        cells = [score_interval(by_metric.loc[metric], metric, signed) for metric in shown]
        counts = by_metric[["n_scored", "n_sources"]].max()
        rows.append([system, *cells, *map(str, counts)])
        for metric in shown:
            kept, lost = by_metric.loc[metric, ["n_scored", "n_unscored"]].astype(int)
            if lost and (kept or metric in MAIN):
                lost_files = f"{lost} could not be scored, see the column reason"
                notes.append(f"{system}: {METRICS[metric].title} is the mean of {kept} files; {lost_files}")
    return Table(name, caption, ["difference" if signed else "system", *titles(shown), "files", "sources"], rows, notes)


def titles(metrics: Sequence[str] = MAIN, prefix: str = "") -> list[str]:
    """The headings of these metrics."""
    return [f"{prefix}{METRICS[metric].title}" for metric in metrics]


def score_interval(row: pd.Series, metric: str, signed: bool = False) -> str:
    """mean, low and high of `row` with the decimals of the metric; a dash where there is no mean."""
    return interval(row["mean"], row["low"], row["high"], METRICS[metric].decimals, signed)


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """`value` with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", _MINUS)


def interval(mean: float | None, low: float, high: float, decimals: int, signed: bool = True) -> str:
    """`mean [low, high]`, or the mean alone where no interval is known."""
    if mean is None or math.isnan(mean) or math.isnan(low):
        return number(mean, decimals, signed)
    ends = ", ".join(number(end, decimals, signed) for end in (low, high))
    return f"{number(mean, decimals, signed)} [{ends}]"


def probability(p: float | None) -> str:
    """A p value; what lies below 0.001 is not told apart."""
    if p is None or math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def print_table(table: Table) -> None:
    """Print the rows below their header, and the notes below them."""
    print(tabulate(table.rows, table.header, tablefmt="plain", disable_numparse=True))
    for note in table.notes:
        print(note)


def markdown(table: Table) -> str:
    """The table with its caption as a heading, columns aligned so that it can be read as it is."""
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"## {table.caption}\n\n{markdown_rows([table.header, *table.rows])}{notes}"


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the header first, as a Markdown table with columns of equal width."""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(lines[1:], lines[0], tablefmt="github", disable_numparse=True) + "\n"


def latex(table: Table) -> str:
    """The table with the rules of booktabs, caption and label; needs `\\usepackage{booktabs}` and nothing else."""
    cells = [list(map(escape_latex, row)) for row in (table.header, *table.rows)]
    body = tabulate(cells[1:], cells[0], tablefmt="latex_raw", disable_numparse=True)
    rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
    lines = [next(rules) if line == r"\hline" else line.rstrip() for line in body.splitlines()]
    longest = (max(len(row[column]) for row in table.rows or [table.header]) for column in range(len(table.header)))
    columns = "".join(r"p{0.3\linewidth}" if n > _WRAPPED else "r" if place else "l" for place, n in enumerate(longest))
    caption = escape_latex(". ".join([table.caption, *(note.rstrip(".") for note in table.notes)]) + ".")
    opening = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{table.name}}}"]
    return "\n".join([*opening, rf"\begin{{tabular}}{{{columns}}}", *lines[1:], r"\end{table}"]) + "\n"


def escape_latex(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))
