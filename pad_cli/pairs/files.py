"""Rows of a file: JSON lines, one JSON array, CSV or Parquet, compressed or not; what else it is is named.

A file is known by its first bytes, not by its name; only CSV and TSV, which have none of their own, by their ending.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pad_cli.errors import DataError
from pad_cli.pairs.rows import Row, RowError

Scanned = tuple[Row, RowError | None]
"""A row, and what is wrong with it, if anything."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_KINDS = "Rows are JSON lines, one JSON array, CSV or Parquet; each may be compressed with gzip, bzip2 or xz."


class _Compression(NamedTuple):
    name: str
    suffixes: tuple[str, ...]
    unpack: Callable[[bytes], bytes]


_COMPRESSIONS = {
    b"\x1f\x8b": _Compression("gzip", (".gz", ".gzip"), gzip.decompress),
    b"BZh": _Compression("bzip2", (".bz2",), bz2.decompress),
    b"\xfd7zXZ\0": _Compression("xz", (".xz",), lzma.decompress),
}
_PARQUET = b"PAR1"
_OTHERS = {
    b"PK\x03\x04": ("a zip archive", "Unpack it (a spreadsheet, .xlsx: save it as CSV), and name the file in it."),
    b"PK\x05\x06": ("an empty zip archive", _KINDS),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it: zstd -d FILE. Only gzip, bzip2 and xz are read here."),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "Unpack it, and name the file in it."),
    b"ARROW1": ("an Arrow file", "Name its directory as a `dataset`, or save it as Parquet or JSON lines."),
    b"\xff\xff\xff\xff": ("an Arrow stream", "Name its directory as a `dataset`, or save it as Parquet or JSON lines."),
    b"ORC": ("an ORC file", "Save it as Parquet or JSON lines."),
    b"Obj\x01": ("an Avro file", "Save it as Parquet or JSON lines."),
    b"SQLite format 3\0": ("an SQLite database", "Export the table: sqlite3 -json FILE 'select ...' > rows.json"),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "Save it as Parquet or JSON lines."),
    b"\x93NUMPY": ("a NumPy array", "Save the rows as Parquet or JSON lines."),
    b"%PDF": ("a PDF document", _KINDS),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8: iconv -f utf-16 -t utf-8 FILE"),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8: iconv -f utf-16 -t utf-8 FILE"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "Fetch the data: git lfs pull"),
    b"<!DOCTYPE": ("a web page", "Fetch the file itself: its download link, not the page that shows it."),
    b"<html": ("a web page", "Fetch the file itself: its download link, not the page that shows it."),
    **{
        bytes([0x80, protocol]): ("a Python pickle, which is never opened", "Save the rows as JSON lines.")
        for protocol in range(2, 6)
    },
}


def read_rows(path: Path) -> list[Row]:
    """Every row of a file.

    Raises:
        DataError: the file is missing or of another kind, or a row cannot be read.
    """
    rows = []
    for row, problem in scan_file(path):
        if problem is not None:
            raise problem.at(row) from problem
        rows.append(row)
    return rows


def scan_file(path: Path) -> Iterator[Scanned]:
    """Every row of a file, with what is wrong with it, if anything; blank lines are skipped.

    Raises:
        DataError: the file is missing, damaged, or of a kind that holds no rows.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot be read: {reason}", path=path, hint="Check the path.") from error
    data, ending = _unpacked(data, path)
    if data.startswith(_PARQUET):
        yield from _parquet(data, path)
        return
    text = _decoded(data, path)
    if ending in _DELIMITERS:
        yield from _table(text, _DELIMITERS[ending], str(path))
    elif text.lstrip().startswith("["):
        yield from _array(text, str(path))
    else:
        yield from _lines(text, str(path))


def _unpacked(data: bytes, path: Path) -> tuple[bytes, str]:
    """A file's content without its compression, and the ending that its name would have then."""
    ending = path.suffix.lower()
    for magic, compression in _COMPRESSIONS.items():
        if data.startswith(magic):
            if ending in compression.suffixes:
                ending = PurePath(path.stem).suffix.lower()
            try:
                return compression.unpack(data), ending
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise DataError(
                    f"compressed with {compression.name}, and damaged: {error}", path=path, hint="Fetch it again."
                ) from error
    return data, ending


def _decoded(data: bytes, path: Path) -> str:
    """UTF-8 text, with or without a byte order mark, its line ends as `\\n`."""
    if data[257:262] == b"ustar":
        raise DataError("a tar archive, not a file of rows", path=path, hint="Unpack it, and name the file in it.")
    for magic, (kind, hint) in _OTHERS.items():
        if data.startswith(magic):
            raise DataError(f"{kind}, not a file of rows", path=path, hint=hint)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = f"Save it as UTF-8, for example with iconv. {_KINDS}"
        raise DataError("not UTF-8 text", path=path, line=line, hint=hint) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Parser:
    """JSON whose objects have distinct keys."""

    def __init__(self) -> None:
        self._duplicated: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def at(self, text: str, position: int) -> tuple[Any, int]:
        """The value at a position, and where it ends; a RowError in its place if it is no row.

        Raises:
            ValueError, RecursionError: not JSON.
        """
        self._duplicated.clear()
        value, end = self._decoder.raw_decode(text, position)
        if self._duplicated:
            hint = "Only one of the two could be read: leave the other out."
            return RowError("the key is duplicated", field=self._duplicated[0], hint=hint), end
        if not isinstance(value, dict):
            return RowError("not a JSON object", hint='Write {"prompt": ...} a line.'), end
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            self._duplicated.append(next(key for key in keys if keys.count(key) > 1))
        return made


