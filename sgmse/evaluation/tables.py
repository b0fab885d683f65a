"""Tables as text, and as they are written in Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    tones: tuple[str, ...] = ()


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """`value` with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", _MINUS)


def interval(mean: float, low: float, high: float, decimals: int, signed: bool = True) -> str:
    """`mean [low, high]`."""
    if mean is None or math.isnan(mean):
        return NOTHING
    ends = ", ".join(number(end, decimals, signed) for end in (low, high))
    return f"{number(mean, decimals, signed)} [{ends}]"


def probability(p: float) -> str:
    """A p value; what lies below 0.001 is not told apart."""
    if p is None or math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def markdown(table: Table) -> str:
    """The table with its caption as a heading, columns aligned so that it can be read as it is."""
    cells = [tuple(_one_line(cell) for cell in row) for row in (table.header, *table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
    cells.insert(1, tuple("-" * width for width in widths))
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |".replace("  |", "  |")
        for row in cells
    ]
    note = f"\n{table.note}\n" if table.note else ""
    return f"## {table.caption}\n\n" + "\n".join(lines) + f"\n{note}"


def latex(table: Table) -> str:
    """The table with the rules of booktabs, caption and label; needs `\\usepackage{booktabs}` and nothing else."""
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (table.header, *table.rows)]
    caption = escaped(f"{table.caption}. {table.note}" if table.note else f"{table.caption}.")
    spec = "".join(
        r"p{0.3\linewidth}"
        if max(len(row[i]) for row in table.rows or [table.header]) > _WRAPPED
        else "r"
        if i
        else "l"
        for i in range(len(table.header))
    )
    body = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(body) + "\n"


def escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def _one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
