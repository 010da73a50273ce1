"""The requests that are understood: the OpenAI API's chat and text completions, and `pad`, what is ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from pad_cli.errors import did_you_mean
from pad_cli.records import join_parts
from pad_cli.server.api_error import ApiError

_UNUSED = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "parallel_tool_calls", "prediction"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control"),
    )
)
"""Keys of the API that change no answer here."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
    "moderation": (),
    "audio": (),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
}
"""Keys of the API that are not supported, and the values that ask for nothing, as null does in any key."""

_WHY = dict.fromkeys(
    ("tools", "tool_choice", "functions", "function_call", "tool_calls"), ": this server calls no tools"
) | {"reasoning_effort": ": what a chat template reads goes into `chat_template_kwargs`"}

_CLAUSES = 64
Spec = Annotated[str, Field(max_length=2000)]
"""A specification of a preference: a sentence or two, no document."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        """null asks for nothing in a key that nobody knows, too."""
        if not isinstance(content, dict):
            return content
        return {name: value for name, value in content.items() if value is not None or name in cls.model_fields}


class PadOptions(_Schema):
    """`extra_body={"pad": {...}}` of the openai client.

    Attributes:
        preference: as typed after `--pref`, several of them, or a map of names to weights.
        guidance_weight: how strongly.
        candidates: C.
    """

    preference: Spec | Annotated[list[Spec] | dict[Spec, float], Field(max_length=_CLAUSES)] | None = None
    guidance_weight: float | None = None
    candidates: int | None = Field(None, ge=1)

    @property
    def specs(self) -> list[str]:
        """The preference as specifications."""
        if isinstance(self.preference, Mapping):
            return [f"{name}={weight!r}".replace("e+", "e") for name, weight in self.preference.items()]
        return [self.preference] if isinstance(self.preference, str) else list(self.preference or [])


class StreamOptions(_Schema):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Asked(_Schema):
    """What chat and text completions have in common."""

    model: Spec
    pad: PadOptions | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = None
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Part(_Schema):
    """A piece of a message; keys such as `cache_control` are for other servers, and change no answer."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "refusal"]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


def _nothing(value: Any, info: ValidationInfo) -> None:
    if value:
        raise PydanticCustomError("unsupported", _unsupported(str(info.field_name)))


Nothing = Annotated[Any, AfterValidator(_nothing)]
"""A key of a message that may only say nothing: null, or an empty value."""


class Message(_Schema):
    """A message as clients write it, or as an answer held it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    name: str | None = None
    annotations: Any = None
    cache_control: Any = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: Nothing = None

    @property
    def text(self) -> str:
        """Parts on lines of their own, as vLLM reads them."""
        if isinstance(self.content, list):
            return join_parts(part.text for part in self.content)
        return self.content or self.refusal or ""


class ChatRequest(_Asked):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TextRequest(_Asked):
    """POST /v1/completions: text, or tokens, that goes on; nothing is put around it."""

    prompt: str | list[str] | list[int] | list[list[int]]

    @property
    def longest(self) -> int | None:
        return self.max_tokens


_NESTED: dict[str, type[_Schema]] = {"messages": Message, "pad": PadOptions, "stream_options": StreamOptions}
Asked = TypeVar("Asked", ChatRequest, TextRequest)


def read_request(schema: type[Asked], body: bytes) -> Asked:
    """Check the body of a request.

    Raises:
        ApiError: 400; what is wrong, and where.
    """
    content = _json_object(body)
    for name in _UNUSED & content.keys():
        del content[name]
    for name in _NEUTRAL.keys() & content.keys():
        value = content.pop(name)
        if value is not None and value not in _NEUTRAL[name]:
            raise ApiError(400, f"`{name}`: {_unsupported(name)}", code="unsupported_parameter", param=name)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        # of the alternatives that pydantic tried, the one that came furthest is what was meant
        first = max(error.errors(), key=lambda each: len(_place(content, each)))
        kind, param = first["type"], ".".join(str(part) for part in _place(content, first))
        told = first["msg"]
        if kind == "extra_forbidden":
            fields = _NESTED.get(param.partition(".")[0] if "." in param else "", schema).model_fields
            told = f"there is no such key. {did_you_mean(param.rpartition('.')[2], fields)}".rstrip()
        raise ApiError(400, f"`{param}`: {told}", code=_CODES.get(kind, "invalid_value"), param=param) from error


_CODES = {
    "missing": "missing_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
}


def _unsupported(name: str) -> str:
    return f"not supported{_WHY.get(name, '')}. Leave it out."


def _place(content: Any, error: ErrorDetails) -> list[int | str]:
    """Where in the request an error is: without the names of the alternatives that pydantic tried there."""
    place: list[int | str] = []
    for part in error["loc"]:
        if part in content if isinstance(content, dict) else isinstance(content, list) and isinstance(part, int):
            content = content[part]
            place.append(part)
    return [*place, error["loc"][-1]] if error["type"] == "missing" else place


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body, parse_constant=_no_constant)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text, though JSON can write it
    except RecursionError as error:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:  # bytes that are no text, too
        raise ApiError(400, f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, "The body is no JSON object.", code="invalid_json")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
