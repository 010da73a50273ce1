"""What a judge must reply, as a JSON schema for servers that enforce one, and the strict reading of what it did reply.

Around the JSON object nothing may stand but a code fence and, before it, a model's thinking; every field must be there,
of its own type, and no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pad_cli.recipe import Mode

Winner = Literal["first", "second", "tie"]
LOWEST, HIGHEST = 1, 10
_LONGEST = 500  # characters of a problem's description
_WRAPPED = re.compile(
    r"\s*(?:<think>.*?</think>\s*)?(?:```(?:json)?\s*\n(?P<fenced>.*)\n\s*```|(?P<bare>.*))\s*", re.DOTALL
)


class UnparsedVerdictError(Exception):
    """A reply that is no verdict; its text says why, in words that the judge can act on."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Choice(_Strict):
    reason: str
    winner: Winner


class _Ratings(_Strict):
    reason: str
    ratings: dict[str, Annotated[int, Field(ge=LOWEST, le=HIGHEST)]]


def schema(mode: Mode, dimensions: Iterable[str]) -> dict[str, Any]:
    """The JSON schema of a verdict; `dimensions` are the rubric's."""
    if mode == "pairwise":
        return _object({"reason": {"type": "string"}, "winner": {"type": "string", "enum": ["first", "second", "tie"]}})
    rating = {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST}
    return _object({"reason": {"type": "string"}, "ratings": _object(dict.fromkeys(dimensions, rating))})


def read_verdict(mode: Mode, reply: str, dimensions: Iterable[str]) -> dict[str, Any]:
    """A judge's reply as `{"reason", "winner"}` (pairwise) or `{"reason", "ratings"}` (rubric).

    Raises:
        UnparsedVerdictError: it is not exactly that.
    """
    wrapped = _WRAPPED.fullmatch(reply)
    assert wrapped is not None  # the pattern takes any text
    text = wrapped["bare"] if wrapped["fenced"] is None else wrapped["fenced"]
    if not text.strip():
        raise UnparsedVerdictError("the reply is empty")
    try:
        if mode == "pairwise":
            return _Choice.model_validate_json(text).model_dump()
        found = _Ratings.model_validate_json(text)
    except ValidationError as error:
        raise UnparsedVerdictError("; ".join(map(_explain, error.errors(include_url=False)))[:_LONGEST]) from error
    names = list(dimensions)
    if set(found.ratings) != set(names):
        raise UnparsedVerdictError(f"ratings: needs exactly these keys: {', '.join(names)}"[:_LONGEST])
    return {"reason": found.reason, "ratings": {name: found.ratings[name] for name in names}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _explain(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    message = problem["msg"]
    return f"{place}: {message}" if place else message
