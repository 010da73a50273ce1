"""YAML from anybody: plain values, every key once, and no more of them than the text is worth.

PyYAML's safe loader takes the last of two equal keys silently, and lets a few lines of aliases stand for billions of
values; both are refused here.
"""

from __future__ import annotations

from typing import Any

import yaml

_MOST_LETTERS, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 64
_LONGEST_NUMBER = 300  # digits; Python itself refuses to write integers of more than 4300
_PLAIN = ("str", "int", "float", "bool", "null", "timestamp", "merge", "map", "seq")
_TAG = "tag:yaml.org,2002:"


class YamlError(Exception):
    """A text that is not such YAML.

    Args:
        problem: why.
        line: where, counted from 1; 0 when that is not known.
    """

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
        _measure(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlError(getattr(error, "problem", None) or str(error), mark.line + 1 if mark else 0) from error


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Check a node and what is below it; how many values it stands for, aliases counted each time, and its depth."""
    if id(node) in measured:  # an alias, or the anchor around it while that is None
        known = measured[id(node)]
        if known is None:
            raise _error(node, "an alias inside of what it stands for")
        return known
    measured[id(node)] = None
    _check_alone(node)
    below = [_measure(child, measured) for child in _children(node)]
    values = 1 + sum(size for size, _ in below)
    depth = 1 + max((depth for _, depth in below), default=0)
    if values > _MOST_VALUES:
        raise _error(node, f"more than {_MOST_VALUES:,} values, aliases counted each time")
    if depth > _DEEPEST:
        raise _error(node, f"nested more than {_DEEPEST} deep")
    measured[id(node)] = values, depth
    return values, depth


def _check_alone(node: yaml.Node) -> None:
    tag = str(node.tag).removeprefix(_TAG)
    if tag not in _PLAIN:
        raise _error(node, f"a value of the kind {str(node.tag).replace(_TAG, '!!')}, which is not plain")
    if isinstance(node, yaml.ScalarNode) and tag in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
        raise _error(node, f"a number of more than {_LONGEST_NUMBER} digits")
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key that is not a word")
            if (key.tag, key.value) in names:
                raise _error(key, f"the key '{key.value}' is duplicated")
            names.add((key.tag, key.value))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _error(node: yaml.Node, problem: str) -> YamlError:
    return YamlError(problem, node.start_mark.line + 1)
