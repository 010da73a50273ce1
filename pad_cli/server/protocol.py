"""The OpenAI API as this server speaks it: errors, requests (with `pad`, our own key), and responses."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

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


class ApiError(Exception):
    """A request ends with this error object; `code` is for programs, and `param` the key of the request."""

    def __init__(
        self, status: int, message: str, *, code: str = "invalid_value", param: str | None = None, headers: Any = None
    ) -> None:
        message = " ".join(message.split("\n"))
        super().__init__(message)
        kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
        self.status, self.headers = status, dict(headers or {})
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def internal_error() -> ApiError:
    return ApiError(500, "The server failed at this request; its log says why.", code="internal_error")


def shutting_down() -> ApiError:
    return ApiError(503, "The server is shutting down.", code="shutting_down")


@dataclass(frozen=True)
class Event:
    """News of choice `index`: text, and at its end the finish reason and the number of decoded tokens; or an error."""

    index: int
    text: str = ""
    reason: Literal["stop", "length"] | None = None
    tokens: int = 0
    error: ApiError | None = None


_IGNORED = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "parallel_tool_calls", "prediction"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control"),
}
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
"""Unsupported keys of the API, and the values of each that have no effect; null has none in any key."""

_WHY = dict.fromkeys(
    ("tools", "tool_choice", "functions", "function_call", "tool_calls"), ": this server calls no tools"
) | {"reasoning_effort": ": what a chat template reads goes into `chat_template_kwargs`"}

_CODES = {
    "missing": "missing_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
}
Spec = Annotated[str, Field(max_length=2000)]
"""A preference specification: a sentence or two, not a document."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        """null means "not set", in unknown keys too."""
        if not isinstance(content, dict):
            return content
        return {name: value for name, value in content.items() if value is not None or name in cls.model_fields}


class PadOptions(_Schema):
    """`extra_body={"pad": {...}}` of the openai client."""

    preference: Spec | Annotated[list[Spec] | dict[Spec, float], Field(max_length=64)] | None = None
    guidance_weight: float | None = None
    candidates: int | None = Field(None, ge=1)

    @property
    def specs(self) -> list[str]:
        """The preference as typed after `--pref`."""
        if isinstance(self.preference, Mapping):
            return [f"{name}={weight!r}".replace("e+", "e") for name, weight in self.preference.items()]
        return [self.preference] if isinstance(self.preference, str) else list(self.preference or [])


class StreamOptions(_Schema):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _CompletionRequest(_Schema):
    """What chat and text completions have in common."""

    model: Spec
    pad: PadOptions = PadOptions()
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
    stream_options: StreamOptions = StreamOptions()

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Part(_Schema):
    """A part of a message; unknown keys, such as `cache_control`, are for other servers."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "refusal"]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


def _empty(value: Any, info: ValidationInfo) -> None:
    if value:
        raise PydanticCustomError("unsupported", _unsupported(str(info.field_name)))


Empty = Annotated[Any, AfterValidator(_empty)]
"""A key of a message that may only be null or an empty value."""


class Message(_Schema):
    """A message as clients write it, or as a response held it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    name: str | None = None
    annotations: Any = None
    cache_control: Any = None
    audio: Empty = None
    function_call: Empty = None
    tool_calls: Empty = None

    @property
    def text(self) -> str:
        """Parts on separate lines, as vLLM reads them."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or self.refusal or ""


