"""Verdicts are read strictly."""

from __future__ import annotations

import pytest

from pad_cli.evaluation.judge.questions import UnparsedVerdictError, read_verdict

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
    assert read_verdict(reply) == {"reason": "shorter", "winner": "first"}


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
        read_verdict(reply)


def test_a_problem_is_short_however_long_the_reply() -> None:
    with pytest.raises(UnparsedVerdictError) as caught:
        read_verdict(f'{{"reason": "", "winner": "tie", "{"x" * 5000}": 1}}')
    assert len(str(caught.value)) <= 500
