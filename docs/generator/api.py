"""The reference of `pad_cli.__all__`, from signatures and docstrings, read without importing torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

import pad_cli
from generator.markdown import code

_INTRODUCTION = """# Python

The public API, which is imported lazily: `from pad_cli import PadEngine`. Other modules may change without notice.
"""
_GROUPS = {
    "Steering": ("decoding", "server"),
    "Preferences": ("preference", "principles", "profiles", "learning"),
    "Reward models": ("models", "training"),
    "Evaluation": ("evaluation", "bench"),
    "Recipes": ("recipe",),
    "Records and errors": (),
}
"""Title of a section to the modules and packages whose names it lists; the last lists all others."""


def page() -> str:
    """The page, in Markdown."""
    package = griffe.load("pad_cli", search_paths=[Path(pad_cli.__file__).parent.parent], docstring_parser="google")
    titles = {part: title for title, parts in _GROUPS.items() for part in parts}
    sections: dict[str, list[tuple[str, Any]]] = {title: [] for title in _GROUPS}
    for name in pad_cli.__all__:
        home = pad_cli._HOMES[name].removeprefix("pad_cli.")
        sections[titles.get(home.partition(".")[0], [*_GROUPS][-1])].append((name, _target(package[f"{home}.{name}"])))
    texts = []
    for title, names in sections.items():
        called_first = sorted(names, key=lambda each: not (each[1].is_function or _methods(each[1])))
        texts.append("\n\n".join([f"## {title}", *(_entry(*each) for each in called_first)]))
    return "\n".join([_INTRODUCTION, *texts, ""])


def _target(found: Any) -> Any:
    return found.final_target if found.is_alias else found


def _entry(name: str, found: Any) -> str:
    """One public name; of a class also its public methods."""
    if found.is_class and _is_recipe(name):
        body = [f"The fields are those of the [recipe reference](recipes.md). From `{found.path}`."]
    else:
        body = [*_body(found.docstring), f"From `{found.path}`."]
        if found.is_class:
            body += [_directive("method", each.name, each, 4) for each in _methods(found)]
    return _directive("class" if found.is_class else "function", f"pad_cli.{name}", found, 5, body)


def _directive(kind: str, name: str, found: Any, colons: int, body: Iterable[str] | None = None) -> str:
    fence = ":" * colons
    signature = "" if found.is_attribute or _is_recipe(name.removeprefix("pad_cli.")) else _signature(found)
    kind = "property" if found.is_attribute else kind
    text = "\n\n".join(_body(found.docstring) if body is None else body)
    options = ":classmethod:\n\n" if "classmethod" in found.labels else ""
    return f"{fence}{{py:{kind}}} {name}{signature}\n{options}{text}\n{fence}"


def _signature(found: Any) -> str:
    parts, keywords = [], False
    for parameter in found.parameters:
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not keywords:
            parts.append("*")
            keywords = True
        annotation = f": {parameter.annotation}" if parameter.annotation else ""
        default = f" = {parameter.default}" if parameter.default is not None else ""
        parts.append(f"{parameter.name}{annotation}{default}")
    returned = f" -> {found.returns}" if found.is_function and found.returns else ""
    return f"({', '.join(parts)}){returned}"


def _body(docstring: Any) -> Iterator[str]:
    """A docstring's parts in Markdown."""
    for section in docstring.parsed if docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            yield section.value
        elif section.kind is griffe.DocstringSectionKind.admonition:
            yield f"**{section.title}**\n\n```pycon\n{section.value.contents}\n```"
        elif section.kind is griffe.DocstringSectionKind.returns:
            yield "**Returns**\n\n" + "\n".join(f"- {_line(each.description)}" for each in section.value)
        elif section.kind is griffe.DocstringSectionKind.raises:
            yield "**Raises**\n\n" + "\n".join(
                f"- {code(str(each.annotation).strip('()'))}: {_line(each.description)}" for each in section.value
            )
        else:
            title = {"parameters": "Arguments", "attributes": "Attributes"}[section.kind.value]
            yield f"**{title}**\n\n" + "\n".join(
                f"- {code(each.name)}: {_line(each.description)}" for each in section.value
            )


def _line(text: str) -> str:
    return " ".join(text.split())


def _methods(found: Any) -> list[Any]:
    """Public methods and properties of a class that have something to say."""
    public = [each for name, each in found.members.items() if not name.startswith("_")]
    return [each for each in public if each.docstring and (each.is_function or "property" in each.labels)]


def _is_recipe(name: str) -> bool:
    return name.endswith(("Recipe", "Settings"))
