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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.cells import POOLED, rounded
from pad_cli.evaluation.judge.answers import Answer, Match
from pad_cli.evaluation.judge.length import length_controlled, length_controlled_interval
from pad_cli.evaluation.statistics import Interval, by_prompt, intervals
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

JUDGE_REPORT = "judge.json"
VERSION = 2
_VALUES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_FORTH = {"first": "win", "second": "loss", "tie": "tie"}
_BACK = {"first": "loss", "second": "win", "tie": "tie"}
_WITHOUT = ("unparsed", "failed", "missing")
_RATINGS = (1.0, 10.0)

Rows = Mapping[str, Mapping[str, Any]]


class Decided(NamedTuple):
    """What came of one match: `win`, `tie`, `loss`, or why there is no verdict."""

    match: Match
    keys: tuple[str, ...]
    result: str
    disagreed: bool = False


class Rated(NamedTuple):
    """What came of one answer's rating; `ratings` is empty, and `result` says why, when there is none."""

    answer: Answer
    result: str
    ratings: Mapping[str, int]


def decide(match: Match, keys: tuple[str, ...], rows: Rows, failed: Mapping[str, str]) -> Decided:
    """Combine the verdicts of both orders; without agreement it is a tie.

    Args:
        match: two answers.
        keys: of the question with the answer first, and with its opponent first; empty for identical answers.
        rows: of the log.
        failed: questions without a reply.
    """
    if not keys:
        return Decided(match, keys, "tie")
    states = [_state(key, rows, failed) for key in keys]
    for lacking in reversed(_WITHOUT):
        if lacking in states:
            return Decided(match, keys, lacking)
    forth, back = (rows[key]["verdict"]["winner"] for key in keys)
    agreed = _FORTH[forth] == _BACK[back]
    return Decided(match, keys, _FORTH[forth] if agreed else "tie", disagreed=not agreed)


def rated(answer: Answer, key: str, rows: Rows, failed: Mapping[str, str]) -> Rated:
    """The ratings of one answer."""
    state = _state(key, rows, failed)
    return Rated(answer, state, rows[key]["verdict"]["ratings"] if state == "read" else {})


def pairwise_rows(decided: Iterable[Decided], recipe: EvalRecipe) -> list[dict[str, Any]]:
    """A row for each method, opponent, group and preference."""
    cells: dict[tuple[Any, ...], list[Decided]] = {}
    for one in decided:
        answer, opponent = one.match.answer, one.match.opponent.system
        for preference in (POOLED, answer.item.label):
            place = (*answer.system, opponent.method, opponent.guidance_weight, answer.item.group, preference)
            cells.setdefault(place, []).append(one)
    names = ("policy", "method", "guidance_weight", "opponent", "opponent_weight", "group", "preference")
    return [
        {**dict(zip(names, place, strict=True)), **_pairwise_cell(place, cells[place], recipe)}
        for place in _ordered(cells, recipe)
    ]


def rubric_rows(ratings: Iterable[Rated], recipe: EvalRecipe, dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each method, group, preference and dimension."""
    cells: dict[tuple[Any, ...], list[Rated]] = {}
    for one in ratings:
        for preference in (POOLED, one.answer.item.label):
            cells.setdefault((*one.answer.system, one.answer.item.group, preference), []).append(one)
    names = ("policy", "method", "guidance_weight", "group", "preference")
    return [
        {**dict(zip(names, place, strict=True)), "dimension": name, **_rubric_cell(place, cells[place], name, recipe)}
        for place in _ordered(cells, recipe)
        for name in dimensions
    ]


def outcome_row(one: Decided) -> dict[str, Any]:
    """One match in `outcomes`."""
    answer, opponent = one.match.answer, one.match.opponent.system
    return {
        **answer.system._asdict(),
        "opponent": opponent.method,
        "opponent_weight": opponent.guidance_weight,
        "item": answer.item.id,
        "preference": answer.item.label,
        "seed": answer.seed,
        "result": one.result,
        "verdicts": list(one.keys),
    }


def positions(keys: Iterable[str], rows: Rows) -> dict[str, int]:
    """How often the replies to pairwise questions named the first answer, the second, or neither."""
    verdicts = [row["verdict"] for key in keys if (row := rows.get(key)) and row["mode"] == "pairwise"]
    counts = Counter(verdict["winner"] for verdict in verdicts if verdict is not None)
    return {name: counts[name] for name in ("first", "second", "tie")}


def _state(key: str, rows: Rows, failed: Mapping[str, str]) -> str:
    if key not in rows:
        return "failed" if key in failed else "missing"
    return "unparsed" if rows[key]["verdict"] is None else "read"


def _pairwise_cell(place: tuple[Any, ...], cell: Sequence[Decided], recipe: EvalRecipe) -> dict[str, Any]:
    counts = Counter(one.result for one in cell)
    judged = [one for one in cell if one.result in _VALUES]
    prompts = [prompt_key(one.match.answer.item) for one in judged]
    values = np.array([_VALUES[one.result] for one in judged])
    longer = np.array([float(len(one.match.answer.text) - len(one.match.opponent.text)) for one in judged])
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


def _rubric_cell(place: tuple[Any, ...], cell: Sequence[Rated], dimension: str, recipe: EvalRecipe) -> dict[str, Any]:
    counts = Counter(one.result for one in cell)
    read = [one for one in cell if one.ratings]
    prompts = [prompt_key(one.answer.item) for one in read]
    values = np.array([float(one.ratings[dimension]) for one in read])
    mean, low, high = _mean(prompts, values, _RATINGS, (*place, dimension), recipe)
    return {
        "n": len(read),
        "prompts": len(set(prompts)),
        "mean": mean,
        "low": low,
        "high": high,
        **{name: counts[name] for name in _WITHOUT},
    }


def _mean(
    prompts: Sequence[str], values: Any, bounds: tuple[float, float], place: tuple[Any, ...], recipe: EvalRecipe
) -> tuple[float | None, float | None, float | None]:
    """A mean and the ends of its interval."""
    if not prompts:
        return None, None, None
    sample = by_prompt(zip(prompts, map(float, values), strict=True))
    (ends,) = intervals(
        [sample], confidence=recipe.confidence, resamples=recipe.resamples, seed=_seed(place), bounds=[bounds]
    )
    return rounded(sample.mean), rounded(ends and ends.low), rounded(ends and ends.high)


def _ordered(cells: Iterable[tuple[Any, ...]], recipe: EvalRecipe) -> list[tuple[Any, ...]]:
    """Places by group, then pooled ones first, then policies and methods as the recipe has them."""
    policies, methods = list(recipe.policies), [method.shown for method in recipe.methods]

    def rank(place: tuple[Any, ...]) -> tuple[Any, ...]:
        *_, group, preference = place
        return group, preference != POOLED, preference, policies.index(place[0]), methods.index(place[1]), place[2:]

    return sorted(cells, key=rank)


def _seed(place: tuple[Any, ...]) -> int:
    return int(fingerprint(list(place)), 16)
