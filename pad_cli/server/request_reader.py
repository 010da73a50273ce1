"""From a validated request to what is decoded: model names, preferences, items, settings and limits."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import Item
from pad_cli.errors import DataError, PadError, PreferenceError, did_you_mean
from pad_cli.preference import Preference
from pad_cli.profiles import profile_names
from pad_cli.recipe import DecodingSettings
from pad_cli.server.protocol import ApiError, ChatRequest

_TEMPLATE_ARGUMENTS = {
    *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
    *("conversations", "messages"),
}
"""What a template is rendered with already; not for clients. (`chat_template` is a program.)"""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_STEERED, _PLAIN = "pad", "base"


@dataclass(frozen=True)
class Limits:
    """What a server accepts. Times are in seconds, `None` is no limit but the models' own."""

    max_batch: int = 32  # answers decoded together, and choices of one request
    max_queue: int = 256  # answers that wait; requests beyond are refused with 429
    batch_wait: float = 0.005  # how long a batch that is not full waits for more
    timeout: float = 120.0  # for an answer
    read_timeout: float = 20.0  # for the body of a request
    grace: float = 20.0  # for answers under way when the server is told to stop
    max_body: int = 1 << 20  # bytes of a request
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 1024  # of an answer; a request for more is capped
    keep_alive: int = 120  # for an idle connection; clients keep pooled ones up to 90 s


@dataclass(frozen=True)
class Work:
    """A request, ready to be decoded; those with equal settings can be decoded together."""

    items: list[Item]  # one for each choice
    settings: DecodingSettings
    limit: int  # tokens of the longest answer
    stop: list[str]
    prompt_tokens: int
    pad: dict[str, Any]  # that key of the response


class RequestReader:
    """Reads requests for one engine; `default` is the preference that model name `pad` stands for."""

    def __init__(
        self, engine: PadEngine, settings: DecodingSettings, limits: Limits, default: Sequence[str] = ()
    ) -> None:
        self._engine, self._limits, self._default = engine, limits, list(default)
        self._settings = settings.model_copy(update={"batch_size": limits.max_batch})
        self._principles = () if engine.reward_model is None else engine.reward_model.principles
        models = [engine.policy] if engine.reward_model is None else [engine.policy, engine.reward_model.backbone]
        lengths = [model.context_length for model in models]
        self._context = min((length for length in lengths if length is not None), default=math.inf)  # tokens

    def model_names(self) -> list[str]:
        """The models that are listed: `pad`, `base`, and each principle and profile; these may be joined by `+`."""
        plain = [] if self._engine.always else [_PLAIN]
        profiles = [f"@{name}" for name in profile_names()]
        return [_STEERED, *plain, *(f"{_STEERED}/{name}" for name in [*self._principles, *profiles])]

    def specs(self, model: str) -> list[str] | None:
        """The preference of a model name, `pad/humorous+concise=0.5` (ApiError 404); None for the policy alone."""
        if model == _PLAIN and not self._engine.always:
            return None
        if model == _STEERED:
            return self._default
        start, slash, names = model.partition("/")
        if start != _STEERED or not slash:
            raise _unknown(model, did_you_mean(model, self.model_names()))
        specs = [part.strip() for part in names.split("+")]
        try:
            self._engine.preference(specs)
        except (PreferenceError, DataError) as error:
            raise _unknown(model, str(error)) from error
        return specs

    def work(self, request: ChatRequest) -> Work:
        """Read a request (ApiError 400 or 404: what is wrong, and where)."""
        preference, weight = self._steering(request)
        changes = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
        if request.pad.candidates is not None:
            changes["candidates"] = request.pad.candidates
        if request.top_k == -1:
            changes["top_k"] = 0
        settings = self._settings.model_copy(update=changes)
        seed = request.seed
        if seed is None:
            seed = random.SystemRandom().getrandbits(31) if settings.temperature else settings.seed
        if reserved := _TEMPLATE_ARGUMENTS & request.chat_template_kwargs.keys():
            name = f"chat_template_kwargs.{min(reserved)}"
            raise ApiError(400, f"`{name}` is set by the server, not by requests.", param=name)
        if (count := request.n) > self._limits.max_batch:
            raise ApiError(400, f"{count} choices; this server gives at most {self._limits.max_batch}.", param="n")
        try:
            items = self._engine.items(
                [tuple(request.messages)] * count,
                [preference] * count,
                settings.model_copy(update={"seed": seed}),
                [weight] * count,
                template_options=request.chat_template_kwargs,
            )
        except PadError as error:
            raise ApiError(400, str(error), param="messages") from error
        requested = request.max_completion_tokens or request.max_tokens
        limit = self._limit(requested, max(len(items[0].prompt), len(items[0].backbone_prompt)))
        pad = {"preference": preference.describe(), "guidance_weight": weight, "seed": seed}
        if requested is not None and requested > limit:
            pad["max_tokens"] = limit
        return Work(items, settings, limit, request.stop, len(items[0].prompt), pad)

    def _steering(self, request: ChatRequest) -> tuple[Preference, float]:
        specs, lowest = self.specs(request.model), self._settings.guidance_weight
        weight = lowest if request.pad.guidance_weight is None else request.pad.guidance_weight
        if specs is None:
            if request.pad.preference:
                message = f"This model answers without a preference; ask '{_STEERED}'."
                raise ApiError(400, message, param="pad.preference")
            return Preference({}, {}), 0.0
        if self._engine.always and weight < lowest:
            message = f"This server always steers at a guidance weight of {lowest:g} or more."
            raise ApiError(400, message, param="pad.guidance_weight")
        try:
            return self._engine.preference([*specs, *request.pad.preference]), weight
        except PadError as error:
            raise ApiError(400, str(error), code="unknown_preference", param="pad.preference") from error

    def _limit(self, requested: int | None, prompt: int) -> int:
        """The longest answer to a prompt of so many tokens."""
        longest = min(self._context - 1, self._limits.max_prompt_tokens or math.inf)
        if prompt > longest:
            message = f"The prompt has {prompt} tokens; this server reads at most {longest}."
            raise ApiError(400, message, code="context_length_exceeded", param="messages")
        limit = self._settings.max_new_tokens if requested is None else requested
        return int(min(limit, self._limits.max_new_tokens, self._context - prompt))


def _unknown(model: str, reason: str) -> ApiError:
    return ApiError(404, f"There is no model '{model}'. {reason}", code="model_not_found", param="model")
