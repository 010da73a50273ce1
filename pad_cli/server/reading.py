"""From a checked request to what is decoded: items, settings and limits."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import Item
from pad_cli.errors import PadError
from pad_cli.models.prompts import encode_text
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.server.api_error import ApiError
from pad_cli.server.catalogue import STEERED, Catalogue
from pad_cli.server.schema import ChatRequest, TextRequest

_TEMPLATE_ARGUMENTS = {
    *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters,
    *("conversations", "messages"),
}
"""What a template is rendered with already, and how: not for clients. (`chat_template` is a program.)"""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        max_batch: most answers decoded together, and most choices of one request.
        max_queue: most answers that wait; requests beyond are refused with 429.
        batch_wait: how long a batch that is not full waits for more (seconds).
        timeout: longest wait for an answer (seconds).
        read_timeout: longest wait for the body of a request, and for a client to take what it was sent (seconds).
        grace: how long answers under way may take when the server is told to stop (seconds).
        max_body: longest body of a request (bytes).
        max_prompt_tokens: longest prompt; null for what the models can read.
        max_new_tokens: longest answer; where a request asks for more, it is cut there.
        max_stops: most stop strings of a request.
        keep_alive: how long an idle connection stays open (seconds); clients that pool theirs keep them up to 90.
    """

    max_batch: int = 32
    max_queue: int = 256
    batch_wait: float = 0.005
    timeout: float = 120.0
    read_timeout: float = 20.0
    grace: float = 20.0
    max_body: int = 1 << 20
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 1024
    max_stops: int = 4
    keep_alive: int = 120


@dataclass(frozen=True)
class Work:
    """A request, ready to be decoded.

    Attributes:
        items: one for each choice.
        settings: how to decode; equal for requests that can be decoded together.
        limit: longest answer (tokens).
        stop: strings that end an answer.
        continues: whether an answer's text goes on from the prompt's, with its white space.
        prompt_tokens: of all prompts, each counted once.
        told: what the response says of it under `pad`.
    """

    items: list[Item]
    settings: DecodingSettings
    limit: int
    stop: tuple[str, ...]
    continues: bool
    prompt_tokens: int
    told: dict[str, Any]


