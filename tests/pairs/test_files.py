"""Files are known by their first bytes: rows in every usual form are read, and what holds none is named."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError
from pad_cli.pairs import read_rows
from tests.pairs.conftest import Write, load

ROWS: list[dict[str, Any]] = [
    {"prompt": "How?", "preference": "calm", "chosen": "Ä, b", "rejected": 'say "no"'},
    {"prompt": "Why?", "preference": "calm", "chosen": "two\nlines", "rejected": "d"},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    arrow, writer = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    sink = io.BytesIO()
    writer.write_table(arrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.jsonl", LINES.encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("windows.jsonl", LINES.replace("\n", "\r\n\r\n").encode()),
        ("old-mac.jsonl", LINES.replace("\n", "\r").encode()),
        ("array.jsonl", json.dumps(ROWS).encode()),
        ("array.json", b"\xef\xbb\xbf\n " + json.dumps(ROWS, indent=2, ensure_ascii=False).encode() + b"\n\n"),
    ],
)
def test_rows_are_read_from_every_usual_kind_of_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert [dict(row.values) for row in read_rows(path)] == ROWS
    assert len(load(path).train) == 2


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (zipped(), "zip archive"),
        (gzip.compress(LINES.encode()), "gzip"),
        (bz2.compress(LINES.encode()), "bzip2"),
        (lzma.compress(LINES.encode()), "xz"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"ARROW1\0\0", "Arrow file"),
        (pickle.dumps(ROWS), "pickle"),
        (LINES.encode("utf-16"), "UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (parquet(ROWS), "Parquet"),
    ],
)
def test_a_file_that_holds_no_rows_is_named_for_what_it_is(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=named) as caught:
        read_rows(path)
    assert caught.value.path == str(path)
    assert caught.value.hint


def test_a_table_says_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,preference,chosen,rejected\nHow?,calm,A,B\n")
    with pytest.raises(DataError, match=r"rows\.csv: a table") as caught:
        read_rows(path)
    assert "to_json" in caught.value.hint


def test_text_of_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xe4"}\n')
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_rows(path)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        ('{"a": 1}\n{"prompt": "Where?", "prompt": "When?"}', 2, "prompt"),
        ('{"a": 1}\n{"prompt": [{"role": "user", "content": "a", "content": "b"}]}', 2, "content"),
        ('[{"a": 1},\n {"b": 1, "b": 1}]', 0, "b"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_line_and_key(
    tmp_path: Path, text: str, line: int, field: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match="duplicated") as caught:
        read_rows(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), line, field)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[{"a": 1}\n,\n{"a": 2', 0, "not JSON: .*line 3"),
        ('[{"a": 1}\n{"a": 2}]', 0, "not JSON: .*line 2"),
        ('[{"a": 1},\n]', 0, "not JSON: .*line [12]"),
        ('[{"a": 1}]\n[{"a": 2}]', 0, "Extra data: line 2"),
        ('{\n"a": 1\n}', 1, "not JSON"),
    ],
)
def test_what_is_wrong_in_a_file_names_its_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        read_rows(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)
    assert caught.value.hint


def test_an_array_holds_objects(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[3]")
    with pytest.raises(DataError, match=r"\[0\]: not a JSON object") as caught:
        read_rows(path)
    assert caught.value.hint


def test_the_elements_of_an_array_are_named_by_their_index(write: Write) -> None:
    path = write(json.dumps([ROWS[0], {**ROWS[1], "chosen": ""}]), name="array.json")
    with pytest.raises(DataError, match=r"array\.json\[1\], field 'chosen': missing"):
        load(path)
    assert [row.number for row in read_rows(path)] == [0, 1]
    assert [row.place for row in read_rows(path)] == [f"{path}[0]", f"{path}[1]"]
