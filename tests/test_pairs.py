"""Preference pairs from files: good rows of every documented form, and bad rows that name file, line and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError, RecipeError, UsageError
from pad_cli.pairs import load_pairs, read_pairs, read_rows
from pad_cli.recipe import DataSettings
from pad_cli.records import PreferencePair

GOOD: dict[str, Any] = {"prompt": "How?", "preference": "humorous", "chosen": "Ha.", "rejected": "So."}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How?"},
]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(*rows: Any, name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return to_file


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


def test_further_fields_of_a_row_and_of_a_message_are_ignored(write: Write) -> None:
    messages = [{**CONVERSATION[1], "name": "Ann"}]
    (pair,) = read_pairs(write({**GOOD, "prompt": messages, "score": 3}))
    assert pair.prompt == ({"role": "user", "content": "How?"},)


def test_blank_lines_are_skipped_but_counted(write: Write) -> None:
    assert [number for number, _ in read_rows(write("", GOOD, "   ", GOOD))] == [2, 4]


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
        *(("preference", bad) for bad in (None, "", " ", 3, [], {}, ["humorous"], {"a": "1"}, {"a": True})),
        *(("preference", {"a": bad}) for bad in (None, float("nan"), float("inf"), 10**400)),
        *((field, bad) for field in ("chosen", "rejected") for bad in (None, "", " \n", 3, [], {}, ["x"])),
        *(("chosen", [{"role": "assistant", "content": bad}]) for bad in ("", None)),
        ("rejected", [{"role": "assistant", "content": "x"}, {"role": "user", "content": "ends with a question"}]),
        *((field, "half a character: \ud800") for field in ("prompt", "chosen", "rejected")),
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


def test_files_become_training_and_named_validation_pairs(write: Write) -> None:
    train, dev = write(GOOD, GOOD, name="train.jsonl"), write({**GOOD, "chosen": "dev"}, name="dev.jsonl")
    settings = DataSettings(train=str(train), validation={"dev": str(dev)}, texts={"humorous": ["jokey"]})
    data = load_pairs(settings, seed=0)
    assert len(data.train) == 2
    assert [(split.name, len(split.pairs), split.pairs[0].chosen) for split in data.validation] == [("dev", 1, "dev")]
    assert data.texts == {"humorous": ("jokey",)}


def test_a_limit_draws_pairs_by_seed(write: Write) -> None:
    rows = [{**GOOD, "chosen": f"answer {number}"} for number in range(30)]
    settings = DataSettings(train=str(write(*rows)), limit=10)
    first, again, other = (load_pairs(settings, seed=seed).train for seed in (1, 1, 2))
    assert first == again != other
    assert len({pair.chosen for pair in first}) == 10
    assert {pair.chosen for pair in first} <= {row["chosen"] for row in rows}


def test_a_limit_above_the_number_of_pairs_takes_all_in_order(write: Write) -> None:
    rows = [{**GOOD, "chosen": f"answer {number}"} for number in range(3)]
    data = load_pairs(DataSettings(train=str(write(*rows)), limit=10), seed=0)
    assert [pair.chosen for pair in data.train] == [row["chosen"] for row in rows]


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        load_pairs(DataSettings(source="embeded"), seed=0)
    assert "Did you mean embedded?" in caught.value.hint


def test_an_unknown_option_of_a_source_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match=r"data\.options.*promts"):
        load_pairs(DataSettings(source="embedded", options={"promts": 3}), seed=0)


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
        assert (error.path, error.line in range(1, len(rows) + 1)) == (str(path), True)  # noqa: PT017
    else:
        assert len(pairs) == len(rows)
        for pair in pairs:
            assert pair.prompt
            assert pair.preference
            assert pair.chosen.strip()
            assert pair.rejected.strip()
