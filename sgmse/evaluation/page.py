"""The pages of evaluation, sweep and experiments: folders of HTML, tables, figures and sounds that need no network.

A page is made of sections; those who write one say what stands in each. Its tables lie beside it as Markdown and LaTeX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from sgmse.common.errors import UserError
from sgmse.common.files import whole_folder, write_text
from sgmse.evaluation import figures, listening
from sgmse.evaluation.tables import Table, latex, markdown

INDEX, MARKDOWN, LATEX = "index.html", "tables.md", "tables.tex"
_MARKS = (MARKDOWN, "overview.png")  # beside index.html: what tells a page of ours from any other folder


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: of the section; its words in the navigation.
        text: what a reader must know before the numbers.
        cards: short answers, each with tone (a CSS class), figure, small (beside it), text and verdicts (text, tone).
        figures: pictures beside the page, each with what it shows.
        tables: with their captions as headings. folded: those that open on a click.
    """

    title: str
    text: str = ""
    cards: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()

    @property
    def id(self) -> str:
        return "-".join("".join(char if char.isalnum() else " " for char in self.title.lower()).split())


@contextmanager
def page_folder(out: Path, flag: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when the block ends without an error; an older page is replaced.

    flag: the setting that names another place. Raises as `check_place` does.
    """
    check_place(out, flag)
    with whole_folder(out) as part:
        yield part


def check_place(out: Path, flag: str) -> None:
    """Raise `UserError` where something else than a page lies at `out`."""
    is_ours = (out / INDEX).is_file() and any((out / mark).is_file() for mark in _MARKS)
    if out.exists() and not is_ours and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is no page of this command; choose another {flag}")


def write_sections(
    folder: Path,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    remarks: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write index.html, and all tables in tables.md and tables.tex.

    remarks: what to know before any number. links: files of the folder, by the words of the navigation. data: what
    `listening_data` returns; the players then stand before the last section.
    """
    tables = [table for section in sections for table in (*section.tables, *section.folded)]
    write_text(folder / MARKDOWN, f"# {title}\n\n{subtitle}\n\n" + "\n".join(map(markdown, tables)))
    opening = f"% {title}. {subtitle}\n% \\usepackage{{booktabs}}\n\n"
    write_text(folder / LATEX, opening + "\n".join(map(latex, tables)))
    shown: dict[str, Any] = {"title": title, "subtitle": subtitle, "sections": sections, "remarks": remarks}
    shown |= {"links": dict(links or {}) | {"Markdown": MARKDOWN, "LaTeX": LATEX}}
    write_html(folder / INDEX, "page.html", **shown, data=None if data is None else json_for_script(data))


def listening_data(
    items: Sequence[Mapping[str, Any]],
    views: Sequence[Mapping[str, Any]],
    rank: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """What the script of the players reads.

    Args:
        items: see `listening.write_versions`; besides, each has set, file, kind, snr, and its panels scores and value.
        views: see `listening.make_views`.
        rank: title and decimals of the number by which rows are ordered, and is_difference: whether that of the last
            system of a view is told less that of the system it is against.
    """
    data = {"items": list(items), "views": list(views), "rank": dict(rank), "opus": listening.has_opus(), **more}
    return data | {"page": f"votes-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]}"}


def write_html(path: Path, template: str, **values: Any) -> None:
    """Fill a template of the folder templates. What all pages need of our constants is known to it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("sgmse") / "evaluation" / "templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = {"range_db": round(figures.RANGE_DB), "colours": figures.scale_colours()}
    write_text(path, environment.get_template(template).render(shared | values))


def json_for_script(data: object) -> markupsafe.Markup:
    """`data` as the text of a script element, which nothing in it can end or open anew."""
    return markupsafe.Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))
