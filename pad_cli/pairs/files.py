"""Rows of JSON files (one object a line, or one array), and of whatever `datasets` loads."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.pairs.parsed_rows import Columns, Row, RowError
from pad_cli.recipe import PairsSettings
from pad_cli.system.offline import hub_hint

_UNREADABLE = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip archive, or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"version https://git-lfs": "a pointer of Git LFS, not the data (git lfs pull)",
    b"\x80": "binary (a Python pickle is never opened)",
}
_KINDS = (
    "Rows are JSON lines or one JSON array, as UTF-8. Where a recipe takes a `dataset`, name the directory of a CSV, "
    'Parquet or compressed file; elsewhere convert it: python -c "from datasets import load_dataset; '
    "load_dataset('csv', data_files='rows.csv')['train'].to_json('rows.jsonl')\""
)
_JSON_HINT = "One JSON object a line, or one JSON array a file; a file that ends in the middle was cut off."


def read_rows(path: Path) -> list[Row]:
    """Every row of a file.

    Raises:
        DataError: the file is missing or of another kind, or a row cannot be parsed.
    """
    rows = list(scan_file(path))
    for row in rows:
        if row.problem is not None:
            raise row.problem.at(row) from row.problem
    return rows


def scan_file(path: Path) -> Iterator[Row]:
    """Every row of a file, those too that cannot be parsed; blank lines are skipped."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot be read: {reason}", path=path, hint="Check the path.") from error
    kind = next((kind for magic, kind in _UNREADABLE.items() if data.startswith(magic)), "")
    if kind or path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(f"{kind or 'a table of cells'}, not a file of rows", path=path, hint=_KINDS)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", path=path, line=data.count(b"\n", 0, error.start) + 1, hint=_KINDS) from error
    return (_array_rows if text.lstrip().startswith("[") else _line_rows)(text, str(path))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must be distinct."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            hint = "Only one value could be read: leave the other out."
            raise RowError("the key is duplicated", field=key, hint=hint)
        values[key] = value
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _decode(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise RowError("not JSON", detail=str(error), hint=_JSON_HINT) from error


def _line_rows(text: str, origin: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _row(_decode(line), origin, number)
            except RowError as problem:
                yield Row(Columns({}), origin, number, problem=problem)


def _array_rows(text: str, origin: str) -> Iterator[Row]:
    """The elements of a JSON array, by their index; damage is an error of the whole file."""
    try:
        elements = _decode(text)
    except RowError as problem:
        raise problem.at(Row(Columns({}), origin, 0)) from problem
    for number, value in enumerate(elements):
        yield _row(value, origin, number, is_line=False)


def _row(value: Any, origin: str, number: int, *, is_line: bool = True) -> Row:
    if isinstance(value, dict):
        return Row(Columns(value), origin, number, is_line)
    problem = RowError("not a JSON object", hint='Write {"prompt": ...} a line.')
    return Row(Columns({}), origin, number, is_line, problem=problem)


def scan_data_set(settings: PairsSettings) -> Iterator[Row]:
    """Every row of the split of a data set: on the hub, in a directory of files, or written by `save_to_disk`."""
    library = importlib.import_module("datasets")  # takes a second
    hidden = library.are_progress_bars_disabled()
    library.disable_progress_bars()  # they would be mixed with ours
    try:
        table = library.load_dataset(**_source(settings), split=settings.split)
    except DataError:
        raise
    except Exception as error:  # the library's own errors have no common base, and each format adds its reader's
        raise _not_loaded(settings, error) from error
    finally:
        if not hidden:
            library.enable_progress_bars()
    for number, values in enumerate(table):
        yield Row(Columns(values), str(settings.dataset), number, is_line=False)


def _source(settings: PairsSettings) -> dict[str, Any]:
    """Arguments of `load_dataset`: the data set's name, or the Arrow files that `save_to_disk` wrote."""
    path = Path(str(settings.dataset))
    several = (path / "dataset_dict.json").is_file()
    if not several and not (path / "state.json").is_file():
        return {"path": settings.dataset, "name": settings.config, "revision": settings.revision}
    if settings.config is not None or settings.revision is not None:
        reason = "written by save_to_disk: it has no configurations and revisions"
        raise DataError(reason, path=path, hint="Leave out `config` and `revision`.")
    files: dict[str, list[str]] = {}
    for file in sorted(path.glob("*/*.arrow" if several else "*.arrow")):
        files.setdefault(file.parent.name if several else "train", []).append(str(file))
    return {"path": "arrow", "data_files": files}


def _not_loaded(settings: PairsSettings, error: Exception) -> DataError:
    """The innermost cause, in the library's words; its outer errors only say that something went wrong."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = " ".join(str(cause).split()) or type(cause).__name__
    hint = hub_hint(
        "Check the name (owner/name on the hub, or a directory), `config` and `split`; the hub needs the network, "
        "and `hf auth login` for what is gated.",
        f"hf download --repo-type dataset {settings.dataset}",
    )
    return DataError(f"cannot be loaded (split '{settings.split}'): {reason}", path=settings.dataset, hint=hint)
