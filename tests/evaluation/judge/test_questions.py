"""Verdicts are read strictly, and their schema says exactly what is read."""

from __future__ import annotations

import pytest

from pad_cli.evaluation.judge.questions import UnparsedVerdictError, read_verdict, schema

DIMENSIONS = ("funny", "on topic")
FIRST = '{"reason": "shorter", "winner": "first"}'


@pytest.mark.parametrize(
    "reply",
    [
        FIRST,
        f"\n  {FIRST}  \n",
        f"```json\n{FIRST}\n```",
        f"```\n{FIRST}\n```\n",
        f"<think>The second? No.\n{{}}</think>\n\n{FIRST}",
    ],
)
def test_a_choice_is_read_alone_or_fenced_or_after_thinking(reply: str) -> None:
    assert read_verdict("pairwise", reply, ()) == {"reason": "shorter", "winner": "first"}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "empty"),
        ("first", "Invalid JSON"),
        (FIRST[:-1], "EOF"),
        (f"{FIRST} {FIRST}", "trailing"),
        (f"I think: {FIRST}", "Invalid JSON"),
        ('{"winner": "first"}', "reason: Field required"),
        ('{"reason": "", "winner": "First"}', "winner: Input should be 'first', 'second' or 'tie'"),
        ('{"reason": "", "winner": "first", "score": 3}', "score: Extra inputs"),
        ('{"reason": 3, "winner": "first"}', "reason: Input should be a valid string"),
        ('["first"]', "object"),
        ("<think>", "Invalid JSON"),
    ],
)
def test_anything_else_is_no_choice_and_says_why(reply: str, problem: str) -> None:
    with pytest.raises(UnparsedVerdictError, match=problem):
        read_verdict("pairwise", reply, ())


def rating(ratings: str) -> str:
    return f'{{"reason": "so", "ratings": {ratings}}}'


def test_ratings_are_whole_numbers_of_each_dimension() -> None:
    found = read_verdict("rubric", rating('{"on topic": 10, "funny": 1}'), DIMENSIONS)
    assert list(found["ratings"].items()) == [("funny", 1), ("on topic", 10)]


@pytest.mark.parametrize(
    "ratings",
    [
        '{"funny": 0, "on topic": 5}',
        '{"funny": 11, "on topic": 5}',
        '{"funny": 7.5, "on topic": 5}',
        '{"funny": "7", "on topic": 5}',
        '{"funny": true, "on topic": 5}',
        '{"funny": 5}',
        '{"funny": 5, "on topic": 5, "kind": 5}',
        "{}",
        "5",
    ],
)
def test_other_ratings_are_none(ratings: str) -> None:
    with pytest.raises(UnparsedVerdictError):
        read_verdict("rubric", rating(ratings), DIMENSIONS)


def test_a_problem_is_short_however_long_the_reply() -> None:
    with pytest.raises(UnparsedVerdictError) as caught:
        read_verdict("pairwise", f'{{"reason": "", "winner": "tie", "{"x" * 5000}": 1}}', ())
    assert len(str(caught.value)) <= 500


def test_schemas_are_closed_and_require_everything() -> None:
    pairwise, rubric = schema("pairwise", ()), schema("rubric", DIMENSIONS)
    assert pairwise["properties"]["winner"]["enum"] == ["first", "second", "tie"]
    inner = rubric["properties"]["ratings"]
    assert inner["required"] == list(DIMENSIONS)
    assert inner["properties"]["funny"] == {"type": "integer", "minimum": 1, "maximum": 10}
    for form in (pairwise, rubric, inner):
        assert form["additionalProperties"] is False
        assert form["required"] == list(form["properties"])
