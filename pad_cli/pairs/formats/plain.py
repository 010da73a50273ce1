"""Formats whose rows say which answer is preferred: `pairs`, and `per_preference`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any, Literal, get_args

from pydantic import Field

from pad_cli.pairs.conversation import PROMPT, SYSTEM, read_sample
from pad_cli.pairs.readings import RawPair, Reading, one_by_one
from pad_cli.pairs.rows import Row, RowError, is_text
from pad_cli.recipe import Settings

_Column = Literal["prompt", "system", "preference", "chosen", "rejected"]
_COLUMNS: tuple[_Column, ...] = get_args(_Column)

Weights = dict[str, float]


class Pairs(Settings):
    """One pair a row: prompt, preference, chosen, rejected.

    Answers are texts, or conversations that end with them. Without a prompt, both conversations begin with it.
    """

    columns: dict[_Column, str] = Field(default_factory=dict, description="Our column name to the data's.")
    preference: str | list[str] | Weights | None = Field(
        None, description="The preference of every row, for data that have no such column."
    )

    def read(self, rows: Sequence[Row]) -> Iterable[Reading]:
        return one_by_one(rows, self._read)

    def _read(self, row: Row) -> Reading:
        name = {ours: self.columns.get(ours, ours) for ours in _COLUMNS}
        answers = [(name[ours], row.values.get(name[ours])) for ours in ("chosen", "rejected")]
        prompt, (chosen, rejected) = read_sample(row, answers, name["prompt"], name["system"])
        preference = row.values.get(name["preference"]) if self.preference is None else self.preference
        return Reading((row,), (RawPair(prompt, preference, chosen, rejected),))


class PerPreference(Settings):
    """One answer per preference a row: each wins under its own preference against every other.

    The answers are one map, name to answer (`answers`; in the Domain-Specific Preference data, Cheng et al. 2023,
    arXiv 2309.03126, `responses`), or a column each.
    """

    columns: dict[Literal["prompt", "system", "answers"], str] = Field(
        default_factory=dict, description="Our column name to the data's."
    )
    preferences: dict[str, str | Weights] | None = Field(
        None, min_length=1, description="Name of an answer to its preference; by default every name is one."
    )
    neutral: list[str] = Field(
        default_factory=list, description="Names of answers written for no preference: they lose under each."
    )

    def read(self, rows: Sequence[Row]) -> Iterable[Reading]:
        return one_by_one(rows, self._read)

    def _read(self, row: Row) -> Reading:
        answers = [(name, value) for name, value in self._answers(row).items() if value is not None]
        prompt, texts = read_sample(
            row, answers, self.columns.get("prompt", PROMPT), self.columns.get("system", SYSTEM)
        )
        found = {name: text for (name, _), text in zip(answers, texts, strict=True)}
        wanted = self._preferences(found)
        pairs = [
            RawPair(prompt, wanted[winner], found[winner], found[loser])
            for winner, loser in permutations(found, 2)
            if winner in wanted and (loser in wanted or loser in self.neutral)
        ]
        return Reading((row,), tuple(pairs), "" if pairs else "fewer than two answers")

    def _answers(self, row: Row) -> dict[str, Any]:
        column = self.columns.get("answers", "answers")
        answers = row.values.get(column)
        if isinstance(answers, dict) and all(is_text(name) for name in answers):
            return answers
        if answers is None and self.preferences is not None:
            return {name: row.values.get(name) for name in [*self.preferences, *self.neutral]}
        raise RowError(
            "no map of preferences to answers",
            field=column,
            hint=f'Write "{column}": {{"humorous": "...", "formal": "..."}}, or name the columns: '
            "options: {preferences: {COLUMN: NAME}}.",
        )

    def _preferences(self, found: Iterable[str]) -> dict[str, str | Weights]:
        if self.preferences is not None:
            return self.preferences
        return {name: name for name in found if name not in self.neutral}
