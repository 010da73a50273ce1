"""What `pad reproduce` reads: the tables of a paper, each a question and the evaluations that answer it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pad_cli.recipe.evaluation import EvalRecipe
from pad_cli.recipe.models import Settings

_NAME = re.compile(r"[\w(+-](?:[\w .,=()+-]{0,98}[\w)+-])?")


def _as_evaluation(value: Any) -> Any:
    """`kind` and `output` follow from where an evaluation stands."""
    if isinstance(value, Mapping) and "kind" not in value and "output" not in value:
        return {"kind": "eval", "output": ".", **value}
    return value


def _directory(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of a directory; use letters, digits, spaces and .,=()+-_")
    return name


Directory = Annotated[str, AfterValidator(_directory)]
"""A name that becomes a directory below the run's, and never one elsewhere."""


class TableSettings(Settings):
    question: str = Field(description="What the table is to answer, one sentence.")
    scorers: list[str] = Field(
        default_factory=list,
        description="Scorers that the summary shows, by their names in the report; default: all.",
    )
    runs: dict[Directory, Annotated[EvalRecipe, BeforeValidator(_as_evaluation)]] = Field(
        min_length=1, description="Label to an evaluation, written as in a recipe of kind eval without kind and output."
    )


class ReproduceRecipe(Settings):
    kind: Literal["reproduce"]
    output: str = Field(description="Directory of the run; each evaluation has a directory of its own below it.")
    tables: dict[Directory, TableSettings] = Field(min_length=1, description="Name to table.")
