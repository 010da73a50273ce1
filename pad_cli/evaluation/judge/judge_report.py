"""`judge.json`: what the verdicts say of methods. Its shape is a promise:

    {"version", "model", "endpoint", "complete", "over_budget",
     "pairwise": [{"policy", "method", "guidance_weight", "opponent", "opponent_weight", "group", "preference", "n",
                   "prompts", "win_rate", "low", "high", "length_controlled", "length_controlled_low",
                   "length_controlled_high", "longer_by", "wins", "ties", "losses", "disagreed", "identical",
                   "unparsed", "failed", "missing"}],
     "position": {"first", "second", "tie"},
     "cost": {"questions", "tokens_in", "tokens_out", "usd", "lost_usd"},
     "outcomes": [{"policy", "method", "guidance_weight", "opponent", "opponent_weight", "item", "preference", "seed",
                   "result", "verdicts": [key, key]}]}

`complete` says that every question has a reply; `over_budget` that some were not asked because of `max_cost`.
A row whose preference is `*` pools all preferences of its group. `n` counts pairs with a verdict and is the sum of
wins, ties and losses; `win_rate` counts ties half. Pairs without a verdict stand beside it: `unparsed` ones have a
reply that cannot be read, `failed` ones got no reply, `missing` ones were not asked for the sake of the budget.
`disagreed` are the ties in which the two orders named different winners, or only one named any; `identical` the ties of
answers with the same text, which need no judge. `longer_by` is the mean of the answer's characters less its opponent's.
`position` counts what the replies named, before orders are combined. `cost` is of everything asked for this report,
whenever that was; `lost_usd` of requests that may have been billed without a reply; both null without prices.
`verdicts` are keys of `judge.jsonl`, the answer first in the first one and second in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Answer
from pad_cli.evaluation.judge.length import length_controlled
from pad_cli.evaluation.report import POOLED, rounded
from pad_cli.evaluation.statistics import by_prompt, intervals
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

VERSION = 3

_VALUES = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_ORDERS = ({"first": "win", "second": "loss", "tie": "tie"}, {"first": "loss", "second": "win", "tie": "tie"})
_WITHOUT = ("unparsed", "failed", "missing")  # why there is no verdict; the gravest reason last

Rows = Mapping[str, Mapping[str, Any]]
"""Those of `judge.jsonl`, by key."""


class Match(NamedTuple):
    """Two answers to one item, and the keys of the questions about them.

    Attributes:
        answer: the one judged.
        opponent: the one that it is compared with.
        keys: of the question with the answer first, and of that with its opponent first; none if both texts are equal.
    """

    answer: Answer
    opponent: Answer
    keys: tuple[str, ...]

    @property
    def place(self) -> dict[str, Any]:
        method, policy, weight = self.answer.system
        other = self.opponent.system
        place = {"policy": policy, "method": method, "guidance_weight": weight}
        return {**place, "opponent": other.method, "opponent_weight": other.guidance_weight}


class Judged(NamedTuple):
    """What came of a match: `win`, `tie`, `loss`, or why there is no verdict; and whether the two orders disagreed."""

    match: Match
    result: str
    disagreed: bool = False


def decide(match: Match, rows: Rows, failed: Mapping[str, str]) -> Judged:
    """Combine the verdicts of both orders; without agreement it is a tie. `failed` are questions without a reply."""
    states = {_state(key, rows, failed) for key in match.keys}
    if lacking := [reason for reason in _WITHOUT if reason in states]:
        return Judged(match, lacking[-1])
    winners = [rows[key]["verdict"]["winner"] for key in match.keys]
    results = {order[winner] for order, winner in zip(_ORDERS, winners, strict=False)}
    return Judged(match, results.pop() if len(results) == 1 else "tie", disagreed=len(results) > 1)


def _state(key: str, rows: Rows, failed: Mapping[str, str]) -> str:
    if key not in rows:
        return "failed" if key in failed else "missing"
    return "unparsed" if rows[key]["verdict"] is None else "judged"


def outcome_row(one: Judged) -> dict[str, Any]:
    """One match in `outcomes`."""
    answer = one.match.answer
    return {
        **one.match.place,
        "item": answer.item.id,
        "preference": answer.item.label,
        "seed": answer.seed,
        "result": one.result,
        "verdicts": list(one.match.keys),
    }


def positions(keys: Iterable[str], rows: Rows) -> dict[str, int]:
    """How often the replies to some questions named the first answer, the second, or neither."""
    verdicts = [rows[key]["verdict"] for key in keys if key in rows]
    counts = Counter(verdict["winner"] for verdict in verdicts if verdict is not None)
    return {name: counts[name] for name in ("first", "second", "tie")}


def pairwise_rows(judged: Sequence[Judged], recipe: EvalRecipe) -> list[dict[str, Any]]:
    """A row for each method, opponent, group and preference.

    They stand by group, then pooled ones first, then policies and methods as the recipe has them.
    """
    cells: dict[tuple[Any, ...], list[Judged]] = {}
    for one in judged:
        item = one.match.answer.item
        for preference in (POOLED, item.label):
            cells.setdefault((*one.match.place.values(), item.group, preference), []).append(one)
    policies, methods = list(recipe.policies), [method.label for method in recipe.methods]

    def rank(place: tuple[Any, ...]) -> tuple[Any, ...]:
        policy, method, *others, group, preference = place
        return group, preference != POOLED, preference, policies.index(policy), methods.index(method), others

    return [_row(place, cells[place], recipe) for place in sorted(cells, key=rank)]


def _row(place: tuple[Any, ...], cell: Sequence[Judged], recipe: EvalRecipe) -> dict[str, Any]:
    counts = Counter(one.result for one in cell)
    judged = [one for one in cell if one.result in _VALUES]
    prompts = [prompt_key(one.match.answer.item) for one in judged]
    values = [_VALUES[one.result] for one in judged]
    longer = [len(one.match.answer.text) - len(one.match.opponent.text) for one in judged]
    rate = controlled = ends = controlled_ends = None
    if judged:
        drawn: Any = {"confidence": recipe.confidence, "resamples": recipe.resamples}
        drawn["seed"] = int(fingerprint(list(place)), 16)
        sample = by_prompt(zip(prompts, values, strict=True))
        rate, (ends,) = sample.mean, intervals([sample], bounds=[(0.0, 1.0)], **drawn)
        controlled, controlled_ends = length_controlled(np.array(values), np.array(longer, float), prompts, **drawn)
        if len(set(values)) == 1:  # no resample differs
            controlled_ends = ends
    return {
        **cell[0].match.place,
        "group": cell[0].match.answer.item.group,
        "preference": place[-1],
        "n": len(judged),
        "prompts": len(set(prompts)),
        "win_rate": rounded(rate),
        "low": rounded(ends and ends.low),
        "high": rounded(ends and ends.high),
        "length_controlled": rounded(controlled),
        "length_controlled_low": rounded(controlled_ends and controlled_ends.low),
        "length_controlled_high": rounded(controlled_ends and controlled_ends.high),
        "longer_by": rounded(float(np.mean(longer))) if judged else None,
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "disagreed": sum(one.disagreed for one in judged),
        "identical": sum(not one.match.keys for one in judged),
        **{name: counts[name] for name in _WITHOUT},
    }
