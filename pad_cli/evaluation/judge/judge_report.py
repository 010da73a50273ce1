"""`judge.json`: what the verdicts say of methods. Its shape is a promise:

    {"version", "model", "endpoint", "modes", "complete", "over_budget",
     "pairwise": [{"policy", "method", "guidance_weight", "opponent", "opponent_weight", "group", "preference", "n",
                   "prompts", "win_rate", "low", "high", "length_controlled", "length_controlled_low",
                   "length_controlled_high", "longer_by", "wins", "ties", "losses", "disagreed", "identical",
                   "unparsed", "failed", "missing"}],
     "rubric": [{"policy", "method", "guidance_weight", "group", "preference", "dimension", "n", "prompts", "mean",
                 "low", "high", "unparsed", "failed", "missing"}],
     "position": {"first", "second", "tie"},
     "cost": {"questions", "requests", "tokens_in", "tokens_out", "usd", "lost_usd"},
     "outcomes": [{"policy", "method", "guidance_weight", "opponent", "opponent_weight", "item", "preference", "seed",
                   "result", "verdicts": [key, key]}]}

`complete` says that every question has a reply; `over_budget` that some were not asked because of `max_cost`.
A row whose preference is `*` pools all preferences of its group. `n` counts pairs (answers) with a verdict and is the
sum of wins, ties and losses; `win_rate` counts ties half. Pairs without a verdict stand beside it: `unparsed` ones have
a reply that cannot be read even after a repair, `failed` ones got no reply, `missing` ones were not asked for the sake
of the budget. `disagreed` are the ties in which the two orders named different winners, or only one named any;
`identical` the ties of answers with the same text, which need no judge. `longer_by` is the mean of the answer's
characters less its opponent's. The length-controlled interval stands in pooled rows only. `position` counts what the
replies named, before orders are combined. `cost` is of everything asked for this report, whenever that was; `lost_usd`
of requests that may have been billed without a verdict coming of it; both null without prices. `verdicts` are keys of
`judge.jsonl`, the answer first in the first one and second in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Answer
from pad_cli.evaluation.judge.length import length_controlled, length_controlled_interval
from pad_cli.evaluation.report import POOLED, rounded
from pad_cli.evaluation.statistics import Interval, by_prompt, intervals
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

VERSION = 2

_VALUES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_FORTH = {"first": "win", "second": "loss", "tie": "tie"}
_BACK = {"first": "loss", "second": "win", "tie": "tie"}
_WITHOUT = ("unparsed", "failed", "missing")
_RATINGS = (1.0, 10.0)
_SYSTEM = ("policy", "method", "guidance_weight")
_OPPONENT = ("opponent", "opponent_weight")
_CELL = ("group", "preference")

Rows = Mapping[str, Mapping[str, Any]]
"""Those of `judge.jsonl`, by key."""
Place = tuple[Any, ...]
"""The names that a row of the report begins with."""


class Match(NamedTuple):
    """Two answers to one item."""

    answer: Answer
    opponent: Answer


class Judged(NamedTuple):
    """What came of one match, or of one answer's rating.

    Attributes:
        answer: the one judged.
        result: `win`, `tie` or `loss`, or `rated`; or why there is no verdict.
        keys: of its questions.
        opponent: the answer that it was compared with.
        disagreed: the two orders named different winners.
        ratings: dimension to rating.
    """

    answer: Answer
    result: str
    keys: tuple[str, ...]
    opponent: Answer | None = None
    disagreed: bool = False
    ratings: Mapping[str, int] = {}

    @property
    def place(self) -> Place:
        method, policy, weight = self.answer.system
        opponent = self.opponent.system if self.opponent else None
        return (policy, method, weight, *([opponent.method, opponent.guidance_weight] if opponent else []))


def decide(match: Match, keys: tuple[str, ...], rows: Rows, failed: Mapping[str, str]) -> Judged:
    """Combine the verdicts of both orders; without agreement it is a tie.

    Args:
        match: two answers.
        keys: of the question with the answer first, and with its opponent first; empty for identical answers.
        rows: of the log.
        failed: questions without a reply.
    """
    result, disagreed = _lacking(keys, rows, failed) or "tie", False
    if keys and result == "tie":
        forth, back = (rows[key]["verdict"]["winner"] for key in keys)
        disagreed = _FORTH[forth] != _BACK[back]
        result = "tie" if disagreed else _FORTH[forth]
    return Judged(match.answer, result, keys, match.opponent, disagreed)


def rated(answer: Answer, key: str, rows: Rows, failed: Mapping[str, str]) -> Judged:
    """The ratings of one answer."""
    if lacking := _lacking((key,), rows, failed):
        return Judged(answer, lacking, (key,))
    return Judged(answer, "rated", (key,), ratings=rows[key]["verdict"]["ratings"])


def _lacking(keys: Iterable[str], rows: Rows, failed: Mapping[str, str]) -> str:
    """Why there is no verdict, the gravest of several reasons; empty where there is one."""
    states = set()
    for key in keys:
        if key not in rows:
            states.add("failed" if key in failed else "missing")
        elif rows[key]["verdict"] is None:
            states.add("unparsed")
    return next((state for state in reversed(_WITHOUT) if state in states), "")


def pairwise_rows(judged: Sequence[Judged], recipe: EvalRecipe) -> list[dict[str, Any]]:
    """A row for each method, opponent, group and preference."""
    names = (*_SYSTEM, *_OPPONENT, *_CELL)
    return [
        {**dict(zip(names, place, strict=True)), **_pairwise_cell(place, cell, recipe)}
        for place, cell in _cells(judged, recipe)
    ]


def rubric_rows(judged: Sequence[Judged], recipe: EvalRecipe, dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each method, group, preference and dimension."""
    names = (*_SYSTEM, *_CELL)
    return [
        {**dict(zip(names, place, strict=True)), **_rubric_cell(place, cell, dimension, recipe)}
        for place, cell in _cells(judged, recipe)
        for dimension in dimensions
    ]


