"""Prompts of token ids: answers as token ids, and the scores of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pad_cli.decoding.decode import Step, collect, decode_steps
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import Item
from pad_cli.decoding.speculative import draft_length, speculate_steps
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings

Wanted = str | Preference | Sequence[Preference] | None
Weights = float | Sequence[float] | None


def token_items(
    engine: PadEngine, prompts: Sequence[list[int]], preference: Wanted, how: DecodingSettings, weight: Weights = None
) -> list[Item]:
    """Items of prompts; preference (a text is read) and guidance weight are one for all, or one for each."""
    if isinstance(preference, str):
        preference = engine.preference([preference])
    preferences = [preference] * len(prompts) if isinstance(preference, Preference) else preference
    weights = [weight] * len(prompts) if isinstance(weight, int | float) else weight
    return engine.items(prompts, preferences, how, weights)


def generate_ids(
    engine: PadEngine, prompts: Sequence[list[int]], preference: Wanted, how: DecodingSettings, weight: Weights = None
) -> list[list[int]]:
    """The engine's answers as token ids; arguments as in `token_items`."""
    items = token_items(engine, prompts, preference, how, weight)
    weights = [item.guidance_weight for item in items]
    preferences = None if preference is None else [item.preference for item in items]
    return [list(answer.token_ids) for answer in engine.generate(prompts, preferences, how, weights)]


def generate_all(
    engine: PadEngine, prompts: Sequence[list[int]], preference: Wanted, how: DecodingSettings, weight: Weights = None
) -> list[list[int]]:
    """As `generate_ids`, in one batch, with answers that go on after an end of sequence to `max_new_tokens`."""
    request = replace(engine._request(token_items(engine, prompts, preference, how, weight), how), ignore_eos=True)
    length = draft_length(request, how.draft_tokens)
    return collect(len(prompts), decode_steps(request) if length is None else speculate_steps(request, length))


def score_candidates(
    engine: PadEngine, prompts: Sequence[list[int]], preference: Wanted, how: DecodingSettings, weight: Weights = None
) -> Step:
    """What competes for the token after each prompt; arguments as in `token_items`."""
    return next(decode_steps(engine._request(token_items(engine, prompts, preference, how, weight), how)))
