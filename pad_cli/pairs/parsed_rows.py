"""Rows of files and data sets, what a pair format makes of them, and what is wrong with one."""

from __future__ import annotations

import re
from collections import Counter, UserDict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from pad_cli.errors import DataError
from pad_cli.records import Messages
from pad_cli.system.progress import note

_SURROGATE = re.compile("[\ud800-\udfff]")


class Columns(UserDict[str, Any]):
    """The columns of a row, which remember whether they were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.unread = {name for name, value in values.items() if not is_blank(value)}

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)


class RowError(Exception):
    """A row that cannot be read, raised where its place is not known.

    `reason` has the same words for every row that is wrong in the same way; `detail` is special to this row.
    """

    def __init__(self, reason: str, *, field: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field, self.hint, self.detail = reason, field, hint, detail

    @property
    def kind(self) -> str:
        """Reason and field, under which such rows are counted."""
        return f"field '{self.field}': {self.reason}" if self.field else self.reason

    def at(self, row: Row) -> DataError:
        """The same with the row's place."""
        message = f"{self.reason}: {self.detail}" if self.detail else self.reason
        path, line = (row.origin, row.number) if row.is_line else (row.place, 0)
        return DataError(message, path=path, line=line, field=self.field, hint=self.hint)


@dataclass(frozen=True)
class Row:
    """One row of a file or data set."""

    values: Columns  # empty when it could not be parsed
    origin: str  # the file, or the data set's name
    number: int  # its line counted from 1, or its index counted from 0; unique in its origin
    is_line: bool = True  # whether `number` is a line
    # Parts of its columns that are not read; filled by what reads the row
    changes: list[str] = field(default_factory=list, compare=False)
    problem: RowError | None = None  # why it could not be parsed

    @property
    def place(self) -> str:
        """`file:line` or `dataset[row]`."""
        return f"{self.origin}:{self.number}" if self.is_line else f"{self.origin}[{self.number}]"

    def all_changes(self, unread: Container[str] = ()) -> list[str]:
        """Each of `changes` once, and the columns that were not read, except those that need not be."""
        names = [name for name in self.values if name in self.values.unread and name not in unread]
        return [*dict.fromkeys(self.changes), *(f"column '{name}' is not read" for name in names)]


@dataclass(frozen=True)
class RawPair:
    """A preference pair whose preference is still spelt as the row spells it."""

    prompt: Messages
    preference: Any
    chosen: str
    rejected: str


@dataclass(frozen=True)
class ParsedRows:
    """What a pair format made of one row, or of rows that belong together."""

    rows: tuple[Row, ...]  # these rows
    pairs: tuple[RawPair, ...] = ()  # the pairs in them
    reason: str = ""  # why there are none
    parts: tuple[str, ...] = ()  # why parts of the rows gave none, once for each part
    problem: RowError | None = None  # what is wrong, when the rows cannot be read


Reading = ParsedRows
"""Its former name, for plug-ins."""


class PairFormat(Protocol):
    """What the registry `pair_formats` holds: a callable of a recipe's `options` that returns this."""

    def read(self, rows: Sequence[Row]) -> Iterable[ParsedRows]:
        """Every row in exactly one item."""
        ...


def note_changes(rows: Iterable[Row], unread: Container[str] = ()) -> None:
    """Say on stderr what was not read, and in how many rows."""
    counts = Counter((row.origin, change) for row in rows for change in row.all_changes(unread))
    for (origin, change), count in counts.items():
        note(f"{origin}: {change} ({count:,} row{'s' if count > 1 else ''})")


def is_unicode(value: Any) -> TypeGuard[str]:
    """Text without lone surrogates and null characters: JSON can spell them, but no tokenizer reads them."""
    return isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value)


def is_text(value: Any) -> TypeGuard[str]:
    """Such text that is not blank."""
    return is_unicode(value) and bool(value.strip())


def is_blank(value: Any) -> bool:
    """Null, an empty text, list or map, or one that holds nothing else (data sets fill rows up with null)."""
    waiting = [value]  # no recursion: JSON may be nested deeper than Python's stack
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        elif part is not None and not (isinstance(part, str) and not part.strip()):
            return False
    return True
