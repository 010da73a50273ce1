"""Reading a recipe: defaults, then the YAML file, then `--set a.b=c`; every problem is reported at once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from pad_cli.errors import RecipeError, closest, did_you_mean
from pad_cli.recipe.fields import KINDS
from pad_cli.recipe.schema import AnyRecipe, Recipe
from pad_cli.recipe.screening import HINT, odd_keys_in, secrets_in
from pad_cli.recipe.training import (
    FILE,
    SOURCE,
    SOURCES,
    AdapterStage,
    EncoderStage,
    HeadsStage,
    JointStage,
    PairsSettings,
)
from pad_cli.system.resources import shipped
from pad_cli.system.yaml_text import YamlError, read_yaml

_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(Recipe)
_STAGES: dict[str, type[BaseModel]] = {
    "adapter": AdapterStage,
    "heads": HeadsStage,
    "encoder": EncoderStage,
    "joint": JointStage,
}


_NAMED = {"methods": "method", "scorers": "scorer", "objectives": "scorer"}
"""Fields whose items may be a name alone, to the key under which that name stands."""

_FORM_AFTER: dict[tuple[int | str, ...], int] = {("data", "train"): 2, ("data", "validation"): 3}
"""How many keys stand before the form in which pairs are named."""


def shipped_recipes() -> dict[str, Path]:
    """Name to file of every recipe that comes with the package."""
    return {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe file: a path, or the name of a shipped recipe (`embedded`, `embedded.yaml`, `recipes/embedded.yaml`).

    Raises:
        RecipeError: there is neither.
    """
    path = Path(name)
    with contextlib.suppress(OSError):  # a name that no file can have
        if path.is_file():
            return path
    known = shipped_recipes()
    if path.stem in known and path.parent in (Path(), Path("recipes")) and path.suffix in ("", ".yaml", ".yml"):
        return known[path.stem]
    raise RecipeError(f"No recipe file '{name}'.", did_you_mean(path.stem, known) + " See: pad recipe list")


def recipe_text(name: str) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: there is none, or it is no text.
    """
    path = find_recipe(name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason}).", "A recipe is a YAML text file.") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from error


def read_recipe(name: str, overrides: Iterable[str] = ()) -> AnyRecipe:
    """Find, read and check a recipe.

    Args:
        name: a path or a shipped recipe's name.
        overrides: `key.path=value` texts; the value is read as YAML.

    Raises:
        RecipeError: with all problems of the file, one a line, each naming key, value and what to do.
    """
    path, text = find_recipe(name), recipe_text(name)
    try:
        content = read_yaml(text)
    except YamlError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise RecipeError(
            f"{where}: not YAML: {error.problem}.", "Check indentation, colons and quotes near there."
        ) from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping of keys to values.", f"Start it with kind: {' | '.join(KINDS)}"
        )
    for override in overrides:
        _set(content, override)
    return load_recipe(content, source=str(path))


def load_recipe(content: Mapping[str, Any], source: str = "recipe") -> AnyRecipe:
    """Check a recipe given as a mapping.

    Raises:
        RecipeError: with all problems at once.
    """
    if found := secrets_in(content):
        raise _problems(source, [f"{place}: holds what looks like a secret" for place in found], HINT)
    if found := odd_keys_in(content):
        raise _problems(source, [f"{place}: a key that is no text" for place in found], "Put it in quotes.")
    if "kind" not in content:
        raise RecipeError(f"{source}: key 'kind' is missing.", f"Write kind: {' | '.join(KINDS)}")
    try:
        return _ADAPTER.validate_python(dict(content))
    except ValidationError as error:
        raise _problems(source, map(_explain, error.errors()), "See: pad recipe show embedded") from error


def _problems(source: str, problems: Iterable[str], hint: str) -> RecipeError:
    lines = [f"  {problem}" for problem in problems]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return RecipeError("\n".join([f"{source}: {count}", *lines]), hint)


def _set(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: not key=value.", "For example: --set decoding.candidates=20")
    try:
        value = read_yaml(text)
    except YamlError as error:
        raise RecipeError(f"--set {key}: the value is not YAML: {error.problem}.", "Quote it.") from error
    *parents, last = key.strip().split(".")
    place: Any = content
    for above, part in zip(["", *parents], parents, strict=False):
        place = _child(place, part, override, _NAMED.get(above, ""))
    if isinstance(place, list):
        _child(place, last, override)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        _child(place, last, override)


def _child(place: Any, part: str, override: str, short: str = "") -> Any:
    """What stands at a key; a name alone becomes the mapping that it is `short` for."""
    key: Any = int(part) if isinstance(place, list) and part.isdecimal() else part
    if isinstance(place, dict) and place.get(key) is None:
        place[key] = {}
    if isinstance(place, dict) or (isinstance(place, list) and isinstance(key, int) and key < len(place)):
        if short and isinstance(place[key], str):
            place[key] = {short: place[key]}
        return place[key]
    raise RecipeError(
        f"--set {override}: there is no place '{part}'.", "List items are numbered from 0, as in stages.0.beta"
    )


def _explain(problem: Any) -> str:
    """One problem in one line: key, what was found, what to do."""
    location = _place(problem["loc"])
    key = ".".join(map(str, location)) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "extra_forbidden":
        siblings = _siblings(problem["loc"][:-1])
        return f"{key}: no such key. {did_you_mean(str(location[-1]), siblings)}"
    if problem["type"] == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", ")
        where = ".".join(map(str, [*location, problem["ctx"]["discriminator"].strip("'")]))
        return f"{where}: '{tag}' is none of {', '.join(tags)}. {closest(tag, tags)}".rstrip()
    if problem["type"] == "missing":
        return f"{key}: is missing"
    found = problem.get("input")
    shown = "" if isinstance(found, (dict, list)) else f" (found {found!r})"
    near = closest(str(found), re.findall(r"'([^']*)'", message)) if problem["type"] == "literal_error" else ""
    return f"{key}: {message}{shown}{near and '. ' + near}"


def _place(location: Sequence[int | str]) -> list[int | str]:
    """The keys as the user typed them: pydantic puts the chosen member of a union (kind, stage, form) in between."""
    kind, *rest = location or ("",)
    keys = rest if kind in KINDS else list(location)
    form = _FORM_AFTER.get(tuple(keys[:2]), len(keys))
    if form < len(keys) and keys[form] in (FILE, SOURCE, SOURCES):
        keys = [*keys[:form], *keys[form + 1 :]]
    stage = len(keys) > 2 and keys[0] == "stages" and keys[2] in _STAGES
    return [*keys[:2], *keys[3:]] if stage else keys


def _siblings(parents: Sequence[int | str]) -> list[str]:
    """Field names at a place of the schema, for a did-you-mean."""
    kind, *keys = parents
    annotation: Any = KINDS.get(str(kind))
    for key in keys:
        if key in _STAGES and not isinstance(annotation, type):
            annotation = _STAGES[str(key)]
        elif get_origin(annotation) is dict:
            annotation = annotation.__args__[-1]
        elif key in (SOURCE, SOURCES) and not isinstance(annotation, type):
            annotation = PairsSettings if key == SOURCE else list[PairsSettings]
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = _unless_null(annotation.model_fields[str(key)].annotation)
        else:  # an item of a list
            annotation = annotation.__args__[-1]
    return list(annotation.model_fields)


def _unless_null(annotation: Any) -> Any:
    """`X` of `X | None`; any other annotation as it is."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    return members[0] if isinstance(annotation, UnionType) and len(members) == 1 else annotation
