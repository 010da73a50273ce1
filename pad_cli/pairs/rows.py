"""One row of a file or data set, what was done to it while it was read, and the words for what is wrong with one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pad_cli.errors import DataError
from pad_cli.system.progress import note

_SURROGATE = re.compile("[\ud800-\udfff]")


class Columns(Mapping[str, Any]):
    """The columns of a row, which remembers the ones that were read.

    Attributes:
        read: names that were looked up.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def unread(self) -> list[str]:
        """Names of the columns that hold something and were not looked up."""
        return [name for name, value in self._values.items() if name not in self.read and not is_blank(value)]


@dataclass(frozen=True)
class Row:
    """One row of a file or data set.

    Attributes:
        values: its columns; empty when it could not be read.
        origin: the file, or the data set's name.
        number: its line counted from 1, or its place in the data set counted from 0; no two rows have the same.
        is_line: whether `number` is a line.
        line: the line of a row that shares it with others, so that it is no number; 0 where there are no lines.
        changes: what was read in another form than it is written, or not at all; filled by what reads the row.
    """

    values: Mapping[str, Any]
    origin: str
    number: int
    is_line: bool = True
    line: int = 0
    changes: list[str] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", Columns(self.values))

    @property
    def place(self) -> str:
        """`file:line` or `dataset[row]`."""
        return f"{self.origin}:{self.number}" if self.is_line else f"{self.origin}[{self.number}]"

    def all_changes(self, unread: Container[str] = ()) -> list[str]:
        """Each of `changes` once, and the columns that hold something and were not read, but for those of `unread`."""
        assert isinstance(self.values, Columns)
        columns = [f"column '{name}' is not read" for name in self.values.unread() if name not in unread]
        return [*dict.fromkeys(self.changes), *columns]


class RowError(Exception):
    """A row that cannot be read; what raises it does not know where the row stands.

    Args:
        reason: what is wrong, the same words for every row that is wrong in the same way.
        field: the column; may be empty.
        hint: what to do.
        detail: what is special to this row.
    """

    def __init__(self, reason: str, *, field: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field, self.hint, self.detail = reason, field, hint, detail

    @property
    def kind(self) -> str:
        """Reason and field, under which such rows are counted."""
        return f"field '{self.field}': {self.reason}" if self.field else self.reason

    def at(self, row: Row) -> DataError:
        """The error that also says where."""
        line = row.number if row.is_line else row.line
        message = f"{self.reason}: {self.detail}" if self.detail else self.reason
        if line and not row.is_line:
            message = f"element {row.number} of the array: {message}"
        path = row.origin if line else row.place
        return DataError(message, path=path, line=line, field=self.field, hint=self.hint)


def note_changes(rows: Iterable[Row], unread: Container[str] = ()) -> None:
    """Say on stderr what was read differently, or not at all, and in how many rows.

    Args:
        rows: all of a file or data set, once they were read.
        unread: columns that need not be read.
    """
    counts = Counter((row.origin, change) for row in rows for change in row.all_changes(unread))
    for (origin, change), count in counts.items():
        note(f"{origin}: {change} ({count:,} row{'s' if count > 1 else ''})")


def is_unicode(value: Any) -> TypeGuard[str]:
    """A text without lone surrogates and null characters: JSON can spell them, but no tokenizer reads them."""
    return isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value)


def is_text(value: Any) -> TypeGuard[str]:
    """Such a text that says something."""
    return is_unicode(value) and bool(value.strip())


def is_blank(value: Any) -> bool:
    """Null, an empty text, list or map, or one that holds nothing else (data sets fill rows up with null)."""
    waiting = [value]  # no recursion: JSON may be nested deeper than Python's stack
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif each is not None and not (isinstance(each, str) and not each.strip()):
            return False
    return True
