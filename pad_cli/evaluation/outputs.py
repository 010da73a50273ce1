"""Some of a run's answers beside each other, with their scores, for the report's reader.

The shape of `outputs.json`:

    {"version", "answers": how many the run has, "shown": how many of them are here,
     "items": [{"policy", "group", "preference", "item", "prompt",
                "answers": [{"method", "guidance_weight", "text", "scores": {scorer: number or null},
                             "tokens": [[text, reward], ...] or null}]}]}

Items are taken in turn from every preference of every group and policy, so that few are enough to see each. With
several seeds it is the first one's answers. `tokens` are the answer's text in pieces, each with what the reward model
gives for it under the item's preference, nats (see `rewarded_text.py`); null where it gives nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.cells import Scored, rounded
from pad_cli.evaluation.contract import EvalContext, Sample
from pad_cli.evaluation.rewarded_text import RewardedText, rewarded_texts
from pad_cli.records import BenchmarkItem, Messages
from pad_cli.system.runs import ResultLog, write_whole

OUTPUTS = "outputs.json"
_VERSION = 1
_ANSWERS = 400  # shown at most
_LETTERS = 400_000  # of them


class Answers(NamedTuple):
    """One method's answers on one policy with one seed, in the items' order."""

    method: str
    policy: str
    guidance_weight: float
    seed: int
    samples: Sequence[Sample]


Place = tuple[str, str, float, int]
"""Policy, method, guidance weight, and the number of the item among the policy's."""


class ShownTokens:
    """The token rewards of the answers that will be shown, taken of one policy after the other, while it is loaded.

    Args:
        items: of every policy.
        log: takes in what is new.

    Attributes:
        found: what was taken so far; None where the reward model gives nothing.
    """

    def __init__(self, items: Mapping[str, Sequence[BenchmarkItem]], log: ResultLog) -> None:
        self._items, self._log = items, log
        self.found: dict[Place, RewardedText | None] = {}

    def take(self, subject: EvalContext, answers: Sequence[Answers]) -> None:
        """Reward those of one policy's answers that may be shown."""
        chosen = [(each, shown.number) for shown in _affordable(answers, self._items) for each in shown.answers]
        texts = rewarded_texts(subject, [each.samples[number] for each, number in chosen], self._log)
        self.found.update(zip((_place(*each) for each in chosen), texts, strict=True))


def write_outputs(
    answers: Sequence[Answers],
    scored: Iterable[Scored],
    tokens: Mapping[Place, RewardedText | None],
    directory: Path,
) -> None:
    """Write `outputs.json`.

    Args:
        answers: all of the run.
        scored: their scores, those of the first seed first.
        tokens: the token rewards of those that are shown.
        directory: of the run.

    Raises:
        StorageError: it cannot be written.
    """
    chosen = list(_affordable(answers, {each.policy: [sample.item for sample in each.samples] for each in answers}))
    scores: dict[tuple[Any, ...], dict[str, float | None]] = {
        _scored_place(shown, each): {} for shown in chosen for each in shown.answers
    }
    for score in scored:
        place = (score.policy, score.group, score.preference, score.item, score.prompt)
        if (found := scores.get((*place, score.method, score.guidance_weight))) is not None:
            found.setdefault(score.scorer, rounded(score.value))
    items = [
        {
            "policy": shown.policy,
            "group": shown.item.group,
            "preference": shown.item.label,
            "item": shown.item.id,
            "prompt": in_words(shown.item.prompt),
            "answers": [
                {
                    "method": each.method,
                    "guidance_weight": each.guidance_weight,
                    "text": each.samples[shown.number].text,
                    "scores": scores[_scored_place(shown, each)],
                    "tokens": tokens.get(_place(each, shown.number)),
                }
                for each in shown.answers
            ],
        }
        for shown in chosen
    ]
    facts = {
        "version": _VERSION,
        "answers": sum(len(each.samples) for each in answers),
        "shown": sum(len(shown.answers) for shown in chosen),
    }
    lines = ",\n".join(
        json.dumps(item, ensure_ascii=False) for item in items
    )  # indented, tokens would need a line each
    write_whole(directory / OUTPUTS, f'{json.dumps(facts)[:-1]}, "items": [\n{lines}\n]}}\n')


class _Shown(NamedTuple):
    """An item of a policy, and every method's answers on that policy."""

    policy: str
    number: int
    item: BenchmarkItem
    answers: list[Answers]


def _place(answers: Answers, number: int) -> Place:
    return answers.policy, answers.method, answers.guidance_weight, number


def _scored_place(shown: _Shown, answers: Answers) -> tuple[Any, ...]:
    item = shown.item
    place = (shown.policy, item.group, item.label, item.id, prompt_key(item))
    return (*place, answers.method, answers.guidance_weight)


def _affordable(answers: Sequence[Answers], items: Mapping[str, Sequence[BenchmarkItem]]) -> Iterator[_Shown]:
    """Items with their answers until there are enough, one at least.

    Args:
        answers: of all policies, or of some: then what is shown of those, and more where answers are long.
        items: of all policies.
    """
    by_policy: dict[str, list[Answers]] = {}
    for each in answers:
        if each.seed == answers[0].seed:
            by_policy.setdefault(each.policy, []).append(each)
    count = max(1, _ANSWERS // max(map(len, by_policy.values())))
    places = [place for place in itertools.islice(_in_turn(items), count) if place[0] in by_policy]
    letters = 0
    for position, (policy, number) in enumerate(places):
        beside = by_policy[policy]
        letters += sum(len(each.samples[number].text) for each in beside)
        if position and letters > _LETTERS:
            return
        yield _Shown(policy, number, items[policy][number], beside)


def _in_turn(items: Mapping[str, Sequence[BenchmarkItem]]) -> Iterator[tuple[str, int]]:
    """(policy, number of an item): the first of every preference of every group, then the second ones ..."""
    strata: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for policy, each in items.items():
        for number, item in enumerate(each):
            strata.setdefault((policy, item.group, item.label), []).append((policy, number))
    rounds = itertools.zip_longest(*_spread(strata))
    return (place for places in rounds for place in places if place is not None)


def _spread(strata: dict[tuple[str, str, str], list[tuple[str, int]]]) -> Iterator[list[tuple[str, int]]]:
    """The strata so that each policy and group has its turn before another preference of the same."""
    groups: dict[tuple[str, str], list[list[tuple[str, int]]]] = {}
    for (policy, group, _), places in strata.items():
        groups.setdefault((policy, group), []).append(places)
    for turn in itertools.zip_longest(*groups.values()):
        yield from (places for places in turn if places is not None)


def in_words(prompt: Messages) -> str:
    """A prompt for a reader; who said what, where there is more than one message."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
