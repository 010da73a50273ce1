"""The pair formats that pad ships: what the rows of well-known data sets mean."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from pad_cli.pairs.conversation import (
    PROMPT,
    SYSTEM,
    read_hh_text,
    read_prompt,
    read_sample,
    read_steer_text,
    read_text,
)
from pad_cli.pairs.parsed_rows import ParsedRows, RawPair, Row, RowError, is_text
from pad_cli.recipe import Settings
from pad_cli.records import Messages

Weights = dict[str, float]


class RowFormat(Settings, ABC):
    """A format whose rows stand alone."""

    def read(self, rows: Sequence[Row]) -> Iterator[ParsedRows]:
        """Every row, parsed; a RowError becomes its problem."""
        for row in rows:
            try:
                yield self.read_row(row)
            except RowError as problem:
                yield ParsedRows((row,), problem=problem)

    @abstractmethod
    def read_row(self, row: Row) -> ParsedRows:
        """One row, parsed; may raise a RowError."""


# Rows that say which answer is preferred

_Column = Literal["prompt", "system", "preference", "chosen", "rejected"]
_COLUMNS: tuple[_Column, ...] = get_args(_Column)


class Pairs(RowFormat):
    """One pair a row: prompt, preference, chosen, rejected.

    Answers are texts, or conversations that end with them. Without a prompt, both conversations begin with it.
    """

    columns: dict[_Column, str] = Field(default_factory=dict, description="Our column name to the data's.")
    preference: str | list[str] | Weights | None = Field(
        None, description="The preference of every row, for data that have no such column."
    )

    def read_row(self, row: Row) -> ParsedRows:
        name = {ours: self.columns.get(ours, ours) for ours in _COLUMNS}
        answers = [(name[ours], row.values.get(name[ours])) for ours in ("chosen", "rejected")]
        prompt, (chosen, rejected) = read_sample(row, answers, name["prompt"], name["system"])
        preference = row.values.get(name["preference"]) if self.preference is None else self.preference
        return ParsedRows((row,), (RawPair(prompt, preference, chosen, rejected),))


class PerPreference(RowFormat):
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

    def read_row(self, row: Row) -> ParsedRows:
        named = [(name, value) for name, value in self._answers(row).items() if value is not None]
        columns = self.columns.get("prompt", PROMPT), self.columns.get("system", SYSTEM)
        prompt, texts = read_sample(row, named, *columns)
        answers = {name: text for (name, _), text in zip(named, texts, strict=True)}
        preferences: Mapping[str, str | Weights] = self.preferences or {
            name: name for name in answers if name not in self.neutral
        }
        pairs = [
            RawPair(prompt, preferences[winner], answers[winner], answers[loser])
            for winner, loser in permutations(answers, 2)
            if winner in preferences and (loser in preferences or loser in self.neutral)
        ]
        return ParsedRows((row,), tuple(pairs), "" if pairs else "fewer than two answers")

    def _answers(self, row: Row) -> dict[str, Any]:
        column = self.columns.get("answers", "answers")
        answers = row.values.get(column)
        if isinstance(answers, dict) and all(is_text(name) for name in answers):
            return answers
        if answers is None and self.preferences is not None:
            return {name: row.values.get(name) for name in [*self.preferences, *self.neutral]}
        hint = f'Write "{column}": {{"humorous": "...", ...}}, or options: {{preferences: {{COLUMN: NAME}}}}.'
        raise RowError("no map of preferences to answers", field=column, hint=hint)


# Data sets in which people compared two answers


class SafeRlhf(RowFormat):
    """PKU-SafeRLHF (Ji et al. 2024, arXiv 2406.15513): two answers, which is the better and which the safer.

    A row gives a pair for each question; where the two disagree, these are the same two answers under two preferences.
    """

    names: dict[Literal["better", "safer"], str] = Field(
        default={"better": "helpful", "safer": "harmless"},
        min_length=1,
        description="Question to the principle that it asks for; leave one out to ignore it.",
    )

    def read_row(self, row: Row) -> ParsedRows:
        prompt, answers = read_sample(row, [(field, row.values.get(field)) for field in ("response_0", "response_1")])
        pairs = []
        for question, name in self.names.items():
            winner: Any = row.values.get(f"{question}_response_id")
            if type(winner) is not int or winner not in (0, 1):
                hint = "Is this PKU-SafeRLHF's own form?"
                raise RowError("neither 0 nor 1", field=f"{question}_response_id", hint=hint)
            pairs.append(RawPair(prompt, name, answers[winner], answers[1 - winner]))
        return ParsedRows((row,), tuple(pairs))


class HhRlhf(RowFormat):
    """HH-RLHF (Bai et al. 2022, arXiv 2204.05862): two conversations in one text each, alike up to the last answer."""

    preference: str = Field(min_length=1, description="What the rows were collected for: `helpful` or `harmless`.")

    def read_row(self, row: Row) -> ParsedRows:
        chosen, rejected = (read_hh_text(row.values.get(field), field) for field in ("chosen", "rejected"))
        (*prompt, answer), (*other, worse) = chosen, rejected
        both_answer = all(last["role"] == "assistant" and last["content"] for last in (answer, worse))
        if not prompt or prompt != other or not both_answer:
            return ParsedRows((row,), reason="the conversations do not end with two answers to the same prompt")
        return ParsedRows((row,), (RawPair(tuple(prompt), self.preference, answer["content"], worse["content"]),))


# Data sets with ratings. Two answers to one prompt give a pair under every attribute in which their ratings differ, so
# answers that trade one attribute for another are the same two under several preferences, each winning under its own.

_STEER = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
_ULTRA = ["helpfulness", "honesty", "instruction_following", "truthfulness"]
_DIFFERENCE = "Least difference of two ratings that makes a pair."


def _named(attributes: Any) -> Any:
    return {name: name for name in attributes} if isinstance(attributes, list) else attributes


Attributes = Annotated[dict[str, str], BeforeValidator(_named)]
"""Attribute to principle; a list of attributes names the principles after them."""

Rated = tuple[str, Mapping[str, float]]
"""An answer and its ratings: attribute to number."""


class HelpSteer2(Settings):
    """HelpSteer2 (Wang et al. 2024, arXiv 2406.08673): one rated response a row, five attributes from 0 to 4."""

    attributes: Attributes = Field(default=_named(_STEER), description="The ratings to use.")
    minimum_difference: float = Field(1.0, gt=0, le=4, description=_DIFFERENCE)

    def read(self, rows: Sequence[Row]) -> Iterator[ParsedRows]:
        return _read_rated(rows, read_steer_text, self.attributes, self.minimum_difference)


class Ric(Settings):
    """The training data of Rewards-in-Context (Yang et al. 2024, arXiv 2402.10207), part of PAD's own mixture.

    Its program writes one response a row (`prompt`, `response`) with a normalised score for each reward model
    (`score1`, `score2`, ...), and the two responses of a prompt far apart. A prompt is in HH-RLHF's form, or any text.
    """

    scores: dict[str, str] = Field(min_length=1, description="Score column to principle: {score1: harmless}.")
    minimum_difference: float = Field(0.0, ge=0, description=_DIFFERENCE + " Scores have standard deviation 1.")

    def read(self, rows: Sequence[Row]) -> Iterator[ParsedRows]:
        return _read_rated(rows, _ric_prompt, self.scores, self.minimum_difference)


def _ric_prompt(row: Row) -> Messages:
    """A prompt in HH-RLHF's form without the mark of the answer that follows, or any other prompt."""
    text, prompt = row.values.get("prompt"), read_prompt(row)
    if not isinstance(text, str) or not text.lstrip().startswith("Human:"):
        return prompt
    turns = read_hh_text(text, "prompt")
    return (*prompt[:-1], *(turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns))


