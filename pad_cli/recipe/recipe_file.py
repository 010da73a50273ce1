"""All kinds of recipes, and reading one: defaults, then the YAML file, then overrides.

Every problem is reported at once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pad_cli.errors import DataError, RecipeError, did_you_mean
from pad_cli.recipe.evaluation import BenchRecipe, EvalRecipe, GenerateRecipe, ReproduceRecipe, SweepRecipe
from pad_cli.recipe.training import TrainRecipe
from pad_cli.registry import BENCHMARKS, METHODS, SCORERS
from pad_cli.system.checked_yaml import YamlError, describe, read_yaml, read_yaml_mapping
from pad_cli.system.resources import shipped

AnyRecipe = TrainRecipe | GenerateRecipe | EvalRecipe | SweepRecipe | ReproduceRecipe | BenchRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="kind")]

KINDS: dict[str, type[BaseModel]] = {
    "train-rm": TrainRecipe,
    "generate": GenerateRecipe,
    "eval": EvalRecipe,
    "sweep": SweepRecipe,
    "reproduce": ReproduceRecipe,
    "bench": BenchRecipe,
}
"""The `kind` of a recipe to its fields."""

_REGISTRIES = {"scorer": SCORERS, "method": METHODS, "benchmark": BENCHMARKS}  # fields that hold a registered name

_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(Recipe)
_SHORT_FOR = {"methods": "method", "scorers": "scorer", "objectives": "scorer"}
"""Fields whose items may be a name alone, to the key that the name stands for."""

_SECRET_KEYS = re.compile(r"api[_-]?key|apikey|(access|auth|bearer|hf)[_-]?token|password|passwd|authorization", re.I)
_SECRET_VALUES = re.compile(
    r"://[^/\s?#]*:[^/\s?#]*@"  # user:password@host
    r"|[?&][\w-]*(key|token|secret|password|signature)=[^&\s]"
    r"|\b(sk|pk|rk)-[\w-]{16,}|\bhf_\w{16,}|\bgh[pousr]_\w{16,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bBearer\s+\S{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----",
    re.I,
)
_NO_SECRETS = (
    "A recipe is copied into runs and reports: set OPENAI_API_KEY, HF_TOKEN or PAD_API_KEY in the environment."
)


def shipped_recipes() -> dict[str, Path]:
    """Name to file of every recipe that comes with the package."""
    return {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe file: a path, or a shipped recipe's name (`embedded`, `embedded.yaml`, `recipes/embedded.yaml`)."""
    path = Path(name)
    with contextlib.suppress(OSError):  # a name that no file can have
        if path.is_file():
            return path
    known = shipped_recipes()
    if path.stem in known and path.parent in (Path(), Path("recipes")) and path.suffix in ("", ".yaml", ".yml"):
        return known[path.stem]
    raise RecipeError(f"No recipe file '{name}'.", did_you_mean(path.stem, known) + " See: pad recipe list")


def recipe_text(name: str) -> str:
    """The text of a recipe file; a RecipeError if there is none, or if it is not text."""
    path = find_recipe(name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason}).", "A recipe is a YAML text file.") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from error


def read_recipe(
    name: str, overrides: Iterable[str] = (), values: Mapping[str, Any] = MappingProxyType({})
) -> AnyRecipe:
    """Find, read and check a recipe, a path or a shipped recipe's name.

    Overrides are `key.path=value` as typed after `--set`, with the value in YAML; `values` by key path win over them,
    except those that are None.

    Raises:
        RecipeError: with all problems of the file, one a line, each naming key, value and what to do.
    """
    path = find_recipe(name)
    try:
        content = read_yaml_mapping(path, "a mapping of keys to values", f"Start it with kind: {' | '.join(KINDS)}")
    except DataError as error:
        raise RecipeError(error.message, error.hint) from error
    for override in overrides:
        _set(content, *_parse_override(override), f"--set {override}")
    for key, value in values.items():
        if value is not None:
            _set(content, key, value, key)
    return load_recipe(content, source=str(path))


