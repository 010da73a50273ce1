"""Every principle, recipe, scorer and method by name, each with a line about it.

Nothing is imported, loaded or built for that, so that a shell can ask while somebody types.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from pad_cli.errors import PadError, UsageError, did_you_mean
from pad_cli.principles import OWN, read_library, shipped_principles
from pad_cli.profiles import load_profile, profile_names
from pad_cli.recipe.recipe_file import recipe_text, shipped_recipes
from pad_cli.registry import BENCHMARKS, METHODS, MODEL_SOURCES, PAIR_FORMATS, PAIR_SOURCES, PRINCIPLES, SCORERS

_DEFAULT = "embedded-generate"  # the recipe with the default reward model
_REGISTRIES = {
    "scorers": SCORERS,
    "methods": METHODS,
    "benchmarks": BENCHMARKS,
    "pair-formats": PAIR_FORMATS,
    "pair-sources": PAIR_SOURCES,
    "model-sources": MODEL_SOURCES,
}


def names_of(kind: str, reward_model: str | None = None) -> dict[str, str]:
    """The names of a kind, each with a line about it (which may be empty); principles are those of a reward model.

    Raises:
        UsageError: there is no such kind.
    """
    if kind == "principles":
        return _principles(reward_model)
    if kind in _REGISTRIES:
        registry = _REGISTRIES[kind]
        return {name: _documented(registry.target(name) or "") for name in registry.names()}
    if kind in _LISTS:
        return _LISTS[kind]()
    raise UsageError(f"There is no list of '{kind}'.", did_you_mean(kind, catalogue_kinds()))


def catalogue_kinds() -> tuple[str, ...]:
    return ("principles", *_LISTS, *_REGISTRIES)


def _principles(reward_model: str | None) -> dict[str, str]:
    """Those of a model source, or of a reward model's directory."""
    location = reward_model
    if location is None:
        lines = recipe_text(_DEFAULT).splitlines()
        location = next(line.partition(":")[2].strip() for line in lines if line.startswith("reward_model:"))
    source, slash, _ = location.partition("/")
    if slash and source in PRINCIPLES.names() and not Path(location).exists():
        return dict(PRINCIPLES.get(source)())
    try:
        config = json.loads((Path(location) / "pad_config.json").read_text(encoding="utf-8"))
        return dict.fromkeys(map(str, config["principles"]), "")
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _library() -> dict[str, str]:
    try:
        return {name: principle.description for name, principle in read_library().items()}
    except PadError as error:
        shipped = {name: principle.description for name, principle in shipped_principles().items()}
        return {**shipped, str(OWN): error.message}


def _profiles() -> dict[str, str]:
    return {f"@{name}": _weights(name) for name in profile_names()}


def _weights(profile: str) -> str:
    """The weights of a profile, the largest first, or what is wrong with its file."""
    try:
        weights = sorted(load_profile(profile).weights.items(), key=lambda item: -abs(item[1]))
    except PadError as error:
        return error.message
    return ", ".join(f"{principle} {weight:+.2g}" for principle, weight in weights if weight)


def _recipes() -> dict[str, str]:
    return {name: _first_comment(path.read_text(encoding="utf-8")) for name, path in shipped_recipes().items()}


_LISTS: dict[str, Callable[[], dict[str, str]]] = {"library": _library, "profiles": _profiles, "recipes": _recipes}


def _first_comment(text: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
    return _first_sentence(" ".join(line.removeprefix("# ") for line in lines))


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.?!:])\s+(?=[A-Z])", " ".join(text.split("\n\n")[0].split()))[0]
    return first[:1].upper() + first[1:].rstrip(".:")


def _documented(target: str) -> str:
    """The first sentence that documents `module:attribute`, read from the source; empty without one."""
    module, _, attribute = target.partition(":")
    try:
        spec = find_spec(module)
        tree = ast.parse(Path(spec.origin or "").read_text(encoding="utf-8")) if spec else ast.Module([], [])
    except Exception:  # whatever the package above does when it is imported
        return ""
    return _first_sentence(next(_documentation(tree, attribute), ""))


def _documentation(tree: ast.Module, name: str) -> Iterator[str]:
    """A class's own `description`; docstrings of a class, a function or, standing below it, of a variable."""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            for field in node.body if isinstance(node, ast.ClassDef) else ():
                targets = field.targets if isinstance(field, ast.Assign) else [getattr(field, "target", None)]
                if [ast.unparse(target) for target in targets if target is not None] == ["description"]:
                    yield str(getattr(getattr(field, "value", None), "value", ""))
            yield ast.get_docstring(node) or ""
        named = isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield str(after.value.value)
