"""Everything that is printed passes here, so that text from data or from a model never controls the terminal.

A terminal obeys control characters: it recolours, moves its cursor, renames its window, writes the clipboard (OSC 52)
or shows a link that leads elsewhere (OSC 8). Each becomes one visible character. Rich's markup is never read from text.
A character that the output's encoding lacks becomes "?", or an escape in JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they let a text read otherwise than it is
_SURROGATES = "\ud800-\udfff"  # no output can encode them
_UNSAFE = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029{_SURROGATES}]")
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}  # of control characters, in Unicode
_UNLIMITED = 100_000  # columns: a width that wraps nothing


def neutralised(text: str) -> str:
    """The text with a visible character in place of each that a terminal obeys; line ends and tabs stay.

    Example:
        >>> neutralised("a" + chr(27) + "[31mb")
        'a␛[31mb'
    """
    return _UNSAFE.sub(lambda match: _PICTURES.get(ord(match[0]), "\ufffd"), text)


def say(text: object = "", *, end: str = "\n", stderr: bool = False) -> None:
    """Print a line: a result on stdout, or a message on stderr.

    A result that goes to a file or to another program is not neutralised.
    """
    stream = sys.stderr if stderr else sys.stdout
    on_terminal = stderr or stream.isatty()
    safe = neutralised(str(text)) if on_terminal else re.sub(f"[{_SURROGATES}]", "\ufffd", str(text))
    print(_encodable(safe, stream), end=end, file=stream, flush=True)


def say_json(row: Any, *, indent: int | None = None) -> None:
    """Print a row of the result as JSON, on one line unless indented; texts read back the same, whatever they hold."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(row, ensure_ascii=not unicode, indent=indent, default=str)
    say(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def say_table(*renderables: RenderableType, stderr: bool = False) -> None:
    """Print tables and styled lines; see `console`."""
    console(stderr=stderr).print(*renderables)


def console(*, stderr: bool = False) -> Console:
    """A Rich console for tables and styled lines, which neutralises all text, on a terminal or not."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class _Console(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All text passes here before Rich measures it, also that in cells and titles of tables."""
        if isinstance(renderable, str):
            renderable = _encodable(neutralised(renderable), self.file)
        elif isinstance(renderable, Text):
            renderable = renderable.copy()
            renderable.plain = _encodable(neutralised(renderable.plain), self.file)
        for segment in super().render(renderable, options):  # what Rich draws itself may not be encodable either
            yield segment if segment.control else segment._replace(text=_encodable(segment.text, self.file))


def _encodable(text: str, stream: Any) -> str:
    """The text with "?" in place of each character that a stream can neither encode nor escapes by itself."""
    encoding, errors = getattr(stream, "encoding", None) or "utf-8", getattr(stream, "errors", None) or "strict"
    try:
        text.encode(encoding, errors)
    except UnicodeEncodeError:
        return text.encode(encoding, "replace").decode(encoding)
    return text


class FittingTable(Table):
    """A Rich table of texts that fits a terminal of any width and breaks no word.

    One that is too wide wraps its cells between words. Where that is not enough, its columns are spread over several
    tables, each with the leading columns: those before the first that is right-justified, and always the first. A word
    is broken only where it is wider than the space beside the leading columns, or in a column of fixed ratio.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, part in enumerate(self._parts(console, options)):
            if number:
                yield Segment.line()
            yield from super(FittingTable, part).__rich_console__(console, options)

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[FittingTable]:
        line = int(self.box is not None)  # every column counts the line to its left as its own
        room = options.max_width - (line if self.show_edge else -line)
        around = self.padding[1] + self.padding[3] + line
        unlimited = options.update(width=_UNLIMITED)
        measured = [(column, self._measure_column(console, unlimited, column)) for column in self.columns]
        most = [size.maximum + line for _, size in measured]
        if sum(most) <= room or any(column.ratio is not None for column in self.columns):
            yield self._part(self.columns, room)
            return
        least = [size.maximum + line if column.no_wrap else size.minimum + line for column, size in measured]
        keys = 1 + next((number for number, each in enumerate(self.columns[1:]) if each.justify == "right"), 0)
        for_others = min(max(least[keys:], default=0), room // 2)
        while sum(least[:keys]) > max(room - for_others, keys * (around + 1)):
            least[least.index(max(least[:keys]))] -= 1
        beside = room - sum(least[:keys])
        groups: list[list[int]] = [[]]
        for number in range(keys, len(least)):
            least[number] = min(least[number], beside)
            if groups[-1] and sum(least[each] for each in (*groups[-1], number)) > beside:
                groups.append([])
            groups[-1].append(number)
        for group in groups:
            numbers = [*range(keys), *group]
            widths = _spread([least[each] for each in numbers], [most[each] for each in numbers], room)
            columns = [
                replace(self.columns[each], _index=place, width=width - around, no_wrap=False, overflow="fold")
                for place, (each, width) in enumerate(zip(numbers, widths, strict=True))
            ]
            part = self._part(columns, room)
            part.title = self.title if group is groups[0] else None
            part.caption = self.caption if group is groups[-1] else None
            yield part

    def _part(self, columns: list[Column], room: int) -> FittingTable:
        """The table with these columns, wide enough for the words of its title and caption."""
        part = copy(self)
        part.columns = columns
        words = f"{self.title or ''} {self.caption or ''}".split()
        part.min_width = max([self.min_width or 0, *(min(cell_len(word), room) for word in words)])
        return part


def _spread(widths: list[int], most: list[int], room: int) -> list[int]:
    """Widths that share the free room such that as many columns as possible need not wrap."""
    free = max(room - sum(widths), 0)
    by_need = sorted(range(len(widths)), key=lambda number: most[number] - widths[number])
    for place, number in enumerate(by_need):
        more = min(most[number] - widths[number], free // (len(widths) - place))
        widths[number] += more
        free -= more
    return widths
