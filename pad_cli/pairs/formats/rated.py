"""Formats of data sets with ratings: HelpSteer2, UltraFeedback, the RiC mixture.

Two answers to one prompt give a pair under every attribute in which their ratings differ, so that answers which trade
one attribute against another are the same two under several preferences, and each wins under its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

from pydantic import Field

from pad_cli.pairs.conversation import read_hh_text, read_prompt, read_sample, read_steer_text
from pad_cli.pairs.readings import RawPair, Reading, one_by_one
from pad_cli.pairs.rows import Row, RowError, is_text
from pad_cli.recipe import Settings
from pad_cli.records import Messages

_STEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_ULTRA = ("helpfulness", "honesty", "instruction_following", "truthfulness")
_DIFFERENCE = "Least difference of two ratings that makes a pair."
_ATTRIBUTES = "The ratings to use; as a map, each with the principle's name."

Rated = tuple[str, Mapping[str, float]]
"""An answer and its ratings: attribute to number."""


class HelpSteer2(Settings):
    """HelpSteer2 (Wang et al. 2024, arXiv 2406.08673): one rated response a row, five attributes from 0 to 4.

    The responses to one prompt stand in consecutive rows.
    """

    attributes: list[str] | dict[str, str] = Field(default_factory=lambda: list(_STEER), description=_ATTRIBUTES)
    minimum_difference: float = Field(1.0, gt=0, le=4, description=_DIFFERENCE)

    def read(self, rows: Sequence[Row]) -> Iterator[Reading]:
        names = _names(self.attributes)
        read: list[tuple[Row, Messages, Rated]] = []
        for row in rows:
            try:
                prompt, (answer,) = read_sample(row, [("response", row.values.get("response"))], read_steer_text(row))
                read.append((row, prompt, (answer, {name: _number(row, name, 0, 4) for name in names})))
            except RowError as problem:
                yield Reading((row,), problem=problem)
        for prompt, group in groupby(read, key=lambda entry: entry[1]):
            yield _reading(list(group), prompt, names, self.minimum_difference)


class Ric(Settings):
    """The training data of Rewards-in-Context (Yang et al. 2024, arXiv 2402.10207), part of PAD's own mixture.

    Its program writes one response a row (`prompt`, `response`) with a normalised score for each reward model
    (`score1`, `score2`, ...), and the two responses of a prompt far apart. A prompt is in HH-RLHF's form, or any text.
    """

    scores: dict[str, str] = Field(min_length=1, description="Score column to principle: {score1: harmless}.")
    minimum_difference: float = Field(0.0, ge=0, description=_DIFFERENCE + " Scores have standard deviation 1.")

    def read(self, rows: Sequence[Row]) -> Iterator[Reading]:
        groups: dict[str, tuple[Messages, list[tuple[Row, Messages, Rated]]]] = {}
        for row in rows:
            try:
                prompt, (answer,) = read_sample(row, [("response", row.values.get("response"))], _ric_prompt(row))
                rated = answer, {name: _number(row, name) for name in self.scores}
                groups.setdefault(repr(prompt), (prompt, []))[1].append((row, prompt, rated))
            except RowError as problem:
                yield Reading((row,), problem=problem)
        for prompt, group in groups.values():
            yield _reading(group, prompt, self.scores, self.minimum_difference)


class UltraFeedback(Settings):
    """UltraFeedback (Cui et al. 2023, arXiv 2310.01377; openbmb/UltraFeedback): several rated completions a row.

    A rating is a digit from 1 to 5 as text; one that is no number (`N/A`) is left out and counted.
    """

    attributes: list[str] | dict[str, str] = Field(default_factory=lambda: list(_ULTRA), description=_ATTRIBUTES)
    minimum_difference: float = Field(1.0, gt=0, le=4, description=_DIFFERENCE)

    def read(self, rows: Sequence[Row]) -> Iterable[Reading]:
        return one_by_one(rows, self._read)

    def _read(self, row: Row) -> Reading:
        names = _names(self.attributes)
        prompt = read_prompt(row, "instruction")
        completions = row.values.get("completions")
        if not isinstance(completions, list) or not all(isinstance(one, dict) for one in completions):
            raise RowError("no list of completions", field="completions", hint="Is this openbmb/UltraFeedback's form?")
        answers: list[Rated] = []
        parts: list[str] = []
        for completion in completions:
            if not is_text(completion.get("response")):
                parts.append("a completion without a response")
                continue
            ratings = {name: _ultra_rating(completion, name) for name in names}
            parts += [f"no rating for {name}" for name, rating in ratings.items() if rating is None]
            answers.append((completion["response"], {name: r for name, r in ratings.items() if r is not None}))
        pairs = _pairs(prompt, answers, names, self.minimum_difference)
        return Reading((row,), pairs, _reason(pairs, len(answers)), tuple(parts))


def _reading(
    group: Sequence[tuple[Row, Messages, Rated]], prompt: Messages, names: Mapping[str, str], difference: float
) -> Reading:
    """The rows of one prompt."""
    pairs = _pairs(prompt, [rated for *_, rated in group], names, difference)
    return Reading(tuple(row for row, *_ in group), pairs, _reason(pairs, len(group)))


def _pairs(
    prompt: Messages, answers: Sequence[Rated], names: Mapping[str, str], difference: float
) -> tuple[RawPair, ...]:
    pairs = []
    for first, second in combinations(answers, 2):
        for attribute, name in names.items():
            ratings = first[1].get(attribute), second[1].get(attribute)
            if ratings[0] is None or ratings[1] is None or ratings[0] == ratings[1]:
                continue
            if abs(ratings[0] - ratings[1]) >= difference:
                winner, loser = (first, second) if ratings[0] > ratings[1] else (second, first)
                pairs.append(RawPair(prompt, name, winner[0], loser[0]))
    return tuple(pairs)


def _reason(pairs: Sequence[RawPair], answers: int) -> str:
    if pairs:
        return ""
    return "only one answer to the prompt" if answers < 2 else "ratings that do not differ enough"


def _names(attributes: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Attribute to principle."""
    return dict(attributes) if isinstance(attributes, Mapping) else {name: name for name in attributes}


def _number(row: Row, field: str, lowest: float = -math.inf, highest: float = math.inf) -> float:
    value: Any = row.values.get(field)
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    if not finite or not lowest <= value <= highest:
        bounds = "" if math.isinf(lowest) else f" from {lowest:g} to {highest:g}"
        raise RowError(f"no number{bounds}", field=field, hint="Choose the columns that hold ratings in `options`.")
    return float(value)


def _ultra_rating(completion: Mapping[str, Any], name: str) -> float | None:
    annotations = completion.get("annotations")
    annotation = annotations.get(name) if isinstance(annotations, dict) else None
    if not isinstance(annotation, dict):
        raise RowError(
            f"a completion without {name}", field="annotations", hint="Choose among its aspects in `options`."
        )
    try:
        rating = float(annotation.get("Rating"))  # type: ignore[arg-type]  # what float() refuses is no rating
    except (TypeError, ValueError, OverflowError):
        return None
    return rating if math.isfinite(rating) else None


def _ric_prompt(row: Row) -> Messages:
    """The prompt without the mark of the answer that follows."""
    text, prompt = row.values.get("prompt"), read_prompt(row)
    if isinstance(text, str) and text.lstrip().startswith("Human:"):
        turns = read_hh_text(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}", "prompt")
        before, prompt = prompt[:-1], turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns
        if not prompt:
            raise RowError("missing or empty", field="prompt")
        prompt = (*before, *prompt)
    return prompt
