"""The OpenAI API as this server speaks it: errors, requests (with `pad`, our own key), and responses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from pad_cli.errors import DataError, did_you_mean
from pad_cli.records import as_message


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
    return ApiError(500, "Internal server error; the server's log has the reason.", code="internal_error")


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

_UNSUPPORTED = {
    *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format"),
    *("reasoning_effort", "verbosity", "tools", "tool_choice", "functions", "function_call"),
    *("web_search_options", "moderation", "audio", "modalities"),
}
"""Keys of the API that would change an answer."""

_NO_EFFECT: tuple[Any, ...] = (None, False, 0, [], {}, "none", "auto", {"type": "text"}, ["text"])
"""Values with which clients send unsupported keys without asking for anything."""

_ROLES = ("system", "developer", "user", "assistant")
_CODES = {"missing": "missing_parameter", "extra_forbidden": "unknown_parameter"}
Spec = Annotated[str, Field(max_length=2000)]
"""A preference specification: a sentence or two, not a document."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_specs(preference: Any) -> Any:
    """A text, a list of texts or a map of names to weights, as a list of what is typed after `--pref`."""
    if isinstance(preference, dict):
        return [f"{name}={weight!r}".replace("e+", "e") for name, weight in preference.items()]
    return _as_list(preference)


def _read_message(message: dict[str, Any]) -> dict[str, str]:
    if (role := message.get("role")) not in _ROLES:
        raise ValueError(f"the role {role!r} is none of {', '.join(_ROLES)}")
    try:
        return as_message(message)
    except DataError as error:
        raise ValueError(str(error)) from error


Message = Annotated[dict[str, Any], AfterValidator(_read_message)]
"""A message as clients write it, or as a response held it; read as a role and a text."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        """null means "not set" in every key."""
        return {k: v for k, v in content.items() if v is not None} if isinstance(content, dict) else content


class PadOptions(_Schema):
    """`extra_body={"pad": {...}}` of the openai client."""

    preference: Annotated[list[Spec], BeforeValidator(_as_specs), Field(max_length=64)] = []
    guidance_weight: float | None = None
    candidates: int | None = Field(None, ge=1)


class StreamOptions(_Schema):
    include_usage: bool = False
    include_obfuscation: bool = False  # of no effect


class ChatRequest(_Schema):
    """POST /v1/chat/completions."""

    model: Spec
    messages: list[Message] = Field(min_length=1)
    pad: PadOptions = PadOptions()
    n: int = Field(1, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list), Field(max_length=4)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    chat_template_kwargs: dict[str, Any] = {}


_NESTED: dict[int | str, type[_Schema]] = {"pad": PadOptions, "stream_options": StreamOptions}


def read_request(body: bytes) -> ChatRequest:
    """Validate the body of a request (ApiError 400: what is wrong, and where)."""
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    for name in _UNSUPPORTED & content.keys():
        if content[name] not in _NO_EFFECT:
            message = f"`{name}`: not supported. Leave it out."
            raise ApiError(400, message, code="unsupported_parameter", param=name)
    try:
        known = {name: value for name, value in content.items() if name not in _IGNORED | _UNSUPPORTED}
        return ChatRequest.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        location, message = first["loc"], first["msg"].removeprefix("Value error, ")
        param = ".".join(map(str, location))
        if first["type"] == "extra_forbidden":
            fields = _NESTED.get(location[0], ChatRequest).model_fields
            message = f"there is no such key. {did_you_mean(str(location[-1]), fields)}"
        code = _CODES.get(first["type"], "invalid_value")
        raise ApiError(400, f"`{param}`: {message}", code=code, param=param) from error


class Reply:
    """Builds the response objects of one request; `pad` is their key of that name."""

    def __init__(self, model: str, prompt_tokens: int, pad: Mapping[str, Any], fingerprint: str) -> None:
        self._prompt_tokens = prompt_tokens
        self._common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
            "pad": dict(pad),
        }

    def whole(self, answers: Sequence[Event]) -> dict[str, Any]:
        """The response with all choices."""
        choices = []
        for each in sorted(answers, key=lambda each: each.index):
            message = {"role": "assistant", "content": each.text, "refusal": None}
            choices.append(self._choice(each, message=message))
        usage = self._usage(sum(answer.tokens for answer in answers))
        return {**self._common, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks of more text, and of the end of a choice."""
        if event.text:
            delta = {"role": "assistant", "content": event.text}
            yield self._chunk(self._choice(Event(event.index), delta=delta))
        if event.reason:
            yield self._chunk(self._choice(event, delta={}))

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        return {**self._chunk(), "usage": self._usage(tokens)}

    def _choice(self, event: Event, **content: Any) -> dict[str, Any]:
        return {"index": event.index, "logprobs": None, "finish_reason": event.reason, **content}

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        return {**self._common, "object": "chat.completion.chunk", "choices": list(choices)}

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self._prompt_tokens + tokens
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens, "total_tokens": total}
