"""Preference pairs from JSONL files or a registered source (floor 3).

One JSON object a line, the field's columns plus `preference`:

    {"prompt": str | [{"role", "content"}, ...], "preference": str | {name: weight}, "chosen": ..., "rejected": ...}

`chosen` and `rejected` are texts, or conversations that end with the answer (an assistant's message).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pad_cli.errors import DataError, RecipeError
from pad_cli.recipe import DataSettings
from pad_cli.records import Messages, PairData, PairSplit, PreferencePair, as_messages
from pad_cli.registry import PAIR_SOURCES

_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST = 1e9  # weights beyond it, not a number included, are no weights


def load_pairs(settings: DataSettings, seed: int) -> PairData:
    """The pairs a recipe asks for.

    Raises:
        DataError: a file is missing or a line is wrong.
        RecipeError: the source does not take the given options.
    """
    if settings.source is not None:
        try:
            data: PairData = PAIR_SOURCES.get(settings.source)(seed=seed, **settings.options)
        except TypeError as error:
            raise RecipeError(
                f"data.options: {error}", f"See the options of the source '{settings.source}'."
            ) from error
    else:
        assert settings.train is not None
        data = PairData(
            train=read_pairs(Path(settings.train)),
            validation=tuple(PairSplit(name, read_pairs(Path(path))) for name, path in settings.validation.items()),
            texts={name: tuple(texts) for name, texts in settings.texts.items()},
        )
    if settings.limit is not None and settings.limit < len(data.train):
        drawn = random.Random(seed).sample(data.train, settings.limit)
        data = PairData(tuple(drawn), data.validation, data.texts)
    return data


def read_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """All pairs of a JSONL file.

    Raises:
        DataError: the file is missing, empty, or a line is wrong; names file, line and field.
    """
    pairs = tuple(_pair(row, path, number) for number, row in read_rows(path))
    if not pairs:
        raise DataError("the file has no rows", path=path, hint="One JSON object a line.")
    return pairs


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file with their line numbers; blank lines are skipped.

    Raises:
        DataError: the file is missing or a line is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", path=path, hint="Save it as UTF-8 JSONL.") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path, hint="Check the path.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", path=path, line=number, hint="One JSON object a line.") from error
        if not isinstance(row, dict):
            raise DataError("not a JSON object", path=path, line=number, hint='Write {"prompt": ...} a line.')
        rows.append((number, row))
    return rows


def prompt_of(row: Mapping[str, Any], path: Path, line: int) -> Messages:
    """The prompt of a row, plain or conversational.

    Raises:
        DataError: it is missing, empty, or of another form.
    """
    prompt = row.get("prompt")
    if _is_text(prompt):
        return as_messages(prompt)
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return as_messages(prompt)
    raise DataError(
        "missing or empty" if not prompt else "neither a text nor a list of {role, content}",
        path=path,
        line=line,
        field="prompt",
        hint='Write "prompt": "..." or "prompt": [{"role": "user", "content": "..."}].',
    )


def _pair(row: Mapping[str, Any], path: Path, line: int) -> PreferencePair:
    return PreferencePair(
        prompt=prompt_of(row, path, line),
        preference=_preference(row, path, line),
        chosen=_answer(row, "chosen", path, line),
        rejected=_answer(row, "rejected", path, line),
    )


def _preference(row: Mapping[str, Any], path: Path, line: int) -> dict[str, float]:
    value = row.get("preference")
    if isinstance(value, str) and value.strip():
        return {value.strip(): 1.0}
    if isinstance(value, dict) and value:
        weights = {str(name): weight for name, weight in value.items()}
        if all(type(w) in (int, float) and abs(w) <= _MOST for w in weights.values()):
            return {name: float(weight) for name, weight in weights.items()}
    raise DataError(
        "neither a name nor a map of names to weights",
        path=path,
        line=line,
        field="preference",
        hint='Write "preference": "humorous" or "preference": {"humorous": 1, "formal": -1}.',
    )


def _answer(row: Mapping[str, Any], field: str, path: Path, line: int) -> str:
    value = row.get(field)
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        value = value[-1]["content"] if value[-1]["role"] == "assistant" else None
    if _is_text(value):
        return value
    raise DataError(
        "neither a text nor a conversation that ends with the answer",
        path=path,
        line=line,
        field=field,
        hint=f'Write "{field}": "...".',
    )


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and _is_text(message.get("role")) and _is_unicode(message.get("content"))


def _is_text(value: Any) -> TypeGuard[str]:
    return _is_unicode(value) and bool(value.strip())


def _is_unicode(value: Any) -> TypeGuard[str]:
    """A text without lone surrogates: JSON can spell them, but no tokenizer reads them."""
    return isinstance(value, str) and not _SURROGATE.search(value)
