"""Formats of data sets in which people compared two answers: PKU-SafeRLHF, HH-RLHF."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from pad_cli.pairs.conversation import read_hh_text, read_sample
from pad_cli.pairs.readings import RawPair, Reading, one_by_one
from pad_cli.pairs.rows import Row, RowError
from pad_cli.recipe import Settings

_Question = Literal["better", "safer"]
_NAMES: dict[_Question, str] = {"better": "helpful", "safer": "harmless"}


class SafeRlhf(Settings):
    """PKU-SafeRLHF (Ji et al. 2024, arXiv 2406.15513): two answers, which is the better and which the safer.

    A row gives a pair for each question; where the two disagree, these are the same two answers under two preferences.
    A safer answer that is itself labelled unsafe against a safe one is left out.
    """

    names: dict[_Question, str] = Field(
        default_factory=lambda: dict(_NAMES),
        min_length=1,
        description="Question to the principle that it asks for; leave one out to ignore it.",
    )

    def read(self, rows: Sequence[Row]) -> Iterable[Reading]:
        return one_by_one(rows, self._read)

    def _read(self, row: Row) -> Reading:
        prompt, answers = read_sample(row, [(field, row.values.get(field)) for field in ("response_0", "response_1")])
        safe = [_flag(row, field) for field in ("is_response_0_safe", "is_response_1_safe")]
        pairs, parts = [], []
        for question, name in self.names.items():
            winner = _choice(row, f"{question}_response_id")
            if question == "safer" and safe[1 - winner] and not safe[winner]:
                parts.append("the safer answer is the one labelled unsafe")
            else:
                pairs.append(RawPair(prompt, name, answers[winner], answers[1 - winner]))
        return Reading((row,), tuple(pairs), "" if pairs else parts[0], tuple(parts))


class HhRlhf(Settings):
    """HH-RLHF (Bai et al. 2022, arXiv 2204.05862): two conversations in one text each, alike up to the last answer."""

    preference: str = Field(min_length=1, description="What the rows were collected for: `helpful` or `harmless`.")

    def read(self, rows: Sequence[Row]) -> Iterable[Reading]:
        return one_by_one(rows, self._read)

    def _read(self, row: Row) -> Reading:
        chosen, rejected = (read_hh_text(row.values.get(field), field) for field in ("chosen", "rejected"))
        if {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
            return Reading((row,), reason="a conversation ends with Human, not with an answer of Assistant")
        if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
            return Reading((row,), reason="the two conversations differ before the last answer")
        answers = chosen[-1]["content"], rejected[-1]["content"]
        if not all(answers):
            return Reading((row,), reason="an answer is empty")
        return Reading((row,), (RawPair(chosen[:-1], self.preference, *answers),))


def _flag(row: Row, field: str) -> bool:
    value: Any = row.values.get(field)
    if not isinstance(value, bool):
        raise RowError("neither true nor false", field=field, hint="Is this PKU-SafeRLHF's own form?")
    return value


def _choice(row: Row, field: str) -> int:
    value: Any = row.values.get(field)
    if type(value) is not int or value not in (0, 1):
        raise RowError("neither 0 nor 1", field=field, hint="Is this PKU-SafeRLHF's own form?")
    return value