class Reading:
    """Reads requests for one engine.

    Args:
        engine: tokenizes, and knows preferences.
        settings: what a request does not say.
        limits: what it may not ask for.
        catalogue: what `model` stands for.
    """

    def __init__(self, engine: PadEngine, settings: DecodingSettings, limits: Limits, catalogue: Catalogue) -> None:
        self._engine, self._limits, self._catalogue = engine, limits, catalogue
        self._settings = settings.model_copy(update={"batch_size": limits.max_batch})
        models = [engine.policy] if engine.reward_model is None else [engine.policy, engine.reward_model.backbone]
        lengths = [model.context_length for model in models]
        self._context = min((length for length in lengths if length is not None), default=None)

    def work(self, request: ChatRequest | TextRequest) -> Work:
        """Read a request.

        Raises:
            ApiError: 400 or 404; what is wrong, and where.
        """
        preference, weight = self._steering(request)
        settings = self._sampling(request)
        seed = request.seed
        if seed is None:
            seed = random.SystemRandom().getrandbits(31) if settings.temperature else settings.seed
        seeded = settings.model_copy(update={"seed": seed})
        choices = request.n or 1
        count = choices * (1 if isinstance(request, ChatRequest) else len(_prompts(request)))
        if count > self._limits.max_batch:
            raise ApiError(400, f"{count} choices; this server gives at most {self._limits.max_batch}.", param="n")
        if len(request.stops) > self._limits.max_stops:
            raise ApiError(400, f"At most {self._limits.max_stops} stop strings.", param="stop")
        try:
            if isinstance(request, ChatRequest):
                items = self._chat(request, preference, seeded, weight, choices)
            else:
                items = self._text(request, preference, seeded, weight, choices)
        except PadError as error:
            raise ApiError(400, str(error), param=_PROMPT[type(request)]) from error
        prompts = items[::choices]
        limit = self._limit(request, max(max(len(item.prompt), len(item.backbone_prompt)) for item in prompts))
        told = {"preference": preference.describe(), "guidance_weight": weight, "seed": seed}
        if request.longest is not None and request.longest > limit:
            told["max_tokens"] = limit
        tokens = sum(len(item.prompt) for item in prompts)
        return Work(items, settings, limit, request.stops, isinstance(request, TextRequest), tokens, told)

    def _steering(self, request: ChatRequest | TextRequest) -> tuple[Preference, float]:
        options = request.pad
        specs = self._catalogue.specs(request.model)
        asked = [] if options is None else options.specs
        weight = self._settings.guidance_weight
        if options is not None and options.guidance_weight is not None:
            weight = options.guidance_weight
        if specs is None:
            if asked:
                raise ApiError(
                    400, f"This model answers without a preference; ask '{STEERED}'.", param="pad.preference"
                )
            return Preference({}, {}), 0.0
        if self._engine.always and weight < self._settings.guidance_weight:
            raise ApiError(
                400,
                f"This server always steers at a guidance weight of {self._settings.guidance_weight:g} or more.",
                param="pad.guidance_weight",
            )
        try:
            return self._engine.preference([*specs, *asked]), weight
        except PadError as error:
            raise ApiError(400, str(error), code="unknown_preference", param="pad.preference") from error

    def _sampling(self, request: ChatRequest | TextRequest) -> DecodingSettings:
        given = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
        if request.pad is not None and request.pad.candidates is not None:
            given["candidates"] = request.pad.candidates
        if request.top_k == -1:
            given["top_k"] = 0
        return self._settings.model_copy(update=given)

    def _chat(
        self, request: ChatRequest, preference: Preference, settings: DecodingSettings, weight: float, choices: int
    ) -> list[Item]:
        options = request.chat_template_kwargs or {}
        if taken := _TEMPLATE_ARGUMENTS & options.keys():
            name = f"chat_template_kwargs.{min(taken)}"
            raise ApiError(400, f"`{name}` is set by the server, not by requests.", param=name)
        roles = {"developer": "system"}
        messages = tuple(
            {"role": roles.get(message.role, message.role), "content": message.text} for message in request.messages
        )
        return self._engine.items(
            [messages] * choices,
            [preference] * choices,
            settings,
            [weight] * choices,
            template_options=options,
        )

    def _text(
        self, request: TextRequest, preference: Preference, settings: DecodingSettings, weight: float, choices: int
    ) -> list[Item]:
        tokenizer = self._engine.policy.tokenizer
        prompts: list[list[int]] = []
        for number, prompt in enumerate(_prompts(request)):
            tokens = prompt if isinstance(prompt, list) else encode_text(tokenizer, prompt)
            if not all(0 <= token < self._engine.policy.vocabulary_size for token in tokens):
                raise ApiError(400, "There is no such token.", param=f"prompt.{number}")
            prompts += [tokens] * choices
        return self._engine.id_items(prompts, [preference] * len(prompts), settings, [weight] * len(prompts))

    def _limit(self, request: ChatRequest | TextRequest, prompt: int) -> int:
        """The longest answer, given the longest prompt."""
        most = self._limits.max_prompt_tokens
        room = None if self._context is None else self._context - prompt
        if (most is not None and prompt > most) or (room is not None and room < 1):
            longest = min(number for number in (most, self._context and self._context - 1) if number is not None)
            raise ApiError(
                400,
                f"The prompt has {prompt} tokens; this server reads at most {longest}.",
                code="context_length_exceeded",
                param=_PROMPT[type(request)],
            )
        asked = self._settings.max_new_tokens if request.longest is None else request.longest
        return min(asked, self._limits.max_new_tokens, asked if room is None else room)


_PROMPT: dict[type, str] = {ChatRequest: "messages", TextRequest: "prompt"}


def _prompts(request: TextRequest) -> Sequence[str | list[int]]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(400, "There is no prompt.", param="prompt")
    if isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [each for each in prompt if not isinstance(each, int)]
