"""Rows of files: good ones of every documented form, and bad ones that name file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError
from pad_cli.pairs import read_rows
from pad_cli.pairs.sources import read_source
from pad_cli.recipe import PairsSettings
from pad_cli.records import PreferencePair
from tests.pairs.conftest import Write, load

GOOD: dict[str, Any] = {"prompt": "How?", "preference": "humorous", "chosen": "Ha.", "rejected": "So."}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How?"},
]


def read_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """All pairs of a file, as they stand."""
    settings = PairsSettings(path=str(path))
    sourced, _ = read_source(settings, "path", "train", None, drop_bad=False)
    return tuple(pair for pair, _ in sourced)


def test_a_plain_row_is_a_pair_with_one_user_message(write: Write) -> None:
    (pair,) = read_pairs(write(GOOD))
    assert pair == PreferencePair(({"role": "user", "content": "How?"},), {"humorous": 1.0}, "Ha.", "So.")


def test_a_conversational_row_keeps_its_messages_and_takes_the_last_as_the_answer(write: Write) -> None:
    answers = {
        key: [*CONVERSATION, {"role": "assistant", "content": text}]
        for key, text in (("chosen", "a"), ("rejected", "b"))
    }
    (pair,) = read_pairs(write({**GOOD, "prompt": CONVERSATION, **answers}))
    assert list(pair.prompt) == CONVERSATION
    assert (pair.chosen, pair.rejected) == ("a", "b")


def test_a_map_of_weights_keeps_signs_and_sizes(write: Write) -> None:
    (pair,) = read_pairs(write({**GOOD, "preference": {"humorous": 1, "formal": -0.5}}))
    assert pair.preference == {"humorous": 1.0, "formal": -0.5}


def test_further_fields_of_a_row_and_of_a_message_change_nothing(write: Write) -> None:
    messages = [{**CONVERSATION[1], "name": "Ann"}]
    (pair,) = read_pairs(write({**GOOD, "prompt": messages, "score": 3}))
    assert pair.prompt == ({"role": "user", "content": "How?"},)


def test_blank_lines_are_skipped_but_counted(write: Write) -> None:
    assert [row.number for row in read_rows(write("", GOOD, "   ", GOOD))] == [2, 4]


def test_a_separator_inside_a_text_does_not_end_the_line(write: Write) -> None:
    """Only a newline does; JSON may hold U+2028 and U+0085 as they are."""
    text = "a\u2028b\u0085c\x0cd"
    (pair,) = read_pairs(write(json.dumps({**GOOD, "chosen": text}, ensure_ascii=False).replace("\\f", "\\u000c")))
    assert pair.chosen == text


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode() + b"\r\n")
    assert len(read_pairs(path)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("prompt", bad) for bad in (None, "", "  ", 3, [], {}, ["text"], [{"role": "user"}])),
        *(("prompt", bad) for bad in ([{"role": 1, "content": "x"}], [{"role": "user", "content": None}])),
        *(("preference", bad) for bad in (None, "", " ", 3, [], {}, [3], [""], {"": 1}, {"a": "1"}, {"a": 0})),
        ("preference", {"a": True}),
        *(("preference", {"a": bad}) for bad in (None, float("nan"), float("inf"), 10**400)),
        *((field, bad) for field in ("chosen", "rejected") for bad in (None, "", " \n", 3, [], {}, ["x"])),
        *(("chosen", [{"role": "assistant", "content": bad}]) for bad in ("", None)),
        ("rejected", [{"role": "assistant", "content": "x"}, {"role": "user", "content": "ends with a question"}]),
        ("rejected", [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "another prompt"}]),
        *((field, "half a character: \ud800") for field in GOOD),
        *((field, "a null character: \0") for field in GOOD),
    ],
)
def test_a_bad_row_names_file_line_and_field(write: Write, field: str, value: Any) -> None:
    path = write(GOOD, {**GOOD, field: value})
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), 2, field)
    assert caught.value.message.startswith(f"{path}:2, field '{field}'")
    assert caught.value.hint


@pytest.mark.parametrize("field", list(GOOD))
def test_a_missing_field_is_named(write: Write, field: str) -> None:
    path = write({key: value for key, value in GOOD.items() if key != field})
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert (caught.value.line, caught.value.field) == (1, field)


@pytest.mark.parametrize("line", ["{", "not json", "[1, 2]", "17", "null", '"text"', "[" * 100_000, "9" * 5000])
def test_a_line_that_is_no_json_object_names_file_and_line(write: Write, line: str) -> None:
    path = write(GOOD, line)
    with pytest.raises(DataError, match=r"not (JSON|a JSON object)") as caught:
        read_pairs(path)
    assert (caught.value.path, caught.value.line) == (str(path), 2)


@pytest.mark.parametrize("rows", [[], ["", "  "]])
def test_a_file_without_rows_is_refused(write: Write, rows: list[str]) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_pairs(write(*rows))


def test_a_missing_file_a_directory_and_binary_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.jsonl", tmp_path, tmp_path / "binary"):
        with pytest.raises(DataError) as caught:
            read_pairs(path)
        assert caught.value.path == str(path)
        assert caught.value.exit_code == 2


def test_all_bad_rows_of_a_file_are_told_at_once_in_order(write: Write) -> None:
    path = write({**GOOD, "prompt": ""}, GOOD, "{", {**GOOD, "chosen": 3}, {**GOOD, "preference": None})
    with pytest.raises(DataError) as caught:
        load(path)
    assert "4 rows cannot be read" in caught.value.message
    lines = caught.value.message.splitlines()[1:]
    assert [line.strip().removeprefix(str(path)).split(":")[1].split(",")[0] for line in lines] == ["1", "3", "4", "5"]
    assert all(
        f"field '{field}'" in line for field, line in zip(("prompt", "", "chosen"), lines, strict=False) if field
    )
    assert "bad_rows: drop" in caught.value.hint


def test_of_many_bad_rows_twenty_are_told_and_the_rest_counted(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        load(write(GOOD, *["{"] * 23))
    assert "23 rows cannot be read" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1 + 20 + 1
    assert caught.value.message.endswith("and 3 more")


def test_bad_rows_can_be_left_out_and_are_counted_by_reason(write: Write) -> None:
    path = write({**GOOD, "prompt": ""}, GOOD, "{", "{{", {**GOOD, "prompt": None}, {**GOOD, "chosen": 3})
    data = load(path, bad_rows="drop")
    assert len(data.train) == 1
    dropped = {entry.reason: (entry.what, entry.count, entry.examples) for entry in data.report.sources[0].dropped}
    assert dropped == {
        "not JSON": ("row", 2, (f"{path}:3", f"{path}:4")),
        "field 'prompt': missing or empty": ("row", 2, (f"{path}:1", f"{path}:5")),
        "field 'chosen': neither a text nor a conversation that ends with the answer": ("row", 1, (f"{path}:6",)),
    }


def test_nothing_left_after_dropping_says_what_was_dropped(write: Write) -> None:
    with pytest.raises(DataError, match="no training pairs are left") as caught:
        load(write("{", {**GOOD, "chosen": "So."}), bad_rows="drop")
    assert "not JSON" in caught.value.message
    assert "chosen equals rejected" in caught.value.message


def test_a_file_cut_off_while_it_was_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    whole = json.dumps(GOOD)
    path.write_text(f"{whole}\n{whole[:30]}")
    with pytest.raises(DataError, match="not JSON") as caught:
        load(path)
    assert caught.value.line == 2
    assert "cut off" in caught.value.hint


def test_null_bytes_are_no_json(tmp_path: Path) -> None:
    """A crash while writing leaves them at the end of a file."""
    path = tmp_path / "nulls.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + b"\0" * 40)
    with pytest.raises(DataError, match="not JSON") as caught:
        load(path)
    assert caught.value.line == 2


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "a"]), inner),
    max_leaves=8,
)
_rows = (
    st.dictionaries(st.sampled_from(list(GOOD)), _json)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, _json))
    | _json
)


@given(st.lists(_rows.map(lambda row: {**GOOD, **row} if isinstance(row, dict) else row), min_size=1, max_size=3))
def test_any_json_is_read_or_is_a_data_error(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    try:
        pairs = read_pairs(path)
    except DataError as error:
        assert error.path.startswith(str(path))  # noqa: PT017  # not every example raises it
        assert error.line in range(len(rows) + 1) or "rows cannot be read" in error.message  # noqa: PT017  # not every example raises it
    else:
        assert len(pairs) == len(rows)
        for pair in pairs:
            assert pair.prompt
            assert pair.preference
            assert pair.chosen.strip()
            assert pair.rejected.strip()
