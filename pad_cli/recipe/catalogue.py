"""Every principle, recipe, scorer and method by name, each with a line about it; no model is loaded, nor torch."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pad_cli.errors import UsageError, did_you_mean
from pad_cli.profiles import profile_names
from pad_cli.recipe.recipe_file import shipped_recipes
from pad_cli.registry import BENCHMARKS, METHODS, MODEL_SOURCES, PAIR_FORMATS, PAIR_SOURCES, PRINCIPLES, SCORERS

REGISTRIES = {
    "scorers": SCORERS,
    "methods": METHODS,
    "benchmarks": BENCHMARKS,
    "pair-formats": PAIR_FORMATS,
    "pair-sources": PAIR_SOURCES,
    "model-sources": MODEL_SOURCES,
}
"""The name of a kind to what is registered."""


def names_of(kind: str) -> dict[str, str]:
    """The names of a kind, each with a line about it, which may be empty.

    Raises:
        UsageError: there is no such kind.
    """
    if kind in REGISTRIES:
        registry = REGISTRIES[kind]
        return {name: _documentation(registry.target(name) or "") for name in registry.names()}
    if kind in _LISTS:
        return _LISTS[kind]()
    raise UsageError(f"There is no list of '{kind}'.", did_you_mean(kind, catalogue_kinds()))


def catalogue_kinds() -> tuple[str, ...]:
    return (*_LISTS, *REGISTRIES)


def _principles() -> dict[str, str]:
    """Those that the reward models of all model sources know."""
    return {name: about for source in PRINCIPLES.names() for name, about in PRINCIPLES.get(source)().items()}


def _profiles() -> dict[str, str]:
    return dict.fromkeys((f"@{name}" for name in profile_names()), "")


def _recipes() -> dict[str, str]:
    return {name: _first_comment(path.read_text(encoding="utf-8")) for name, path in shipped_recipes().items()}


_LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "principles": _principles,
    "profiles": _profiles,
    "recipes": _recipes,
}


def _first_comment(text: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
    return _first_sentence(" ".join(line.removeprefix("# ") for line in lines))


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.?!:])\s+(?=[A-Z])", " ".join(text.split("\n\n")[0].split()))[0]
    return first[:1].upper() + first[1:].rstrip(".:")


def _documentation(target: str) -> str:
    """The first sentence about `module:attribute`: a `description`, or a docstring.

    It is read from the source, because an import may load torch; empty where there is none.
    """
    module, _, attribute = target.partition(":")
    try:
        spec = find_spec(module)
        tree = ast.parse(Path(spec.origin or "").read_text(encoding="utf-8")) if spec else ast.Module([], [])
    except Exception:  # whatever the package above does when it is imported
        return ""
    for node, after in itertools.pairwise([*tree.body, ast.Pass()]):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            fields = [each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)]
            texts = [each.value for each in fields if ast.unparse(each).startswith("description")]
            described = [str(text.value) for text in texts if isinstance(text, ast.Constant)]
            return _first_sentence(described[0] if described else ast.get_docstring(node) or "")
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if attribute in map(ast.unparse, targets) and isinstance(after, ast.Expr):
            return _first_sentence(str(ast.literal_eval(after.value)))
    return ""
