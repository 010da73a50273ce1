"""What is printed (floor 1): a text from data or from a model never steers the terminal that shows it.

A terminal obeys control characters: it recolours, moves its cursor back over what it said, renames its window, writes
the clipboard (OSC 52), or shows a link that leads elsewhere (OSC 8). Here each becomes a character that can be seen,
one for one, so that it plays no part how a text is cut into pieces. Rich's markup is never read from a text.

Where the output's encoding lacks a character, "?" stands in its place, and an escape in JSON: no answer is lost.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
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


def _picture(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(_PICTURES + code)
    return _DELETE if code == 0x7F else "\ufffd"
