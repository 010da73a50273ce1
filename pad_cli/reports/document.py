"""A report's content, and its three forms: an HTML page, Markdown, and tables on a terminal.

What a report says is stated once, as sections of lines, tables and charts; the Jinja2 templates in `templates/` lay it
out. Both environments escape everything they print, so that text from data or from a model stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

    from pad_cli.system.terminal import FigureTable

POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
"""The Content-Security-Policy of a page: nothing is fetched, and no script runs."""
MARKS = {"better": "▲", "worse": "▼"}
"""How a table marks the verdict of a comparison."""

_SPECIAL = re.compile(r"[\\`*\[\]<>|&#~]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is itself


class Cell(NamedTuple):
    """A table cell that is more than a text."""

    text: str  # the figure or word
    interval: str = ""  # its ends, in words
    mark: str = ""  # verdict of its comparison with the reference, `better` or `worse`
    value: float | None = None  # the figure in full, for programs that read the page

    def __str__(self) -> str:
        words = [self.text, f"({self.interval})" if self.interval else "", MARKS.get(self.mark, "")]
        return " ".join(filter(None, words))


Row = Mapping[str, Any]
"""A row of a JSON record."""
Column = str | Callable[[Row], str | Cell]
"""What a column shows of a row: the text under a key, or the result of a function."""


@dataclass(frozen=True)
class Table:
    """A header and rows of as many cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    align: str  # `<` or `>` for each column
    title: str = ""
    fold: str = ""  # `open` or `closed` for a table that the page lets its reader unfold

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        left: Mapping[str, Column],
        right: Mapping[str, Column],
        title: str = "",
        fold: str = "",
    ) -> Self:
        """A table of records: names of columns to what stands in them, words to the left and figures to the right."""
        columns = {**left, **right}
        cells = [[_shown(each, row) for each in columns.values()] for row in rows]
        return cls(list(columns), cells, "<" * len(left) + ">" * len(right), title, fold)

    @classmethod
    def grid(
        cls,
        rows: Iterable[Row],
        left: Mapping[str, Column],
        right: Mapping[str, Column],
        across: Callable[[Row], str],
        cell: Callable[[Row], str | Cell],
        title: str = "",
        fold: str = "",
    ) -> Self:
        """A table with a line for all records that look the same to the left, and a column for each name of `across`.

        `right` shows the first record of each line, and stands before the columns of `across`, which show `cell`.
        """
        names: dict[str, None] = {}
        lines: dict[tuple[str | Cell, ...], dict[str, Row]] = {}
        for row in rows:
            names[across(row)] = None
            lines.setdefault(tuple(_shown(each, row) for each in left.values()), {})[across(row)] = row
        cells = []
        for words, line in lines.items():
            first = next(iter(line.values()))
            figures = [_shown(each, first) for each in right.values()]
            cells.append([*words, *figures, *(cell(line[name]) if name in line else "" for name in names)])
        align = "<" * len(left) + ">" * (len(right) + len(names))
        return cls([*left, *right, *names], cells, align, title, fold)


def _shown(column: Column, row: Row) -> str | Cell:
    return row[column] if isinstance(column, str) else column(row)


class Figure(NamedTuple):
    """A chart, and what it shows."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Document:
    """A report: what a reader must know first, then sections."""

    title: str
    summary: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()


def page(document: Document, template: str = "page.html.j2", **details: Any) -> str:
    """A document as one self-contained HTML page, light or dark as its reader has it.

    The template extends `page.html.j2` and may use `details`.
    """
    values = {"document": document, "policy": Markup(POLICY), "marks": MARKS, **details}
    return templates("html").get_template(template).render(values)


def markdown(document: Document) -> str:
    """The same as Markdown; charts are left to the page."""
    return templates("markdown").get_template("page.md.j2").render(document=document).rstrip() + "\n"


def terminal_table(table: Table) -> FigureTable:
    """A table for a terminal, whose texts may come from anywhere."""
    from pad_cli.system.terminal import FigureTable

    rows = [[str(cell) for cell in row] for row in table.rows]
    return FigureTable(table.header, rows, table.align.count("<"), table.title or None)


def plain_lines(tables: Sequence[Table]) -> Iterator[str]:
    """Tables as plain text, columns aligned."""
    for number, table in enumerate(tables):
        yield from ["", table.title] if number else [table.title]
        lines = [table.header, *([str(cell) for cell in row] for row in table.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            yield f"  {'  '.join(cells)}".rstrip()


def number(path: str, digits: str = ",") -> Callable[[Row], str | Cell]:
    """A column of numbers, with all their digits behind the text that readers see; nothing where there is none.

    The path is one key, or several joined by dots, or numbers for the items of a list.
    """

    def cell(row: Row) -> str | Cell:
        value: Any = row
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list | tuple) else value[key]
        return "" if value is None else Cell(f"{value:{digits}}", value=value)

    return cell


def escaped(text: object) -> str:
    """Text of unknown origin so that Markdown shows it as it is, on one line."""
    return _SPECIAL.sub(lambda match: "\\" + match.group(), " ".join(str(text).split()))


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some keys, in the order in which these first appear."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


@cache
def templates(form: str) -> Environment:
    """The templates beside this module, for `html`, `markdown` or `plain` output.

    Jinja2 escapes HTML by itself; for Markdown `finalize` does it, which sees every value that is printed. A plain
    template escapes on its own, and prints nothing for a value that is not there.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

    return Environment(
        loader=PackageLoader("pad_cli.reports"),
        undefined=Undefined if form == "plain" else StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=form == "html",
        finalize=escaped if form == "markdown" else None,
    )
