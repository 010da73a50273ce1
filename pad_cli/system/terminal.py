"""What is printed: a text from data or from a model never steers the terminal that shows it.

A terminal obeys control characters: it recolours, moves its cursor back over what it said, renames its window, writes
the clipboard (OSC 52), or shows a link that leads elsewhere (OSC 8). Here each becomes a character that can be seen,
one for one, so that it plays no part how a text is cut into pieces. Rich's markup is never read from a text.

Where the output's encoding lacks a character, "?" stands in its place, and an escape in JSON: no answer is lost.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they let a text read otherwise than it is
_LINES = "\u2028\u2029"
_SURROGATES = "\ud800-\udfff"  # no output can encode them
_UNSAFE = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_LINES}{_SURROGATES}]")
_UNWRITABLE = re.compile(f"[{_SURROGATES}]")
_PICTURES, _DELETE = 0x2400, "\u2421"  # Unicode's pictures of control characters


def neutralised(text: str) -> str:
    """The text with a visible character in place of each that a terminal obeys; line ends and tabs stay.

    Example:
        >>> neutralised("a" + chr(27) + "[31mb")
        'a␛[31mb'
    """
    return _UNSAFE.sub(_picture, text)


def say(text: object = "", *, end: str = "\n", stderr: bool = False) -> None:
    """Print a line of the result, or of talk.

    A result that goes to a file or another program is left as it is, but for lone surrogates, which nothing can write.

    Args:
        text: may come from anywhere.
        end: what follows it.
        stderr: it is talk.
    """
    stream = sys.stderr if stderr else sys.stdout
    shown = neutralised(str(text)) if stderr or stream.isatty() else _UNWRITABLE.sub("\ufffd", str(text))
    print(_encodable(shown, stream.encoding, stream.errors), end=end, file=stream, flush=True)


def say_json(row: Any, *, indent: int | None = None) -> None:
    """Print a row of the result as JSON, on one line unless indented; it reads back the same, whatever it holds."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(row, ensure_ascii=not unicode, indent=indent)
    say(_UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def say_table(*renderables: RenderableType, stderr: bool = False, width: int | None = None) -> None:
    """Print tables and styled lines; see `console`."""
    console(stderr=stderr, width=width).print(*renderables)


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A Rich console, for tables and styled lines; whatever they hold is neutralised, on a terminal or not.

    Args:
        stderr: it is for talk.
        width: in columns; by default the terminal's.
        soft_wrap: leave it to the terminal to break lines.
    """
    return _Console(stderr=stderr, width=width, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


class _Console(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every text passes here on its way out, those in cells and titles of tables, too; then what Rich draws."""
        if isinstance(renderable, str):
            renderable = self._shown(renderable)
        elif isinstance(renderable, Text) and (shown := self._shown(renderable.plain)) != renderable.plain:
            renderable = renderable.copy()
            renderable.plain = shown
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self._encodable(segment.text))

    def _shown(self, text: str) -> str:
        return self._encodable(neutralised(text))

    def _encodable(self, text: str) -> str:
        return _encodable(text, self.encoding, getattr(self.file, "errors", None))


def _encodable(text: str, encoding: str | None, errors: str | None) -> str:
    """The text with "?" in place of each character that an output cannot take.

    Args:
        text: what is to be written.
        encoding: of the output; None for one in memory, which takes everything.
        errors: what the output itself does about such characters; None for nothing.
    """

    def takes(part: str) -> bool:
        try:
            part.encode(encoding or "utf-8", errors or "strict")
        except UnicodeEncodeError:
            return False
        return True

    return text if takes(text) else "".join(letter if takes(letter) else "?" for letter in text)


