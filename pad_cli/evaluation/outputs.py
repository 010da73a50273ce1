"""What an evaluation writes beside its report: `answered.json`, `costs.json` and `outputs.json`.

`answered.json` says which answers of the log the report is about; the log keeps those of earlier recipes, too:

    {"version", "recipe": fingerprint of recipe.json without its judge, which answers do not depend on,
     "answers": [{"method", "policy", "guidance_weight", "keys": [key, ...]}]}

`costs.json` is apart from the report, which is the same from run to run:

    [{"method", "policy", "models", "parameters", "training_seconds", "guidance_weight", "answers", "tokens",
      "seconds", "seconds_per_100_tokens"}]

`training_seconds` is null if unknown, as for a reward model without its `report.json`. A reward model is a cost of
every method that uses it. `answers`, `tokens` and `seconds` are those of this run's answers, whichever attempt made
them; answers decoded together share their time equally. `seconds_per_100_tokens` is null if there are no tokens.

`outputs.json` shows some answers side by side:

    {"version", "answers": number of all answers, "shown": number of those here,
     "items": [{"policy", "group", "preference", "item", "prompt",
                "answers": [{"method", "guidance_weight", "text", "scores": {scorer: number or null},
                             "tokens": [[text, reward], ...] or null}]}]}

Items are taken in turn from every preference of every group and policy, so that few are enough to see each; with
several seeds the answers are the first one's. `tokens` are those of `sequence_rewards.rewarded_texts`, or null.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.comparisons import ItemKey, Scored, rounded
from pad_cli.evaluation.contract import Answer, Cost, System
from pad_cli.evaluation.sequence_rewards import RewardedText
from pad_cli.records import BenchmarkItem, Messages
from pad_cli.system.runs import ResultLog, fingerprint, write_json, write_whole

ANSWERED, COSTS, OUTPUTS = "answered.json", "costs.json", "outputs.json"
_VERSION = 1
_AGAIN = "Run `pad eval` to its end again; it answers only what is missing."
_ANSWERS = 400  # shown at most
_LETTERS = 400_000  # of them

OutputKey = tuple[System, int]
"""One of the answers in `outputs.json`: the system, and the number of the item among those of its policy."""


def write_answered(directory: Path, recipe: Mapping[str, Any], keys: Mapping[System, Iterable[str]]) -> None:
    """Write `answered.json` of a run with this `recipe.json`; `keys` are those of every answer, by system."""
    rows = [{**system._asdict(), "keys": list(system_keys)} for system, system_keys in keys.items()]
    write_json(directory / ANSWERED, {"version": _VERSION, "recipe": _without_judge(recipe), "answers": rows})


def read_answered(directory: Path, recipe: Mapping[str, Any]) -> dict[System, list[str]]:
    """The keys of the answers of a finished run with this `recipe.json`, by the system that gave them.

    Raises:
        UsageError: the run does not say which answers are its own, or its last evaluation did not finish.
        DataError: the file is damaged.
    """
    path = directory / ANSWERED
    if not path.exists():
        raise UsageError(f"{directory}: an evaluation of an earlier version, without {ANSWERED}.", _AGAIN)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        answered_recipe = content["recipe"]
        keys = {System(*(row[name] for name in System._fields)): list(row["keys"]) for row in content["answers"]}
        if not all(isinstance(key, str) for system_keys in keys.values() for key in system_keys):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    if answered_recipe != _without_judge(recipe):
        raise UsageError(f"{directory}: its last evaluation has another recipe than its report.", _AGAIN)
    return keys


def _without_judge(recipe: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in recipe.items() if key != "judge"})


def write_costs(
    directory: Path,
    costs: Mapping[tuple[str, str], Cost],
    keys: Mapping[System, Iterable[str]],
    times: ResultLog,
) -> None:
    """Write `costs.json` from (method, policy) to its cost before it answered, and the times of this run's answers."""
    rows: list[dict[str, Any]] = []
    for system, system_keys in keys.items():
        timed = [times.done[key] for key in system_keys if key in times.done]
        cost = costs[system.method, system.policy]
        tokens, seconds = sum(row["tokens"] for row in timed), sum(row["seconds"] for row in timed)
        rows.append(
            {
                "method": system.method,
                "policy": system.policy,
                "models": cost.models,
                "parameters": cost.parameters,
                "training_seconds": None if cost.seconds is None else round(cost.seconds, 1),
                "guidance_weight": system.guidance_weight,
                "answers": len(timed),
                "tokens": tokens,
                "seconds": seconds,
                "seconds_per_100_tokens": 100 * seconds / tokens if tokens else None,
            }
        )
    write_json(directory / COSTS, rows)