class ChatRequest(_CompletionRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    chat_template_kwargs: dict[str, Any] | None = None


class TextRequest(_CompletionRequest):
    """POST /v1/completions: continues text or tokens, without a chat template."""

    prompt: str | list[str] | list[int] | list[list[int]]


_NESTED: dict[str, type[_Schema]] = {"messages": Message, "pad": PadOptions, "stream_options": StreamOptions}
Request = TypeVar("Request", ChatRequest, TextRequest)


def read_request(schema: type[Request], body: bytes) -> Request:
    """Validate the body of a request (ApiError 400: what is wrong, and where)."""
    content: dict[str, Any]
    try:
        content = json.loads(body)
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # JSON can spell lone surrogates, no text
    except (RecursionError, ValueError) as error:  # includes bytes that are not UTF-8
        raise ApiError(400, f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    for name in _NEUTRAL.keys() & content.keys():
        value = content.pop(name)
        if value is not None and value not in _NEUTRAL[name]:
            raise ApiError(400, f"`{name}`: {_unsupported(name)}", code="unsupported_parameter", param=name)
    ignored = {*_IGNORED, *(name for name in ("pad", "stream_options") if content.get(name) is None)}
    try:
        return schema.model_validate({name: value for name, value in content.items() if name not in ignored})
    except ValidationError as error:
        # of the union members that pydantic tried, the one that came furthest is what was meant
        first = max(error.errors(), key=lambda each: len(_location(content, each)))
        kind, param, message = first["type"], ".".join(map(str, _location(content, first))), first["msg"]
        if kind == "extra_forbidden":
            fields = _NESTED.get(param.partition(".")[0] if "." in param else "", schema).model_fields
            message = f"there is no such key. {did_you_mean(param.rpartition('.')[2], fields)}".rstrip()
        raise ApiError(400, f"`{param}`: {message}", code=_CODES.get(kind, "invalid_value"), param=param) from error


def _unsupported(name: str) -> str:
    return f"not supported{_WHY.get(name, '')}. Leave it out."


def _location(content: Any, error: ErrorDetails) -> list[int | str]:
    """Where in the request an error is, without the names of the union members that pydantic tried there."""
    location: list[int | str] = []
    inner = content
    for part in error["loc"]:
        if part in inner if isinstance(inner, dict) else isinstance(inner, list) and isinstance(part, int):
            inner = inner[part]
            location.append(part)
    return [*location, error["loc"][-1]] if error["type"] == "missing" else location


class Reply:
    """Builds the response objects of one request; `pad` is their key of that name."""

    def __init__(
        self, request: ChatRequest | TextRequest, prompt_tokens: int, pad: Mapping[str, Any], fingerprint: str
    ) -> None:
        self._chat = isinstance(request, ChatRequest)
        self._prompt_tokens = prompt_tokens
        prefix, self._kind = ("chatcmpl", "chat.completion") if self._chat else ("cmpl", "text_completion")
        self._common = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": fingerprint,
            "pad": dict(pad),
        }

    def whole(self, answers: Sequence[Event]) -> dict[str, Any]:
        """The response with all choices."""
        choices = []
        for each in sorted(answers, key=lambda each: each.index):
            message = {"role": "assistant", "content": each.text, "refusal": None}
            choices.append(self._choice(each, {"message": message} if self._chat else {"text": each.text}))
        usage = self._usage(sum(answer.tokens for answer in answers))
        return {**self._common, "object": self._kind, "choices": choices, "usage": usage}

    def first_chunks(self, count: int) -> list[dict[str, Any]]:
        """The chunk with which each choice of a chat begins."""
        delta = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(self._choice(Event(index), delta)) for index in range(count)] if self._chat else []

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks of more text, and of the end of a choice."""
        if event.text:
            delta = {"delta": {"content": event.text}} if self._chat else {"text": event.text}
            yield self._chunk(self._choice(Event(event.index), delta))
        if event.reason:
            yield self._chunk(self._choice(event, {"delta": {}} if self._chat else {"text": ""}))

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        return {**self._chunk(), "usage": self._usage(tokens)}

    def _choice(self, event: Event, content: dict[str, Any]) -> dict[str, Any]:
        return {"index": event.index, "logprobs": None, "finish_reason": event.reason, **content}

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else self._kind
        return {**self._common, "object": kind, "choices": list(choices)}

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self._prompt_tokens + tokens
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens, "total_tokens": total}
