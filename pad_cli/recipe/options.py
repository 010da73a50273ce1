"""Options of registered things: checked against what these take, every problem in the recipe's words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from pad_cli.errors import RecipeError, did_you_mean

Options = TypeVar("Options", bound=BaseModel)
Made = TypeVar("Made")


def read_options(kind: type[Options], given: Mapping[str, Any], where: str, hint: str) -> Options:
    """What a recipe gives as `options`, checked.

    Args:
        kind: the options there are.
        given: the recipe's.
        where: whose they are, in front of every problem, for example `scorers: options of 'classifier'`.
        hint: where to read about them.

    Raises:
        RecipeError: with all problems at once.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in _problems(kind, error)), hint) from error


def make_with(entry: Callable[..., Made], given: Mapping[str, Any], where: str, hint: str) -> Made:
    """What a registered callable makes of a recipe's `options`; whatever it raises itself is let through.

    Args:
        entry: the callable; its signature says which options it takes, its annotations of which form.
        given: the recipe's.
        where: whose they are, in front of every problem.
        hint: where to read about them.

    Raises:
        RecipeError: an option is unknown, missing, or of another form.
    """
    taken = inspect.signature(entry).parameters
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    if unknown := [name for name in given if name not in taken and not any_name]:
        lines = (f"{where}: there is no option '{name}'. {did_you_mean(name, taken)}".rstrip() for name in unknown)
        raise RecipeError("\n".join(lines), hint)
    try:
        inspect.signature(entry).bind(**given)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}", hint) from error
    if problems := list(_mistyped(entry, given)):
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in problems), hint)
    return entry(**given)


def _mistyped(entry: Callable[..., Any], given: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option that is not what its annotation says; what cannot be checked is taken as it is."""
    made_by_hand = isinstance(entry, type) and not is_dataclass(entry)
    try:
        hints = get_type_hints(entry.__init__ if made_by_hand else entry)
    except (NameError, TypeError):  # names that only type checkers import; objects that have no annotations
        return
    for option in (name for name in given if name in hints):
        try:
            TypeAdapter(hints[option]).validate_json(json.dumps(given[option], default=str), strict=True)
        except PydanticUserError:  # a type that pydantic does not know
            continue
        except ValidationError as error:
            problem, *others = error.errors()
            reason = f"{option}: {problem['msg']}" if not others else f"'{option}' is of another form"
            yield f"{reason} (found {given[option]!r})"


def _problems(kind: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """One line an option: a value that may have several forms has a problem with each of them."""
    by_option: dict[str, list[Any]] = {}
    for problem in error.errors():
        by_option.setdefault(str(problem["loc"][0]) if problem["loc"] else "", []).append(problem)
    for option, (problem, *others) in by_option.items():
        if problem["type"] == "extra_forbidden":
            yield f"there is no option '{option}'. {did_you_mean(option, kind.model_fields)}".rstrip()
        elif problem["type"] == "missing":
            yield f"'{option}' is missing. {kind.model_fields[option].description}"
        elif others:
            yield f"'{option}' is of another form. {kind.model_fields[option].description}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            yield f"{option}: {reason} (found {problem['input']!r})" if option else reason