def choose_items(items: Mapping[str, Sequence[BenchmarkItem]], systems: int) -> list[tuple[str, int]]:
    """Policies and numbers of the items to show: few enough for the answers of so many systems a policy, one at least.

    First come the first items of every preference, then the second ones, and so on; each policy and group has its turn
    before another preference of the same.
    """
    ranked: list[tuple[tuple[int, int, int], tuple[str, int]]] = []
    groups: dict[tuple[str, str], dict[str, int]] = {}  # of each, its preferences in order
    counts: Counter[tuple[str, str, str]] = Counter()
    for policy, policy_items in items.items():
        for number, item in enumerate(policy_items):
            labels = groups.setdefault((policy, item.group), {})
            turn = labels.setdefault(item.label, len(labels))
            group = list(groups).index((policy, item.group))
            ranked.append(((counts[policy, item.group, item.label], turn, group), (policy, number)))
            counts[policy, item.group, item.label] += 1
    return [place for _, place in sorted(ranked)[: max(1, _ANSWERS // systems)]]


def write_outputs(
    answers: Sequence[Answer],
    scored: Iterable[Scored],
    tokens: Mapping[OutputKey, RewardedText | None],
    directory: Path,
) -> None:
    """Write `outputs.json`.

    Args:
        answers: all of the run, of each system and seed in the order of the items.
        scored: their scores, those of the first seed first.
        tokens: the token rewards of the answers to the items that `choose_items` chose.
        directory: of the run.
    """
    by_policy: dict[str, dict[System, list[Answer]]] = {}
    for answer in answers:
        if answer.seed == answers[0].seed:
            by_policy.setdefault(answer.system.policy, {}).setdefault(answer.system, []).append(answer)
    items = {policy: [answer.item for answer in next(iter(systems.values()))] for policy, systems in by_policy.items()}
    scores: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for score in scored:
        *names, scorer = score.cell
        scores.setdefault((*names, score.item), {}).setdefault(scorer, rounded(score.value))
    rows: list[dict[str, Any]] = []
    letters = 0
    for policy, number in choose_items(items, max(map(len, by_policy.values()))):
        side_by_side = [row[number] for row in by_policy[policy].values()]
        letters += sum(len(answer.text) for answer in side_by_side)
        if rows and letters > _LETTERS:
            break
        item = items[policy][number]
        row = {"policy": policy, "group": item.group, "preference": item.label, "item": item.id}
        item_key = ItemKey(prompt_key(item), item.label, item.id)
        shown = []
        for answer in side_by_side:
            method, weight = answer.system.method, answer.system.guidance_weight
            cell = (method, policy, item.group, item.label, weight)
            figures = {"scores": scores.get((*cell, item_key), {}), "tokens": tokens.get((answer.system, number))}
            shown.append({"method": method, "guidance_weight": weight, "text": answer.text, **figures})
        rows.append({**row, "prompt": _in_words(item.prompt), "answers": shown})
    facts = {"version": _VERSION, "answers": len(answers), "shown": sum(len(row["answers"]) for row in rows)}
    # a line for each item: indented, every token would have a line
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_whole(directory / OUTPUTS, f'{json.dumps(facts)[:-1]}, "items": [\n{lines}\n]}}\n')


def _in_words(prompt: Messages) -> str:
    """A prompt for a reader; with roles if there is more than one message."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