class FittingTable(Table):
    """A Rich table of texts that fits a terminal of any width, and in which no word is broken.

    One that is too wide wraps its cells between words. Where that is not enough, its columns are spread over several
    tables, each with the leading columns: those before the first that is right-justified, and always the first. A word
    is broken only where it is wider than its column could ever be: beside the leading columns, or in a column of fixed
    ratio. Cells that are no texts are as wide as Rich makes them.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, part in enumerate(_parts(self, options.max_width)):
            if number:
                yield Segment.line()
            yield from super(FittingTable, part).__rich_console__(console, options)


def _parts(table: FittingTable, width: int) -> Iterator[FittingTable]:
    """A table as one or several that are at most so many columns wide."""
    measured = [_measured(table, column) for column in table.columns]
    columns = [each for each in measured if each is not None]
    width -= 2 * (table.box is not None and table.show_edge) - (table.box is not None)  # a column counts its own line
    if len(columns) < len(measured) or sum(each.most for each in columns) <= width:
        yield _part(table, table.columns, width)
        return
    keys = 1 + next((number for number, each in enumerate(table.columns[1:]) if each.justify == "right"), 0)
    left, right = columns[:keys], columns[keys:]
    widest = min(max((each.least for each in right), default=0), width // 2)
    left = _narrowed(left, width - widest)
    room = width - sum(each.least for each in left)
    groups: list[list[_Measured]] = [[]]
    for column in (each._replace(least=min(each.least, room)) for each in right):
        if groups[-1] and sum(each.least for each in (*groups[-1], column)) > room:
            groups.append([])
        groups[-1].append(column)
    for number, group in enumerate(groups):
        part = _part(table, list(_spread([*left, *group], width)), width)
        part.title = table.title if number == 0 else None
        part.caption = table.caption if number == len(groups) - 1 else None
        yield part


class _Measured(NamedTuple):
    """A column and its least and most width, in which its longest word or its longest line fits.

    `around` of it are padding and a line of the box.
    """

    column: Column
    least: int
    most: int
    around: int


def _measured(table: Table, column: Column) -> _Measured | None:
    cells = [*([column.header] if table.show_header else []), *column.cells]
    if column.ratio is not None or not all(isinstance(cell, str | Text) for cell in cells):
        return None
    word, line = zip(*(_letters(cell) for cell in cells), strict=True) if cells else ((0,), (0,))
    around = table.padding[1] + table.padding[3] + (table.box is not None)
    most = max(*line, column.min_width or 0) + around
    return _Measured(column, most if column.no_wrap else max(word) + around, most, around)


def _letters(text: Any) -> tuple[int, int]:
    """The cells of the longest word of a text, and of its longest line."""
    lines = neutralised(str(text)).splitlines()
    words = (word for line in lines for word in line.split())
    return max(map(cell_len, words), default=0), max(map(cell_len, lines), default=0)


def _narrowed(columns: list[_Measured], width: int) -> list[_Measured]:
    """The columns with their least widths made smaller, the largest first, until they fit."""
    while sum(each.least for each in columns) > max(width, sum(each.around + 1 for each in columns)):
        widest = max(range(len(columns)), key=lambda number: columns[number].least - columns[number].around)
        columns = [each._replace(least=each.least - (n == widest)) for n, each in enumerate(columns)]
    return columns


def _spread(columns: Sequence[_Measured], width: int) -> Iterator[Column]:
    """Columns of fixed width: what room there is beyond the longest words makes as many lines as possible whole."""
    widths = [each.least for each in columns]
    spare = max(width - sum(widths), 0)
    by_need = sorted(range(len(columns)), key=lambda number: columns[number].most - columns[number].least)
    for place, number in enumerate(by_need):
        more = min(columns[number].most - widths[number], spare // (len(columns) - place))
        widths[number] += more
        spare -= more
    for number, (each, given) in enumerate(zip(columns, widths, strict=True)):
        whole = each.column.no_wrap and given == each.most
        yield replace(each.column, _index=number, width=given - each.around, no_wrap=whole, overflow="fold")


def _part(table: FittingTable, columns: list[Column], width: int) -> FittingTable:
    """The table with these columns, so wide that the words of its title and caption fit."""
    part = copy(table)
    part.columns = columns
    words = [_letters(text)[0] for text in (table.title, table.caption) if text]
    part.min_width = max([part.min_width or 0, *(min(word, width) for word in words)])
    return part


def _picture(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(_PICTURES + code)
    return _DELETE if code == 0x7F else "\ufffd"
