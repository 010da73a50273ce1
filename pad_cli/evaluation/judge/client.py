"""One question to a judge over HTTP, asked again until it is answered or there is no hope.

The `openai` client sends it. Its own retries are off: they hide the attempts that may have cost money although no reply
arrived, and these count against the budget; ours also keep to the rate limit and hold back all requests when the server
asks to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from pad_cli.errors import JudgeError
from pad_cli.recipe import JudgeSettings
from pad_cli.records import Messages
from pad_cli.system.offline import is_this_machine, offline
from pad_cli.system.progress import note

if TYPE_CHECKING:
    from openai import APIStatusError

_OPENAI = "https://api.openai.com/v1"
_LONGEST_WAIT = 600.0  # seconds; for a server that asks for more, the run ends
_LONGEST_BACKOFF = 60.0  # seconds
_REFUSED = {
    401: "Check OPENAI_API_KEY.",
    403: "Check what the key may do.",
    404: "Check `judge.model` and the address.",
}
_SECRET = 8  # letters; what stands in for a key where none is needed is shorter, and may be a word of the text
_RETRIED = (408, 409, 425, 429)
_NOT_TAKEN = re.compile(r"unsupported|not support|unexpected|unrecogni[sz]ed|unknown|not permitted|unavailable", re.I)
_OTHERWISE = {"response_format": None, "temperature": None, "max_tokens": "max_completion_tokens"}
"""What some servers do not take, and what they take in its place."""


class UnansweredError(Exception):
    """No reply to one question; its text says why."""


class Tokens(NamedTuple):
    """Tokens that a judge reads and writes."""

    read: int
    written: int


class Reply(NamedTuple):
    """What came back; tokens are None when the server does not count them."""

    text: str
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where the judge is. The key is in no representation, message or file."""

    base_url: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The address without anything secret."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if len(self.key) >= _SECRET else text


