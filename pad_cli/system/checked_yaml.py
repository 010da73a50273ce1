"""YAML files of users, checked by pydantic: every problem names file, line or key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pad_cli.errors import DataError, did_you_mean
from pad_cli.system.yaml_text import YamlError, read_yaml

_MAPPING = ("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type")
_NOT = {
    **dict.fromkeys(_MAPPING, "a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("float_type", "finite_number"), "a finite number"),
    "string_type": "text",
    "int_type": "a whole number",
    "date_type": "a date",
}
"""Types of pydantic's errors, to what the value is not."""


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
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    problem = min(error.errors(), key=lambda problem: problem["type"] not in unknown)
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] in unknown:
        message, hint = "no such key", did_you_mean(location[-1], keys)
    elif problem["type"].startswith("missing"):
        message = "is missing"
    elif problem["type"] in _NOT:
        message = f"{problem['input']!r} is not {_NOT[problem['type']]}"
    if problem["type"] == "string_type":
        hint = "Put it in quotes: YAML reads words such as yes and no, and numbers, as other values."
    return DataError(message, path=path, field=".".join(location), hint=hint)
