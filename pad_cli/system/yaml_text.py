"""YAML from anybody: plain values, every key once, and no more of them than the text is worth.

PyYAML's safe loader makes no objects of anybody's classes. It does take the last of two equal keys without a word, and
lets a few lines of aliases stand for billions of values; both are refused here.
"""

from __future__ import annotations

from typing import Any

import yaml

_MOST_LETTERS, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 64
_LONGEST_NUMBER = 300  # digits; Python itself refuses to write whole numbers of more than 4300
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
        _check(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlError(getattr(error, "problem", None) or str(error), mark.line + 1 if mark else 0) from error


def _check(root: yaml.Node) -> None:
    """Look at every node once, children first."""
    sizes: dict[int, int] = {}  # values that a node stands for, aliases counted as often as they stand there
    depths: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting = [(root, False)]
    while waiting:
        node, seen = waiting.pop()
        children = _children(node)
        if not seen and id(node) in open_nodes:
            raise _error(node, "an alias inside of what it stands for")
        if not seen and id(node) not in sizes:
            _check_alone(node)
            open_nodes.add(id(node))
            waiting += [(node, True), *((child, False) for child in children)]
        elif seen:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            depths[id(node)] = 1 + max((depths[id(child)] for child in children), default=0)
            if sizes[id(node)] > _MOST_VALUES:
                raise _error(node, f"more than {_MOST_VALUES:,} values, aliases counted as often as they stand there")
            if depths[id(node)] > _DEEPEST:
                raise _error(node, f"nested more than {_DEEPEST} deep")


def _check_alone(node: yaml.Node) -> None:
    tag = str(node.tag).removeprefix(_TAG)
    if tag not in _PLAIN:
        raise _error(node, f"a value of the kind {str(node.tag).replace(_TAG, '!!')}, which is not plain")
    if isinstance(node, yaml.ScalarNode) and tag in ("int", "float") and len(node.value) > _LONGEST_NUMBER:
        raise _error(node, f"a number of more than {_LONGEST_NUMBER} digits")
    if isinstance(node, yaml.MappingNode):
        known = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                raise _error(key, "a key that is no word")
            if name in known:
                raise _error(key, f"the key '{key.value}' stands there twice")
            known.add(name)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _error(node: yaml.Node, problem: str) -> YamlError:
    return YamlError(problem, node.start_mark.line + 1)
