"""The recipe reference, from the schema that checks recipes: every key with its type, bounds, default and sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from generator.markdown import code, table
from pad_cli.recipe import AnyRecipe, Recipe, Settings

_INTRODUCTION = """# Recipes

A recipe is a YAML file. `kind` selects the command that it is for and determines the other keys. Keys that are not in
these tables are rejected. `--set a.b=value` overrides a key on the command line, `pad recipe check FILE` reports all
problems in a file, and `pad recipe list` lists the recipes in the package.
"""
_REFERENCE = re.compile(r"#/\$defs/(\w+)")


def page() -> str:
    """The page, in Markdown."""
    schema = TypeAdapter(Recipe).json_schema()
    kinds = {_named(target): kind for kind, target in schema["discriminator"]["mapping"].items()}
    titles = {recipe.__name__: f"kind: {kinds[recipe.__name__]}" for recipe in get_args(AnyRecipe)}
    titles |= {name: _title(name) for name in schema["$defs"] if name not in titles}
    models = {model.__name__: model for model in _below(Settings)}
    sections = [_section(models[name], schema["$defs"], titles) for name in titles]
    return "\n".join([_INTRODUCTION, *sections])


def _section(model: type[BaseModel], definitions: dict[str, Any], titles: dict[str, str]) -> str:
    name = model.__name__
    properties, required = definitions[name]["properties"], definitions[name].get("required", ())
    rows = [
        (
            code(key),
            _form(form, titles),
            "required" if key in required else _default(model.model_fields[key]),
            _told(form),
        )
        for key, form in properties.items()
    ]
    told = [definitions[name].get("description", "")]
    if not titles[name].startswith("kind"):
        places = sorted(set(_places(name, definitions)))
        told.append(f"Used under {', '.join(map(code, places))}.")
    sentences = " ".join(part for part in told if part)
    return "\n\n".join([f"## {titles[name]}", *([sentences] if sentences else []), _table(rows)])


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    return table(("key", "value", "default", "meaning"), rows)


def _form(form: dict[str, Any], titles: dict[str, str]) -> str:
    """The values that a key takes, in words."""
    if "$ref" in form:
        title = titles[_named(form["$ref"])]
        return f"[{title}](#{_slug(title)})"
    if "const" in form:
        return code(form["const"])
    if "enum" in form:
        return _or([code(value) for value in form["enum"]])
    if members := form.get("anyOf") or form.get("oneOf"):
        return _or([_form(member, titles) for member in members])
    match form.get("type"):
        case "array":
            return f"list of {_count(form, 'Items')}{_form(form['items'], titles)}"
        case "object":
            values = form.get("additionalProperties")
            value = _form(values, titles) if isinstance(values, dict) else "anything"
            return f"map of {_count(form, 'Properties')}name to {value}"
        case "null":
            return "`null`"
        case kind:
            words = {"integer": "integer", "number": "number", "boolean": "`true` or `false`", "string": "text"}
            return words.get(str(kind), "anything") + _bounds(form)


def _or(members: list[str]) -> str:
    return ", ".join(members[:-1]) + " or " + members[-1] if len(members) > 1 else members[0]


def _bounds(form: dict[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    told = [f"{word} {form[key]:g}" for key, word in words.items() if key in form]
    told += [f"at least {form['minLength']} character long"] if "minLength" in form else []
    return f", {' and '.join(told)}" if told else ""


def _count(form: dict[str, Any], what: str) -> str:
    """How many there must be, in front of what they are."""
    least, most = form.get(f"min{what}"), form.get(f"max{what}")
    if most is not None:
        return f"{least or 0} to {most}: "
    return "" if least is None else f"{'one' if least == 1 else least} or more: "


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return ", ".join(code(next(iter(item.model_dump().values()))) for item in value)
    if value in ("", [], {}):
        return "none"
    return code(json.dumps(value).strip('"'))


def _told(form: dict[str, Any]) -> str:
    return str(form.get("description", "The kind of the recipe." if "const" in form else ""))


def _places(name: str, definitions: dict[str, Any]) -> Iterator[str]:
    """The keys whose values are of this form."""
    for definition in definitions.values():
        for key, form in definition["properties"].items():
            if name in _REFERENCE.findall(json.dumps(form)):
                yield key


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for each in model.__subclasses__():
        yield from _below(each)


def _named(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]


def _title(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _slug(title: str) -> str:
    return title.lower().replace(":", "").replace(" ", "-")
