"""What a shell offers for a value while it is typed. Nothing heavy is imported, and nothing is printed or raised.

Files are left to the shell, which completes them where nothing is offered.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable

import typer

from pad_cli.errors import PadError

Offers = list[tuple[str, str]]
"""Values, each with a line about it."""


def complete_recipes(kind: str = "") -> Callable[[str], Offers]:
    """Shipped recipes, of one kind or of all."""

    def complete(incomplete: str) -> Offers:
        from pad_cli.recipe import recipe_text

        return [each for each in _names("recipes") if re.search(rf"^kind: {kind}", recipe_text(each[0]), re.MULTILINE)]

    return complete


def complete_preferences(context: typer.Context, incomplete: str) -> Offers:
    """Principles of the reward model that the line names, else of its recipe's; and profiles."""
    with contextlib.suppress(PadError, OSError):
        from pad_cli.recipe import read_recipe

        location = _value(context, "reward_model")
        if not location and (name := _value(context, "recipe")):
            location = getattr(read_recipe(name), "reward_model", "")
        return [*_names("principles", location or None), *_names("profiles")]
    return _names("profiles")


def complete_keys(context: typer.Context, incomplete: str) -> Offers:
    """Keys of the recipe that the line names, for `--set KEY=VALUE`; values too, once there is one key only."""
    with contextlib.suppress(PadError, OSError):
        from pad_cli.recipe import field_keys, read_recipe

        keys = field_keys(read_recipe(_value(context, "recipe")))
        begun = {f"{key}=": field.description for key, field in keys.items() if f"{key}=".startswith(incomplete)}
        key = next(iter(begun), "=")[:-1] if len(begun) == 1 else incomplete.partition("=")[0]
        values = keys[key].values if key in keys else ()
        begun.pop(incomplete, None)
        return [*begun.items(), *((f"{key}={value}", "") for value in values)]
    return []


def complete_in_bash(app: Callable[[], object]) -> bool:
    """Answer bash when it asks for completions; false when nobody asks.

    Bash breaks words at `=` and `@`: `--set decoding.path=fu` arrives as three words, of which it replaces the last.
    Here they are whole again, and of each offer only what bash has to insert is printed.
    """
    if os.environ.get("_PAD_COMPLETE") != "complete_bash":
        return False
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    whole = re.sub("\n?=\n?|@\n", lambda match: match[0].strip("\n"), "\n".join(words)).split("\n")
    os.environ.update(COMP_WORDS="\n".join(whole), COMP_CWORD=str(len(whole) - 1))
    before, equals, _ = whole[-1].rpartition("=")
    offers = io.StringIO()
    try:
        with contextlib.redirect_stdout(offers):
            app()
    finally:
        from pad_cli.system.terminal import say

        for offer in offers.getvalue().splitlines():
            if inserted := offer.removeprefix(before + equals):
                say(inserted)
    return True


def _names(kind: str, reward_model: str | None = None) -> Offers:
    with contextlib.suppress(PadError, OSError):
        from pad_cli.recipe.catalogue import names_of

        return list(names_of(kind, reward_model).items())
    return []


def _value(context: typer.Context, name: str) -> str:
    """An argument or option as typed so far, else its default; empty when there is neither."""
    parameter = next((each for each in context.command.params if each.name == name), None)
    value = context.params.get(name)
    if value is None and parameter is not None:
        waiting = parameter.param_type_name == "argument" and context.args  # while an option lacks its value
        value = context.args[0] if waiting else parameter.default
    return value if isinstance(value, str) else ""
