"""What a shell offers for a value while it is typed. Nothing heavy is imported, and nothing is ever said or raised."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from pad_cli.errors import PadError

Offers = list[tuple[str, str]]
"""Values, each with a line about it."""

_YAML = ("*.yaml", "*.yml")


def complete_kinds(incomplete: str) -> Offers:
    """Of `pad list`."""
    import pad_cli

    return [(kind, "") for kind in pad_cli.catalogue_kinds() if kind.startswith(incomplete)]


def complete_recipe_kinds(incomplete: str) -> Offers:
    """Of `pad recipe schema`."""
    import pad_cli

    return [(kind, "") for kind in pad_cli.recipe_kinds() if kind.startswith(incomplete)]


def complete_recipes(incomplete: str) -> Offers:
    """Shipped recipes, and YAML files in the directory that is being typed."""
    return [*_names("recipes"), *_files(incomplete)]


def complete_recipes_of(kind: str) -> Callable[[str], Offers]:
    """The same, without shipped recipes of other kinds."""

    def complete(incomplete: str) -> Offers:
        import pad_cli

        wanted = re.compile(rf"^kind: {kind}$", re.MULTILINE)
        shipped = [offer for offer in _names("recipes") if wanted.search(pad_cli.recipe_text(offer[0]))]
        return [*shipped, *_files(incomplete)]

    return complete


def complete_preferences(context: typer.Context, incomplete: str) -> Offers:
    """Principles of the reward model that the line names, else of its recipe's; and profiles."""
    return [*_principles(context), *_names("profiles")]


def complete_profiles_and_principles(context: typer.Context, incomplete: str) -> Offers:
    """The same, and profiles without their @ as well."""
    profiles = _names("profiles")
    return [*_principles(context), *profiles, *((name.removeprefix("@"), about) for name, about in profiles)]


def complete_library(context: typer.Context, incomplete: str) -> Offers:
    """Ready principles: those that ship, and those of the file that the line names or of ./principles.yaml."""
    with contextlib.suppress(PadError, OSError):
        import pad_cli

        own = context.params.get("own")
        return [(name, each.description) for name, each in pad_cli.read_library(own).items()]
    return []


def complete_keys(context: typer.Context, incomplete: str) -> Offers:
    """Keys of the recipe that the line names, for `--set KEY=VALUE`; values too, once there is one key only."""
    with contextlib.suppress(PadError, OSError):
        import pad_cli

        keys = pad_cli.field_keys(pad_cli.read_recipe(_given(context, "recipe")))
        begun = {f"{key}=": field.description for key, field in keys.items() if f"{key}=".startswith(incomplete)}
        key = next(iter(begun), "=")[:-1] if len(begun) == 1 else incomplete.partition("=")[0]
        values = keys[key].values if key in keys else ()
        begun.pop(incomplete, None)
        return [*begun.items(), *((f"{key}={value}", "") for value in values)]
    return []


def _principles(context: typer.Context) -> Offers:
    with contextlib.suppress(PadError, OSError):
        import pad_cli

        location = _given(context, "reward_model")
        if not location and (name := _given(context, "recipe")):
            location = getattr(pad_cli.read_recipe(name), "reward_model", "")
        return list(pad_cli.names_of("principles", location or None).items())
    return []


def _names(kind: str) -> Offers:
    with contextlib.suppress(PadError, OSError):
        import pad_cli

        return list(pad_cli.names_of(kind).items())
    return []


def _files(incomplete: str) -> Iterator[tuple[str, str]]:
    """YAML files, and directories in which there may be some."""
    begun = Path(incomplete)
    directory = begun if incomplete.endswith("/") else begun.parent
    shown = "" if directory == Path() and not incomplete.startswith("./") else f"{directory}/".replace("//", "/")
    with contextlib.suppress(OSError):
        for path in sorted(directory.iterdir()):
            if not path.name.startswith("."):
                if path.is_dir():
                    yield f"{shown}{path.name}/", ""
                elif any(path.match(pattern) for pattern in _YAML):
                    yield f"{shown}{path.name}", ""


def _given(context: typer.Context, name: str) -> str:
    """An argument or option as typed so far, else its default; empty when there is neither."""
    parameter = next((each for each in context.command.params if each.name == name), None)
    value = context.params.get(name)
    if value is None and parameter is not None:
        waiting = parameter.param_type_name == "argument" and context.args  # while an option lacks its value
        value = context.args[0] if waiting else parameter.default
    return value if isinstance(value, str) else ""