def find_endpoint(settings: JudgeSettings) -> Endpoint:
    """The recipe's address or the environment's, with the environment's key, if there is one."""
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
    return Endpoint(base_url, os.environ.get("OPENAI_API_KEY", ""))


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    """As much of a chat completion as is read here."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class RateLimiter:
    """Gives requests their turns, evenly spaced; `per_minute` None spaces nothing."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = self._resume = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until the next request may begin."""
        async with self._one_at_a_time:
            while (wait := max(self._next, self._resume) - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self._next = time.monotonic() + self._gap

    def pause(self, seconds: float) -> None:
        """Begin no request, of nobody's, for so many seconds."""
        self._resume = max(self._resume, time.monotonic() + seconds)


def backoff(first: float, attempt: int) -> float:
    """Seconds to wait after attempt 0, 1, ...: doubling, and spread so that many clients do not come back at once."""
    return min(first * 2.0**attempt, _LONGEST_BACKOFF) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait (`retry-after-ms`, or `Retry-After` in seconds); None if it does not say."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            if (wait := float(headers[name])) >= 0:
                return wait / unit
    return None


class Chat:
    """A connection to a judge; use it as an asynchronous context, which closes it.

    Raises:
        JudgeError: the `openai` package is not installed, OpenAI's own address needs a key and there is none, or the
            judge is elsewhere and the network off limits.
    """

    def __init__(self, settings: JudgeSettings, endpoint: Endpoint) -> None:
        if not endpoint.key and endpoint.base_url == _OPENAI:
            raise JudgeError(
                "OPENAI_API_KEY is not set.",
                "Set it in the environment; or give `judge.base_url` (or OPENAI_BASE_URL) of a server that needs none.",
            )
        if offline() and not is_this_machine(urlsplit(endpoint.base_url).hostname or ""):
            raise JudgeError(
                f"The judge at {endpoint.shown} is not on this machine, and the network is off limits.",
                "Leave out --offline (or PAD_OFFLINE), or name a judge on this machine: `judge.base_url`.",
            )
        try:
            import openai
        except ImportError as error:
            raise JudgeError("The judge needs the openai package.", 'Run: pip install "pad-cli[judge]"') from error
        self._errors = openai
        self._settings, self._endpoint = settings, endpoint
        self._limiter = RateLimiter(settings.requests_per_minute)
        self._not_taken: set[str] = set()
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key or "none", base_url=endpoint.base_url, max_retries=0, timeout=settings.timeout
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, messages: Messages, schema: Mapping[str, Any], lost: Callable[[], None]) -> Reply:
        """One reply.

        Args:
            messages: the conversation.
            schema: of the JSON object that the reply must be; enforced by servers that can.
            lost: called when an attempt may have cost money although its reply did not arrive; may raise, which ends
                the attempts.

        Raises:
            UnansweredError: every attempt failed, or the server will not answer this very question.
            JudgeError: it will answer none.
        """
        problem, attempt = "", 0
        while attempt < self._settings.attempts:
            await self._limiter.turn()
            options = self._options(schema)
            wait = backoff(self._settings.backoff, attempt)
            try:
                async with asyncio.timeout(self._settings.timeout):  # the client's bounds a single read only
                    return await self._send(messages, options)
            except (TimeoutError, self._errors.APITimeoutError):
                problem = f"no reply within {self._settings.timeout:g} s"
                lost()
            except self._errors.APIConnectionError as error:
                problem = f"the connection failed: {error.__cause__ or error}"
                if type(error.__cause__).__name__ != "ConnectError":  # else nothing was sent
                    lost()
            except ValidationError as error:
                problem = f"the reply is no chat completion: {error.errors()[0]['msg']}"
                lost()
            except self._errors.APIStatusError as error:
                if self._can_do_without(error, options):
                    continue
                problem = self._problem(error)
                if error.status_code == 429:
                    asked = retry_after(error.response.headers)
                    self._limiter.pause(wait if asked is None else asked)
                    wait = 0.0  # the limiter holds this question back, too
            attempt += 1
            if attempt < self._settings.attempts:
                await asyncio.sleep(wait)
        raise UnansweredError(self._endpoint.without_key(problem))

    def _options(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        verdict = {"name": "verdict", "strict": True, "schema": schema}
        options: dict[str, Any] = {
            "response_format": {"type": "json_schema", "json_schema": verdict},
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
        }
        for name in self._not_taken:
            value, other = options.pop(name), _OTHERWISE[name]
            if other is not None:
                options[other] = value
        return options

    async def _send(self, messages: Messages, options: Mapping[str, Any]) -> Reply:
        raw = await self._client.chat.completions.with_raw_response.create(
            model=self._settings.model, messages=cast("Any", messages), extra_body=options
        )
        completion = _Completion.model_validate_json(raw.http_response.text)
        message, usage = completion.choices[0].message, completion.usage
        text = self._endpoint.without_key(message.content or message.refusal or "")  # the server knows the key
        return Reply(text, None if usage is None else Tokens(usage.prompt_tokens, usage.completion_tokens))

    def _can_do_without(self, error: APIStatusError, options: Mapping[str, Any]) -> bool:
        """Was the request refused for an option that can be left out? Then it is left out from now on."""
        text = str(error) if error.status_code in (400, 422) else ""
        for name in _OTHERWISE:
            if name in options and name in text and (name == "response_format" or _NOT_TAKEN.search(text)):
                if name not in self._not_taken:
                    self._not_taken.add(name)
                    note(f"The judge's server does not take `{name}`; asking without it.")
                return True
        return False

    def _problem(self, error: APIStatusError) -> str:
        """What went wrong, if another attempt may help; raises if not."""
        code, message = error.status_code, self._endpoint.without_key(error.message)[:500]
        if code in _REFUSED or error.code == "insufficient_quota":
            hint = _REFUSED.get(code, "Top up the account, or take another judge.")
            raise JudgeError(f"The judge at {self._endpoint.shown} refused ({code}): {message}", hint)
        wait = retry_after(error.response.headers)
        if code == 429 and wait is not None and wait > _LONGEST_WAIT:
            raise JudgeError(
                f"The judge at {self._endpoint.shown} asks to wait {wait:.0f} s.",
                "Run the same command again then; what is judged is kept.",
            )
        if code in _RETRIED or code >= 500:
            return f"status {code}: {message}"
        raise UnansweredError(f"status {code}: {message}")