def load_recipe(content: Mapping[str, Any], source: str = "recipe") -> AnyRecipe:
    """Check a recipe given as a mapping.

    Raises:
        RecipeError: with all problems at once.
    """
    if secrets := secrets_in(content):
        raise _problems(source, [f"{key}: holds what looks like a secret" for key in secrets], _NO_SECRETS)
    # YAML reads `yes`, `1` and dates as keys that are not text
    if odd := [path for path, key, _ in _walk(content, "") if not isinstance(key, str)]:
        raise _problems(source, [f"{path}: a key that is not text" for path in odd], "Put it in quotes.")
    if "kind" not in content:
        raise RecipeError(f"{source}: key 'kind' is missing.", f"Write kind: {' | '.join(KINDS)}")
    try:
        return _ADAPTER.validate_python(dict(content))
    except ValidationError as error:
        kind = str(content["kind"])
        example = f"embedded-{kind}" if kind in KINDS and kind != "train-rm" else "embedded"
        raise _problems(source, map(_explain, error.errors()), f"See: pad recipe show {example}") from error


def secrets_in(content: Any) -> list[str]:
    """The keys of a recipe that hold what looks like a secret, as `judge.base_url`; values are never quoted."""
    paths = []
    for path, key, value in _walk(content, ""):
        if _SECRET_VALUES.search(str(key)):
            paths.append("one of its keys")  # its path would quote it
        elif isinstance(value, str) and (_SECRET_VALUES.search(value) or _SECRET_KEYS.fullmatch(str(key))):
            paths.append(path)
    return paths


def _walk(content: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, key, value) of every entry at any depth; an item of a list has its list's key."""
    if isinstance(content, list | tuple):
        content = {str(number): value for number, value in enumerate(content)}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        path = f"{prefix}.{key}" if prefix else str(key)
        yield path, key, value
        yield from _walk(value, path)


def _problems(source: str, problems: Iterable[str], hint: str) -> RecipeError:
    lines = [f"  {problem}" for problem in problems]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return RecipeError("\n".join([f"{source}: {count}", *lines]), hint)


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: not key=value.", "For example: --set decoding.candidates=20")
    try:
        return key.strip(), read_yaml(text)
    except YamlError as error:
        raise RecipeError(f"--set {key}: the value is not YAML: {error.problem}.", "Quote it.") from error


def _set(content: dict[str, Any], path: str, value: Any, source: str) -> None:
    """Put a value at a dotted path; mappings that are missing on the way are made."""
    *parents, last = path.split(".")
    place: Any = content
    above = ""
    for part in parents:
        key = _key_in(place, part, source)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        if isinstance(place[key], str) and above in _SHORT_FOR:
            place[key] = {_SHORT_FOR[above]: place[key]}
        place, above = place[key], part
    place[_key_in(place, last, source)] = value


def _key_in(place: Any, part: str, source: str) -> Any:
    """A part of a path as the key of a mapping or the index of a list."""
    if isinstance(place, dict):
        return part
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return int(part)
    raise RecipeError(f"{source}: there is no place '{part}'.", "List items are numbered from 0, as in stages.0.beta")


def _explain(problem: ErrorDetails) -> str:
    """One problem in one line: key, what is wrong, what is there."""
    kind, keys = problem["loc"][:1], _as_typed(problem["loc"])
    return f"{'.'.join(map(str, keys)) or 'recipe'}: {describe(problem, _all_keys(*kind))}"


def _as_typed(location: Sequence[int | str]) -> list[int | str]:
    """The keys as the user typed them: pydantic adds the kind of the recipe before them, and that of a stage."""
    keys = list(location[1:])
    if keys[:1] == ["stages"]:
        del keys[2:3]  # stages NUMBER KIND ...
    return keys


def _all_keys(kind: int | str = "") -> set[str]:
    """The keys of a kind of recipe, nested ones too."""
    schema = KINDS[str(kind)].model_json_schema() if kind in KINDS else {"$defs": {}}
    return {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", ())}


def check_names(recipe: AnyRecipe, source: str = "recipe") -> None:
    """Make sure that the scorers, methods and benchmarks of a recipe are registered; nothing is imported.

    Raises:
        RecipeError: with all that are not.
    """
    lines = []
    for path, key, name in _walk(recipe.model_dump(), ""):
        registry = _REGISTRIES.get(key)
        if registry is not None and isinstance(name, str) and name not in registry.names():
            lines.append(f"{source}: {path}: no such name '{name}'. {did_you_mean(name, registry.names())}")
    if lines:
        raise RecipeError("\n".join(lines), "All there are: pad list")
