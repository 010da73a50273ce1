"""Everything that is printed passes here, so that text from data or from a model never controls the terminal.

A terminal obeys control characters: it recolours, moves its cursor, renames its window, writes the clipboard (OSC 52)
or shows a link that leads elsewhere (OSC 8). Each becomes one visible character. Rich's markup is never read from text.
A character that the output's encoding lacks becomes "?", or an escape in JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they let a text read otherwise than it is
_SURROGATES = "\ud800-\udfff"  # no output can encode them
_UNSAFE = re.compile(f"[\0-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029{_SURROGATES}]")
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}  # of control characters, in Unicode


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


def say_json(row: Any) -> None:
    """Print a row of the result as JSON, on one line; texts read back the same, whatever they hold."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(row, ensure_ascii=not unicode, default=str)
    say(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def say_table(*renderables: RenderableType, stderr: bool = False) -> None:
    """Print tables and styled lines; see `console`."""
    console(stderr=stderr).print(*renderables, crop=False)


def text_table(
    header: Iterable[str],
    rows: Iterable[Iterable[str | Text]],
    *,
    texts: int | None = None,
    title: str | None = None,
    side_by_side: bool = False,
) -> Table:
    """A table whose cells are wrapped between words only: where words do not fit, it is wider than the terminal.

    Args:
        texts: leading columns that are left-justified, all by default; the others hold figures.
        side_by_side: the cells are long texts, which get boxes of equal width.
    """
    names = list(header)
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    table = Table(
        title=None if title is None else Text(title, style="bold"),
        title_justify="left",
        box=HEAVY_HEAD if side_by_side else None,
        padding=(0, 1) if side_by_side else (0, 1, 0, 0),
        header_style="bold" if side_by_side else "bold underline",
        show_lines=side_by_side,
        expand=side_by_side,
    )
    for number, (name, *column) in enumerate(zip(names, *cells, strict=True)):
        words = f"{name} {' '.join(map(str, column))}".split()
        table.add_column(
            Text(name),
            justify="left" if texts is None or number < texts else "right",
            overflow="fold",
            no_wrap=texts is not None and number >= texts,
            min_width=None if side_by_side else max(map(cell_len, words), default=0),
            ratio=1 if side_by_side else None,
        )
    for row in cells:
        table.add_row(*row)
    return table


@dataclass(frozen=True)
class FigureTable:
    """A `text_table` whose figures stay whole: columns that do not fit beside the others follow in a further table."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int
    title: str | None = None

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = [(name, *column) for name, *column in zip(self.header, *self.rows, strict=True)]
        words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
        room = options.max_width - sum(1 + width for width in words[: self.texts])
        parts: list[list[int]] = [[]]
        used = 0
        for number in range(self.texts, len(columns)):
            width = 1 + max(map(cell_len, columns[number]))
            if parts[-1] and used + width > room:
                parts.append([])
                used = 0
            parts[-1].append(number)
            used += width
        for place, part in enumerate(parts):
            chosen = [columns[number] for number in (*range(self.texts), *part)]
            header, *rows = zip(*chosen, strict=True)
            if place:
                yield Text()
            yield text_table(header, rows, texts=self.texts, title=None if place else self.title)


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
