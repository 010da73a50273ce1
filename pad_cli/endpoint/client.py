"""One question to a language model over HTTP.

The `openai` client sends it. It repeats the request after a timeout, a broken connection and a status that may pass
(408, 409, 429, 5xx), and waits as long as `Retry-After` asks.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from pydantic import AliasPath, BaseModel, Field, ValidationError

from pad_cli.errors import EndpointError
from pad_cli.recipe import EndpointSettings
from pad_cli.records import Messages
from pad_cli.system.offline import is_this_machine, offline
from pad_cli.system.progress import note

if TYPE_CHECKING:
    from openai import APIStatusError

_OPENAI = "https://api.openai.com/v1"
_REFUSED = {
    401: "Check OPENAI_API_KEY.",
    403: "Check what the key may do.",
    404: "Check the model's name and the address.",
}
_SECRET = 8  # letters; what stands in for a key where none is needed is shorter, and may be a word of the text
_NOT_TAKEN = re.compile(r"unsupported|not support|unexpected|unrecogni[sz]ed|unknown|not permitted|unavailable", re.I)
_OTHERWISE = {"response_format": None, "temperature": None, "seed": None, "max_tokens": "max_completion_tokens"}
"""What some servers do not take, and what they take in its place."""

_sent: ContextVar[int] = ContextVar("sent")
"""Requests for the question of this task, without those that the server refused: the ones that may be billed."""


class UnansweredError(Exception):
    """No reply to one question; its text says why, and `lost` how many requests may be billed nevertheless."""

    def __init__(self, problem: str, lost: int) -> None:
        super().__init__(problem)
        self.lost = lost


class Tokens(NamedTuple):
    """Tokens that a model reads and writes."""

    read: int
    written: int


class Reply(NamedTuple):
    """What came back.

    Attributes:
        text: of the reply.
        ended: whether it ended by itself, not at the most tokens.
        tokens: None when the server does not count them.
        lost: requests before it that may be billed although their replies did not arrive.
    """

    text: str
    tokens: Tokens | None = None
    lost: int = 0
    ended: bool = True


@dataclass(frozen=True)
class Endpoint:
    """Where a model is. The key is in no representation, message or file."""

    base_url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The address without anything secret."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if len(self.key) >= _SECRET else text


def find_endpoint(settings: EndpointSettings) -> Endpoint:
    """The recipe's address or the environment's, with the environment's key, if there is one."""
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
    return Endpoint(base_url, os.environ.get("OPENAI_API_KEY", ""))


class _Completion(BaseModel):
    """As much of a chat completion as is read here."""

    content: str | None = Field(validation_alias=AliasPath("choices", 0, "message", "content"))
    refusal: str | None = Field(None, validation_alias=AliasPath("choices", 0, "message", "refusal"))
    finish_reason: str | None = Field(None, validation_alias=AliasPath("choices", 0, "finish_reason"))
    read: int | None = Field(None, ge=0, validation_alias=AliasPath("usage", "prompt_tokens"))
    written: int | None = Field(None, ge=0, validation_alias=AliasPath("usage", "completion_tokens"))


