"""The files of an evaluation beside `report.json`: `answered.json`, `costs.json`, `outputs.json`, and the pages of all.

`answered.json` says which answers of the log the report is about; the log keeps those of earlier recipes, too:

    {"version", "recipe": fingerprint of recipe.json without its judge, which answers do not depend on,
     "answers": [{"method", "policy", "guidance_weight", "keys": [key, ...]}]}

`costs.json` is apart from the report, which is the same from run to run:

    [{"method", "policy", "guidance_weight", "models", "parameters", "training_seconds", "answers",
      "prompt_tokens", "tokens", "seconds", "seconds_per_100_tokens"}]

`training_seconds` is null if unknown, as for a reward model without its `report.json`. A reward model is a cost of
every method that uses it. `answers`, `tokens` and `seconds` are those of this run's answers, whichever attempt made
them; answers decoded together share their time equally. `prompt_tokens` is the mean of what the policy read for
an answer, in all of its prompts. `seconds_per_100_tokens` is null if there are no tokens.

`outputs.json` shows some answers side by side:

    {"version", "answers": number of all answers, "shown": number of those here,
     "items": [{"policy", "group", "preference", "item", "prompt",
                "answers": [{"method", "guidance_weight", "text", "scores": {scorer: number or null}}]}]}

Items are taken in turn from every group of every policy, and there from every preference, so that few are enough to see
each; with several seeds the answers are the first one's.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import UndefinedError

from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.answering import place_of
from pad_cli.evaluation.contract import Answer, Cost, System
from pad_cli.evaluation.report import CellKey, ItemKey, Scored, rounded
from pad_cli.records import Messages
from pad_cli.reports.document import markdown
from pad_cli.reports.evaluation_report import EvaluationFiles, evaluation_document, evaluation_page
from pad_cli.system.runs import ResultLog, fingerprint, write_json, write_whole

REPORT, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
JUDGED = "judge.json"
"""What a judge says, where there was one."""
ANSWERED, COSTS, OUTPUTS = "answered.json", "costs.json", "outputs.json"
_VERSION = 1
_AGAIN = "Run `pad eval` to its end again; it answers only what is missing."
_ANSWERS = 400  # shown at most

Item = TypeVar("Item")


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
    content = read_content(path)
    try:
        answered_recipe = content["recipe"]
        keys = {System(*(row[name] for name in System._fields)): list(row["keys"]) for row in content["answers"]}
        if not all(isinstance(key, str) for system_keys in keys.values() for key in system_keys):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    if answered_recipe != _without_judge(recipe):
        raise UsageError(f"{directory}: its last evaluation used another recipe than its report.", _AGAIN)
    return keys


def _without_judge(recipe: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in recipe.items() if key != "judge"})


def write_costs(
    directory: Path, costs: Mapping[tuple[str, str], Cost], keys: Mapping[System, Iterable[str]], times: ResultLog
) -> None:
    """Write `costs.json` from (method, policy) to its cost before it answered, and the times of this run's answers."""
    rows: list[dict[str, Any]] = []
    for system, system_keys in keys.items():
        timed = [times.done[key] for key in system_keys if key in times.done]
        tokens, seconds = sum(row["tokens"] for row in timed), sum(row["seconds"] for row in timed)
        read = [row["prompt_tokens"] for row in timed if "prompt_tokens" in row]  # not in those of version 0.1
        cost = costs[system.method, system.policy]
        rows.append(
            {
                **system._asdict(),
                "models": cost.models,
                "parameters": cost.parameters,
                "training_seconds": None if cost.seconds is None else round(cost.seconds, 1),
                "answers": len(timed),
                "prompt_tokens": sum(read) / len(read) if read else None,
                "tokens": tokens,
                "seconds": seconds,
                "seconds_per_100_tokens": 100 * seconds / tokens if tokens else None,
            }
        )
    write_json(directory / COSTS, rows)


def write_outputs(answers: Sequence[Answer], scored: Iterable[Scored], directory: Path) -> None:
    """Write `outputs.json` from all answers of a run and their scores, those of the first seed first."""
    scores: dict[tuple[CellKey, ItemKey], dict[str, float | None]] = {}
    for score in scored:
        of_answer = scores.setdefault((score.cell._replace(scorer=""), score.item), {})
        of_answer.setdefault(score.cell.scorer, rounded(score.value))
    places: dict[tuple[str, str], dict[str, dict[ItemKey, list[Answer]]]] = {}
    for answer in answers:
        if answer.seed == answers[0].seed:
            cell, item_key = place_of(answer)
            preferences = places.setdefault((cell.policy, cell.group), {})
            preferences.setdefault(cell.preference, {}).setdefault(item_key, []).append(answer)
    turns = _in_turn(_in_turn(items.values() for items in preferences.values()) for preferences in places.values())
    rows = [
        {
            "policy": side_by_side[0].system.policy,
            "group": side_by_side[0].item.group,
            "preference": side_by_side[0].item.label,
            "item": side_by_side[0].item.id,
            "prompt": _in_words(side_by_side[0].item.prompt),
            "answers": [
                {
                    "method": answer.system.method,
                    "guidance_weight": answer.system.guidance_weight,
                    "text": answer.text,
                    "scores": scores.get(place_of(answer), {}),
                }
                for answer in side_by_side
            ],
        }
        for side_by_side in turns[: max(1, _ANSWERS // max(map(len, turns)))]
    ]
    shown = sum(len(row["answers"]) for row in rows)
    write_json(directory / OUTPUTS, {"version": _VERSION, "answers": len(answers), "shown": shown, "items": rows})


def _in_turn(rows: Iterable[Iterable[Item]]) -> list[Item]:
    """The first of every row, then the second of every row that has one, and so on."""
    return [item for turn in itertools.zip_longest(*rows) for item in turn if item is not None]


def _in_words(prompt: Messages) -> str:
    """A prompt for a reader; with roles if there is more than one message."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def has_report(directory: Path) -> bool:
    """Is there a finished evaluation whose pages can be written?"""
    return all((directory / name).exists() for name in (REPORT, OUTPUTS, COSTS))


def write_pages(directory: Path) -> None:
    """Write `report.md` and `report.html` from the files of a finished evaluation, and of its judge if there was one.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: they cannot be written.
    """
    judged = read_content(directory / JUDGED) if (directory / JUDGED).exists() else None
    files = EvaluationFiles(
        read_content(directory / REPORT),
        read_content(directory / OUTPUTS),
        read_content(directory / COSTS, list),
        judged,
    )
    try:
        text, content = markdown(evaluation_document(files)), evaluation_page(files)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UndefinedError) as error:
        raise DataError(
            f"no report can be made of it: {REPORT}, {OUTPUTS} or {COSTS} is damaged", path=directory, hint=_AGAIN
        ) from error
    write_whole(directory / MARKDOWN, text)
    write_whole(directory / PAGE, content)


def read_content(path: Path, kind: type = dict) -> Any:
    """The JSON object, or array, of a finished evaluation's file; raises DataError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"no {kind.__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    return content