def _lines(text: str, origin: str) -> Iterator[Scanned]:
    parser, lines = _Parser(), text.split("\n")
    for number, line in enumerate(lines, start=1):
        line = line.lstrip("\ufeff")  # files with a byte order mark, one after the other
        if line.strip():
            yield _scanned(_line(parser, line, is_end=number == len(lines)), origin, number, is_line=True)


def _line(parser: _Parser, line: str, *, is_end: bool) -> dict[str, Any] | RowError:
    """One line's object; `is_end` says that the file ends in it, without a line end."""
    if "\0" in line:
        hint = "Save the file as UTF-8 text; a crash while writing leaves nulls too."
        return RowError("holds null bytes", hint=hint)
    try:
        value, end = parser.at(line, _skip(line, 0))
        if _skip(line, end) < len(line):
            raise json.JSONDecodeError("Extra data", line, end)
    except (ValueError, RecursionError) as error:
        hint = "The file ends in this line: it was cut off. Write it again." if is_end else "One JSON object a line."
        if line.strip() == "{":
            hint = "An object over several lines: write each in one line, or all of them as one JSON array."
        return RowError("not JSON", detail=str(error), hint=hint)
    found: dict[str, Any] | RowError = value
    return found


def _array(text: str, origin: str) -> Iterator[Scanned]:
    """The elements of a JSON array, by their lines where each begins on one of its own, else by their number."""
    elements = list(_elements(text))
    lines, line, counted = [], 1, 0
    for start, _ in elements:
        line += text.count("\n", counted, start)
        counted = start
        lines.append(line)
    apart = len(set(lines)) == len(lines)
    for number, (line, (_, value)) in enumerate(zip(lines, elements, strict=True)):
        if apart:
            yield _scanned(value, origin, line, is_line=True)
        else:
            yield _scanned(value, origin, number, is_line=False, line=line)


def _elements(text: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Where each element of the array begins, and the element; the last one may be what is wrong with the array."""
    parser, position = _Parser(), _skip(text, text.index("[") + 1)
    more = not text.startswith("]", position)
    if not more:
        yield 0, RowError("a JSON array without elements", hint="Write one object for each row.")
    while more:
        try:
            value, end = parser.at(text, position)
            yield position, value
            position = _skip(text, end)
            more = text.startswith(",", position)
            if not more and not text.startswith("]", position):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
        except (ValueError, RecursionError) as error:
            cut = position >= len(text.rstrip())
            hint = "The file ends in the array: it was cut off. Write it again." if cut else "One JSON array a file."
            yield position, RowError("not JSON", detail=str(error), hint=hint)
            return
        position = _skip(text, position + 1) if more else position
    rest = _skip(text, position + 1)
    if rest < len(text):
        hint = "One JSON array a file, or one JSON object a line."
        yield rest, RowError("more text after the JSON array", hint=hint)


def _skip(text: str, position: int) -> int:
    """The next position that is no white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _table(text: str, delimiter: str, origin: str) -> Iterator[Scanned]:
    """CSV with the names of the columns in its first row; every cell is a text."""
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or ()
        if twice := [name for name in names if names.count(name) > 1]:
            hint = "Give each column a name of its own in the first line."
            raise DataError("the column is duplicated", path=origin, line=1, field=twice[0], hint=hint)
        for cells in reader:
            value: dict[str, Any] | RowError = cells
            if None in cells:
                value = RowError("more cells than columns", hint='Quote texts that hold the delimiter: "a, b".')
            yield _scanned(value, origin, reader.line_num, is_line=True)
    except csv.Error as error:
        problem = RowError("not CSV", detail=str(error), hint="Quote texts, and double the quotes in them.")
        yield _scanned(problem, origin, reader.reader.line_num, is_line=True)


def _parquet(data: bytes, path: Path) -> Iterator[Scanned]:
    arrow = importlib.import_module("pyarrow")  # large, and most files are text
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        rows = parquet.read_table(arrow.BufferReader(data)).to_pylist(maps_as_pydicts="strict")
    except (arrow.ArrowException, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"Parquet that cannot be read: {reason}", path=path, hint="Write or fetch it again.") from error
    for number, values in enumerate(rows):
        yield Row(values, str(path), number, is_line=False), None


def _scanned(value: dict[str, Any] | RowError, origin: str, number: int, *, is_line: bool, line: int = 0) -> Scanned:
    if isinstance(value, RowError):
        return Row({}, origin, number, is_line, line), value
    return Row(value, origin, number, is_line, line), None
