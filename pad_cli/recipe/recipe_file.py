"""All kinds of recipes, and reading one: defaults, then the YAML file, then overrides.

Every problem is reported at once. Editors get a JSON Schema, and shells the keys that `--set` takes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pad_cli.errors import RecipeError, closest, did_you_mean
from pad_cli.recipe.evaluation import BenchRecipe, EvalRecipe, GenerateRecipe, ReproduceRecipe, SweepRecipe
from pad_cli.recipe.training import STAGES, UNION_TAGS, TrainRecipe
from pad_cli.registry import BENCHMARKS, METHODS, SCORERS
from pad_cli.system.checked_yaml import YamlError, read_yaml
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
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

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

    Overrides are `key.path=value` as typed after `--set`, with the value in YAML; `values` by key path win over them.

    Raises:
        RecipeError: with all problems of the file, one a line, each naming key, value and what to do.
    """
    path, text = find_recipe(name), recipe_text(name)
    try:
        content = read_yaml(text)
    except YamlError as error:
        where, hint = f"{path}:{error.line}" if error.line else path, "Check indentation, colons and quotes near there."
        raise RecipeError(f"{where}: not YAML: {error.problem}.", hint) from error
    if not isinstance(content, dict):
        hint = f"Start it with kind: {' | '.join(KINDS)}"
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values.", hint)
    for override in overrides:
        _set(content, *_parse_override(override), f"--set {override}")
    for key, value in values.items():
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
        raise _problems(source, map(_explain, error.errors()), "See: pad recipe show embedded") from error


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


def _explain(problem: Any) -> str:
    """One problem in one line: key, what is there, what to do."""
    location = _as_typed(problem["loc"])
    key = ".".join(map(str, location)) or "recipe"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "extra_forbidden":
        return f"{key}: no such key. {did_you_mean(str(location[-1]), _siblings(str(problem['loc'][0]), location))}"
    if problem["type"] == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", ")
        where = ".".join(map(str, [*location, problem["ctx"]["discriminator"].strip("'")]))
        return f"{where}: '{tag}' is none of {', '.join(tags)}. {closest(tag, tags)}".rstrip()
    if problem["type"] == "missing":
        return f"{key}: is missing"
    value = problem.get("input")
    quoted = "" if isinstance(value, dict | list) else f" (found {value!r})"
    near = closest(str(value), re.findall(r"'([^']*)'", message)) if problem["type"] == "literal_error" else ""
    return f"{key}: {message}{quoted}{near and '. ' + near}"


def _as_typed(location: Sequence[int | str]) -> list[int | str]:
    """The keys as the user typed them: pydantic adds the chosen member of a union (kind, stage, form) to them."""
    kind, *keys = location or ("",)
    if kind not in KINDS:
        return list(location)
    # data.train TAG ..., data.validation NAME TAG ..., stages NUMBER TAG ...
    place = 3 if keys[:2] == ["data", "validation"] else 2
    if keys[:1] != ["stages"] and keys[:2] not in (["data", "train"], ["data", "validation"]):
        return keys
    if len(keys) > place and keys[place] in (*UNION_TAGS, *STAGES):
        del keys[place]
    return keys


def _siblings(kind: str, location: Sequence[int | str]) -> set[str]:
    """The field names beside an unknown key; the members of a union are taken together."""
    models = [KINDS[kind]]
    for key in map(str, location[:-1]):
        models = [m for model in models if key in model.model_fields for m in _models_in(model, key)] or models
    return {name for model in models for name in model.model_fields}


def _models_in(model: type[BaseModel], field: str) -> Iterator[type[BaseModel]]:
    waiting = [model.model_fields[field].annotation]
    while waiting:
        part: Any = waiting.pop()
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
        waiting.extend(get_args(part))


# What editors, shells and `pad recipe check` ask about recipes


def recipe_kinds() -> tuple[str, ...]:
    return tuple(KINDS)


def recipe_schema(kind: str | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the recipes of one kind, or of all; a RecipeError if there is no such kind."""
    if kind is None:
        return {"$schema": _DIALECT, "title": "A recipe of pad", **TypeAdapter(Recipe).json_schema()}
    if kind not in KINDS:
        raise RecipeError(f"No recipes are of kind '{kind}'.", did_you_mean(kind, KINDS))
    return {"$schema": _DIALECT, **KINDS[kind].model_json_schema(), "title": f"A recipe of kind {kind}"}


class FieldKey(NamedTuple):
    """A field of a recipe that can be changed; `values` are all possible ones if known, else the present one."""

    description: str
    values: tuple[str, ...]


def field_keys(recipe: AnyRecipe) -> dict[str, FieldKey]:
    """The keys that can be changed in a recipe, for example `decoding.candidates` or `stages.0.beta`."""
    return {key: FieldKey(text, _values(key.rpartition(".")[2], *typed)) for key, text, *typed in _fields(recipe, "")}


def check_names(recipe: AnyRecipe, source: str = "recipe") -> None:
    """Make sure that the scorers, methods and benchmarks of a recipe are registered; nothing is imported.

    Raises:
        RecipeError: with all that are not.
    """
    lines = []
    for key, _, annotation, name in _fields(recipe, ""):
        registry = _REGISTRIES.get(key.rpartition(".")[2])
        if registry is not None and annotation is str and name not in registry.names():
            lines.append(f"{source}: {key}: no such name '{name}'. {did_you_mean(name, registry.names())}")
    if lines:
        raise RecipeError("\n".join(lines), "All there are: pad list")


def _fields(settings: BaseModel, prefix: str) -> Iterator[tuple[str, str, Any, Any]]:
    """Key, description, annotation and value of every field that holds no further settings, nested ones included."""
    for name, field in type(settings).model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            continue  # kind, stage
        value = getattr(settings, name)
        nested = [(f"{prefix}{name}{part}.", below) for part, below in _nested(value)]
        for above, below in nested:
            yield from _fields(below, above)
        if not nested:
            yield f"{prefix}{name}", field.description or "", field.annotation, value


def _nested(value: Any) -> list[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        return [("", value)]
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [(f".{key}", item) for key, item in items if isinstance(item, BaseModel)]


def _values(name: str, annotation: Any, value: Any) -> tuple[str, ...]:
    if name in _REGISTRIES and annotation is str:
        return tuple(_REGISTRIES[name].names())
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if annotation is bool:
        return ("true", "false")
    return (str(value),) if isinstance(value, str | int | float) and value != "" else ()