class Chat:
    """A connection to a model; use it as an asynchronous context, which closes it.

    Args:
        settings: of the model.
        endpoint: where it is.
        role: what it is here, for messages: `judge`, which is also its key in a recipe.
        schema: JSON schema of its replies, for servers that enforce one.
        seeded: whether questions have a seed.

    Raises:
        EndpointError: the `openai` package is not installed, OpenAI's own address needs a key and there is none, or the
            model is elsewhere and the network off limits.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        endpoint: Endpoint,
        role: str = "judge",
        schema: Mapping[str, Any] | None = None,
        *,
        seeded: bool = False,
    ) -> None:
        if not endpoint.key and endpoint.base_url == _OPENAI:
            raise EndpointError(
                "OPENAI_API_KEY is not set.",
                f"Set it in the environment; or give `{role}.base_url` (or OPENAI_BASE_URL), if that needs none.",
            )
        if offline() and not is_this_machine(urlsplit(endpoint.base_url).hostname or ""):
            raise EndpointError(
                f"The {role} at {endpoint.shown} is not on this machine, and offline mode is on.",
                f"Leave out --offline (or PAD_OFFLINE), or name a {role} on this machine: `{role}.base_url`.",
            )
        try:
            import openai
        except ImportError as error:
            raise EndpointError(f"The {role} needs the openai package.", 'Run: pip install "pad-cli[judge]"') from error
        self._errors = openai
        self._settings, self._endpoint, self._role = settings, endpoint, role
        self._turn = asyncio.Lock()
        self._options: dict[str, Any] = {  # of a request, without those that the server does not take
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
        }
        if seeded:
            self._options["seed"] = 0
        if schema is not None:
            named = {"name": "verdict", "strict": True, "schema": schema}
            self._options["response_format"] = {"type": "json_schema", "json_schema": named}
        hooks: dict[str, list[Any]] = {"request": [_count_request], "response": [_discount_refusal]}
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key or "none",
            base_url=endpoint.base_url,
            timeout=settings.timeout,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, messages: Messages, attempts: int, seed: int = 0) -> Reply:
        """One reply.

        Args:
            messages: the conversation.
            attempts: how often the request may be sent.
            seed: of sampling, where questions have one.

        Raises:
            UnansweredError: every attempt failed, or the server will not answer this very question.
            EndpointError: it will answer none.
        """
        _sent.set(0)
        while True:
            options = {**self._options, **({"seed": seed} if "seed" in self._options else {})}
            await self._wait_for_turn()
            try:
                return await self._send(messages, options, attempts)
            except ValidationError as error:
                problem = f"the reply is no chat completion: {error.errors()[0]['msg']}"
            except self._errors.APIConnectionError as error:  # a timeout is one, too
                problem = str(error.__cause__ or "") or str(error)
                if type(error.__cause__).__name__ == "ConnectError":
                    _sent.set(0)  # the server is down
            except self._errors.APIStatusError as error:
                if self._can_do_without(error, options):
                    continue
                code, message = error.status_code, self._endpoint.without_key(error.message)[:500]
                if code in _REFUSED:
                    raise EndpointError(
                        f"The {self._role} at {self._endpoint.shown} refused ({code}): {message}", _REFUSED[code]
                    ) from error
                problem = f"status {code}: {message}"
            raise UnansweredError(self._endpoint.without_key(problem), _sent.get())

    async def _wait_for_turn(self) -> None:
        """Space the questions evenly, if the recipe limits their rate."""
        if per_minute := self._settings.requests_per_minute:
            async with self._turn:
                await asyncio.sleep(60.0 / per_minute)

    async def _send(self, messages: Messages, options: Mapping[str, Any], attempts: int) -> Reply:
        client = self._client.with_options(max_retries=attempts - 1 - _sent.get())
        raw = await client.chat.completions.with_raw_response.create(
            model=self._settings.model, messages=cast("Any", messages), extra_body=options
        )
        completion = _Completion.model_validate_json(raw.http_response.text)
        text = self._endpoint.without_key(completion.content or completion.refusal or "")  # the server knows the key
        read, written = completion.read, completion.written
        tokens = None if read is None or written is None else Tokens(read, written)
        return Reply(text, tokens, _sent.get() - 1, completion.finish_reason != "length")

    def _can_do_without(self, error: APIStatusError, options: Mapping[str, Any]) -> bool:
        """Was the request refused for an option that can be left out? Then it is left out from now on."""
        text = str(error) if error.status_code in (400, 422) else ""
        for name in _OTHERWISE:
            if name in options and name in text and (name == "response_format" or _NOT_TAKEN.search(text)):
                if name in self._options:
                    value, other = self._options.pop(name), _OTHERWISE[name]
                    self._options |= {other: value} if other else {}
                    note(f"The {self._role}'s server does not take `{name}`; asking without it.")
                return True
        return False


async def _count_request(_request: object) -> None:
    _sent.set(_sent.get() + 1)


async def _discount_refusal(response: Any) -> None:
    if not response.is_success:
        _sent.set(_sent.get() - 1)
