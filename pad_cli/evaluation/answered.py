"""Which answers of `answers.jsonl` a finished evaluation is about: the log keeps those of earlier recipes, too.

The shape of `answered.json`:

    {"version", "recipe": fingerprint of recipe.json without its judge, which answers do not depend on,
     "answers": [{"method", "policy", "guidance_weight", "keys": [key, ...]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.costs import Answered
from pad_cli.system.runs import fingerprint, write_json

ANSWERED = "answered.json"
_VERSION = 1
_AGAIN = "Run `pad eval` to its end again; it answers only what is missing."


def write_answered(directory: Path, recipe: Mapping[str, Any], keys: Mapping[Answered, Iterable[str]]) -> None:
    """Write `answered.json`.

    Args:
        directory: of the run.
        recipe: what `recipe.json` holds.
        keys: of every answer in the log, by who gave it.

    Raises:
        StorageError: it cannot be written.
    """
    rows = [{**who._asdict(), "keys": list(some)} for who, some in keys.items()]
    write_json(directory / ANSWERED, {"version": _VERSION, "recipe": _fingerprint(recipe), "answers": rows})


def read_answered(directory: Path, recipe: Mapping[str, Any]) -> dict[Answered, list[str]]:
    """The keys of a finished evaluation's answers, by who gave them.

    Args:
        directory: of the run.
        recipe: what `recipe.json` holds.

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
        keys = {Answered(*(row[name] for name in Answered._fields)): list(row["keys"]) for row in content["answers"]}
        if not all(isinstance(key, str) for some in keys.values() for key in some):
            raise TypeError("a key is a text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    if answered_recipe != _fingerprint(recipe):
        raise UsageError(f"{directory}: its last evaluation has another recipe than its report.", _AGAIN)
    return keys


def _fingerprint(recipe: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in recipe.items() if key != "judge"})
