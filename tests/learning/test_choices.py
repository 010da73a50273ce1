"""Choices as people write them, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError
from pad_cli.learning.choices import read_choices, read_users
from pad_cli.records import as_messages


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"prompt": f"Why {number}?", "chosen": "Because.", "rejected": "Whatever.", **changes}


def compared(choice: Any, number: int = 0) -> dict[str, Any]:
    return {"prompt": f"Why {number}?", "answers": ["Because.", "Whatever."], "choice": choice}


def write(directory: Path, *rows: Any) -> Path:
    path = directory / "choices.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


def test_both_forms_of_a_row_say_the_same(tmp_path: Path) -> None:
    found = read_choices(write(tmp_path, row(0), compared(0, 1), compared(1, 2), row(3)))
    assert [reply for _, reply in found] == [True, True, False, True]
    assert {(each.first, each.second) for each, _ in found} == {("Because.", "Whatever.")}
    assert found[1].comparison.prompt == as_messages("Why 1?")


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    found = read_choices(write(tmp_path, row(prompt=talk), row(1), row(2)))
    assert found[0].comparison.prompt == tuple(talk)


def test_a_choice_of_neither_answer_is_a_choice(tmp_path: Path) -> None:
    found = read_choices(write(tmp_path, row(0), compared(None, 1), row(2), row(3), compared(None, 4)))
    assert [reply for _, reply in found] == [True, None, True, True, None]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no choices"),
        ([row(0)], "at least 3 choices of an answer, here are 1"),
        ([row(0), row(1), compared(None, 2)], "here are 2, and 1 of neither answer"),
        ([compared(None, 0), compared(None, 1), compared(None, 2)], "here are 0, and 3 of neither answer"),
    ],
)
def test_too_few_choices_are_refused_by_their_number(tmp_path: Path, rows: list[Any], words: str) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(DataError) as caught:
        read_choices(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        (row(rejected="Because. "), "", "both answers are the same"),
        (row(rejected=""), "rejected", "missing or empty"),
        ({"prompt": "Why?", "chosen": "a"}, "rejected", "missing or empty"),
        (row(prompt=""), "prompt", "missing or empty"),
        (compared(2), "choice", "neither 0 nor 1 nor null"),
        (compared(True), "choice", "neither 0 nor 1 nor null"),
        ({"prompt": "Why?", "answers": ["a", "b"]}, "choice", "neither 0 nor 1 nor null"),
        ({"prompt": "Why?", "answers": ["a"], "choice": 0}, "answers", "not a list of two answers"),
        ({"prompt": "Why?", "answers": ["a", "a"], "choice": 0}, "", "both answers are the same"),
    ],
)
def test_a_wrong_row_is_named_with_its_line_and_field(tmp_path: Path, wrong: Any, field: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_choices(write(tmp_path, row(1), wrong, row(2), row(3)))
    assert (caught.value.line, caught.value.field) == (2, field)
    assert caught.value.hint


def test_a_file_of_users_is_read_user_by_user(tmp_path: Path) -> None:
    rows = [row(number, user=user) for number in range(3) for user in ("anna", 7)]
    found = read_users(write(tmp_path, *rows, {**compared(None), "user": "anna"}))
    assert list(found) == ["anna", "7"]
    assert [reply for _, reply in found["anna"]] == [True, True, True, None]
    assert len(found["7"]) == 3


def test_what_is_wrong_with_one_user_names_that_user(tmp_path: Path) -> None:
    rows = [row(number, user="anna") for number in range(3)]
    with pytest.raises(DataError, match="user 'bert': a profile needs at least 3 choices of an answer, here are 1"):
        read_users(write(tmp_path, *rows, row(user="bert")))
    with pytest.raises(DataError, match="field 'user': missing") as caught:
        read_users(write(tmp_path, *rows, row()))
    assert caught.value.line == 4
    with pytest.raises(DataError, match="holds no choices"):
        read_users(write(tmp_path))