def _read_rated(
    rows: Sequence[Row], read: Callable[[Row], Messages], names: Mapping[str, str], difference: float
) -> Iterator[ParsedRows]:
    """Rows of one rated response each, those of one prompt together; rows that cannot be read come first."""
    groups: dict[str, list[tuple[Row, Messages, Rated]]] = {}
    for row in rows:
        try:
            prompt = read(row)
            rated = read_text(row, "response"), {name: _number(row, name) for name in names}
        except RowError as problem:
            yield ParsedRows((row,), problem=problem)
        else:
            groups.setdefault(repr(prompt), []).append((row, prompt, rated))
    for group in groups.values():
        of_prompt, prompts, answers = zip(*group, strict=True)
        yield _rated_pairs(of_prompt, prompts[0], answers, names, difference)


def _number(row: Row, field: str) -> float:
    value: Any = row.values.get(field)
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise RowError("no number", field=field, hint="Choose the columns that hold ratings in `options`.")
    return float(value)


class UltraFeedback(RowFormat):
    """UltraFeedback (Cui et al. 2023, arXiv 2310.01377; openbmb/UltraFeedback): several rated completions a row.

    A rating is a digit from 1 to 5 as text; one that is not a number (`N/A`) is left out and counted.
    """

    attributes: Attributes = Field(default=_named(_ULTRA), description="The ratings to use.")
    minimum_difference: float = Field(1.0, gt=0, le=4, description=_DIFFERENCE)

    def read_row(self, row: Row) -> ParsedRows:
        prompt = read_prompt(row, "instruction")
        completions = row.values.get("completions")
        if not isinstance(completions, list) or not all(isinstance(completion, dict) for completion in completions):
            raise RowError("no list of completions", field="completions", hint="Is this openbmb/UltraFeedback's form?")
        answers: list[Rated] = []
        parts: list[str] = []
        for completion in completions:
            if not is_text(completion.get("response")):
                parts.append("a completion without a response")
                continue
            ratings = {name: _ultra_rating(completion, name) for name in self.attributes}
            parts += [f"no rating for {name}" for name, rating in ratings.items() if rating is None]
            answers.append((completion["response"], {name: r for name, r in ratings.items() if r is not None}))
        return _rated_pairs((row,), prompt, answers, self.attributes, self.minimum_difference, parts)


def _rated_pairs(
    rows: tuple[Row, ...],
    prompt: Messages,
    answers: Sequence[Rated],
    names: Mapping[str, str],
    difference: float,
    parts: Sequence[str] = (),
) -> ParsedRows:
    pairs = []
    for first, second in combinations(answers, 2):
        for attribute, name in names.items():
            a, b = first[1].get(attribute), second[1].get(attribute)
            if a is None or b is None or a == b or abs(a - b) < difference:
                continue
            (winner, _), (loser, _) = (first, second) if a > b else (second, first)
            pairs.append(RawPair(prompt, name, winner, loser))
    reason = "only one answer to the prompt" if len(answers) < 2 else "ratings that do not differ enough"
    return ParsedRows(rows, tuple(pairs), "" if pairs else reason, tuple(parts))


def _ultra_rating(completion: Mapping[str, Any], name: str) -> float | None:
    try:
        rating = float(completion["annotations"][name]["Rating"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return rating if math.isfinite(rating) else None
