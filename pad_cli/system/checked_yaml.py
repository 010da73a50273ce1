"""YAML from anybody: plain values, every key once, no more than the text is worth; and problems that name the key.

PyYAML's safe loader takes the last of two equal keys silently, and lets a few lines of aliases stand for billions of
values; both are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pad_cli.errors import DataError, closest

_MOST_LETTERS, _MOST_VALUES = 1_000_000, 100_000
_LONGEST_NUMBER = 300  # digits; Python itself refuses to write integers of more than 4300
_PLAIN = ("str", "int", "float", "bool", "null", "timestamp", "merge", "map", "seq")
_TAG = "tag:yaml.org,2002:"
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # types of pydantic's errors


class YamlError(Exception):
    """A text is not such YAML: the problem, and its line, counted from 1; 0 when that is not known."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


def read_yaml(text: str) -> Any:
    """The one document of a text; None for an empty one.

    Raises:
        YamlError: it is no YAML, or holds more than plain values.
    """
    if len(text) > _MOST_LETTERS:
        raise YamlError(f"more than {_MOST_LETTERS:,} characters")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlError(getattr(error, "problem", None) or str(error), mark.line + 1 if mark else 0) from error


def _check(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Check a node and what is below it; return how many values it stands for, aliases counted each time."""

    def refuse(where: yaml.Node, problem: str) -> YamlError:
        return YamlError(problem, where.start_mark.line + 1)

    if id(node) in sizes:  # an alias, or the anchor around it while that is 0
        if not sizes[id(node)]:
            raise refuse(node, "an alias inside of what it stands for")
        return sizes[id(node)]
    sizes[id(node)] = 0
    tag = str(node.tag).removeprefix(_TAG)
    if tag not in _PLAIN:
        raise refuse(node, f"a value of the kind {str(node.tag).replace(_TAG, '!!')}, which is not plain")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refuse(key, "a key that is not a word")
            if (key.tag, key.value) in names:
                raise refuse(key, f"the key '{key.value}' is duplicated")
            names.add((key.tag, key.value))
            children += key, value
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif tag in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
        raise refuse(node, f"a number of more than {_LONGEST_NUMBER} digits")
    size = 1 + sum(_check(child, sizes) for child in children)
    if size > _MOST_VALUES:
        raise refuse(node, f"more than {_MOST_VALUES:,} values, aliases counted each time")
    sizes[id(node)] = size
    return size


def read_yaml_mapping(path: Path, what: str, hint: str) -> dict[Any, Any]:
    """The mapping in a YAML file; a DataError otherwise, except that a missing file is a FileNotFoundError."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path, hint="Check the path; the file is UTF-8.") from error
    except YamlError as error:
        hint = "Check indentation, colons and quotes near there."
        raise DataError(f"not YAML: {error.problem}", path=path, line=error.line, hint=hint) from error
    if not isinstance(content, dict):
        raise DataError(f"not {what}", path=path, hint=hint)
    return content


def explain(error: ValidationError, path: Path, keys: Iterable[str], hint: str) -> DataError:
    """The first problem of a file's content; a misspelt key before the missing one."""
    problem = min(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN)
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    return DataError(describe(problem, keys), path=path, field=".".join(location), hint=hint)


def describe(problem: ErrorDetails, known: Iterable[str]) -> str:
    """What is wrong with one key, what is there, and which of the `known` keys, or possible values, is near."""
    if problem["type"] in _UNKNOWN:
        return f"no such key. {closest(str(problem['loc'][-1]), known)}".rstrip()
    if problem["type"].startswith("missing"):
        return "is missing"
    message, value, context = problem["msg"].removeprefix("Value error, "), problem["input"], problem.get("ctx", {})
    quoted = "" if isinstance(value, dict | list) else f" (found {value!r})"
    choices = re.findall("'(.*?)'", str(context.get("expected_tags") or context.get("expected")))
    near = closest(str(context.get("tag", value)), choices)
    return f"{message[0].lower()}{message[1:]}{quoted}{near and '. ' + near}"