def outcome_row(one: Judged) -> dict[str, Any]:
    """One match in `outcomes`."""
    return {
        **dict(zip((*_SYSTEM, *_OPPONENT), one.place, strict=True)),
        "item": one.answer.item.id,
        "preference": one.answer.item.label,
        "seed": one.answer.seed,
        "result": one.result,
        "verdicts": list(one.keys),
    }


def positions(keys: Iterable[str], rows: Rows) -> dict[str, int]:
    """How often the replies to pairwise questions named the first answer, the second, or neither."""
    verdicts = [row["verdict"] for key in keys if (row := rows.get(key)) and row["mode"] == "pairwise"]
    counts = Counter(verdict["winner"] for verdict in verdicts if verdict is not None)
    return {name: counts[name] for name in ("first", "second", "tie")}


def _cells(judged: Sequence[Judged], recipe: EvalRecipe) -> Iterator[tuple[Place, list[Judged]]]:
    """By group, then pooled ones first, then policies and methods as the recipe has them."""
    cells: dict[Place, list[Judged]] = {}
    for one in judged:
        for preference in (POOLED, one.answer.item.label):
            cells.setdefault((*one.place, one.answer.item.group, preference), []).append(one)
    policies, methods = list(recipe.policies), [method.label for method in recipe.methods]

    def rank(place: Place) -> Place:
        *_, group, preference = place
        return group, preference != POOLED, preference, policies.index(place[0]), methods.index(place[1]), place[2:]

    for place in sorted(cells, key=rank):
        yield place, cells[place]


def _pairwise_cell(place: Place, cell: Sequence[Judged], recipe: EvalRecipe) -> dict[str, Any]:
    counts = Counter(one.result for one in cell)
    judged = [one for one in cell if one.result in _VALUES]
    prompts = [prompt_key(one.answer.item) for one in judged]
    values = np.array([_VALUES[one.result] for one in judged])
    longer = np.array([float(len(one.answer.text) - len(one.opponent.text)) for one in judged if one.opponent])
    rate, low, high = _mean(prompts, values, (0.0, 1.0), place, recipe)
    controlled = length_controlled(values, longer) if judged else None
    ends = None
    if judged and place[-1] == POOLED:
        ends = length_controlled_interval(
            values, longer, prompts, confidence=recipe.confidence, resamples=recipe.resamples, seed=_seed(place)
        )
        if np.ptp(values) == 0 and low is not None and high is not None:  # no resample differs, and the rates are equal
            ends = Interval(low, high)
    return {
        "n": len(judged),
        "prompts": len(set(prompts)),
        "win_rate": rate,
        "low": low,
        "high": high,
        "length_controlled": rounded(controlled),
        "length_controlled_low": rounded(ends and ends.low),
        "length_controlled_high": rounded(ends and ends.high),
        "longer_by": rounded(float(longer.mean())) if judged else None,
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "disagreed": sum(one.disagreed for one in judged),
        "identical": sum(not one.keys for one in judged),
        **{name: counts[name] for name in _WITHOUT},
    }


def _rubric_cell(place: Place, cell: Sequence[Judged], dimension: str, recipe: EvalRecipe) -> dict[str, Any]:
    counts = Counter(one.result for one in cell)
    read = [one for one in cell if one.ratings]
    prompts = [prompt_key(one.answer.item) for one in read]
    mean, low, high = _mean(prompts, [one.ratings[dimension] for one in read], _RATINGS, (*place, dimension), recipe)
    return {
        "dimension": dimension,
        "n": len(read),
        "prompts": len(set(prompts)),
        "mean": mean,
        "low": low,
        "high": high,
        **{name: counts[name] for name in _WITHOUT},
    }


def _mean(
    prompts: Sequence[str], values: Any, bounds: tuple[float, float], place: Place, recipe: EvalRecipe
) -> tuple[float | None, float | None, float | None]:
    """A mean and the ends of its interval."""
    if not prompts:
        return None, None, None
    sample = by_prompt(zip(prompts, map(float, values), strict=True))
    (ends,) = intervals(
        [sample], confidence=recipe.confidence, resamples=recipe.resamples, seed=_seed(place), bounds=[bounds]
    )
    return rounded(sample.mean), rounded(ends and ends.low), rounded(ends and ends.high)


def _seed(place: Place) -> int:
    return int(fingerprint(list(place)), 16)
