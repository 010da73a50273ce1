"""Answers to choose between: steered ways to answer some prompts, as different as the principles make them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.learning.choices import Choice
from pad_cli.learning.features import choice_features
from pad_cli.learning.fit import Array
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.pairs import is_text
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Messages
from pad_cli.system.progress import bar

_TEMPERATURE = 1.0
_MOST_PRINCIPLES = 3  # that an answer is steered to
_ASKED = 2 / 3  # of them, the others are avoided


@dataclass(frozen=True)
class Comparison:
    """Two different answers to one prompt."""

    prompt: Messages
    first: str
    second: str


@dataclass(frozen=True)
class Pool:
    """N comparisons of K principles.

    Attributes:
        comparisons: what may be asked.
        slopes: (N, K) first answer less second, nats.
    """

    comparisons: tuple[Comparison, ...]
    slopes: Array


def make_pool(
    engine: PadEngine, prompts: Sequence[Messages], settings: DecodingSettings, answers: int = 6, seed: int = 0
) -> Pool:
    """Answer each prompt in several ways, and pair the answers. The same seed gives the same pool.

    Args:
        engine: policy and reward model.
        prompts: what is answered; each should stand there once.
        settings: how; answers are sampled at temperature 1 where the settings are greedy.
        answers: how many ways.
        seed: of the preferences, of sampling, and of which answer stands first.

    Raises:
        UsageError: the reward model has no preference heads, or all answers to each prompt are the same.
    """
    model = engine.reward_model
    if not isinstance(model, PersonalizedRewardModel):
        raise UsageError("Weights are learned for a reward model with preference heads.", "Name one: --reward-model")
    rng = random.Random(seed)
    asked = [prompt for prompt in prompts for _ in range(answers)]
    preferences = [_drawn(rng, model.principles) for _ in asked]
    sampled = settings.model_copy(update={"temperature": settings.temperature or _TEMPERATURE, "seed": seed})
    streams = [f"{prompt}/{way}" for prompt in range(len(prompts)) for way in range(answers)]
    with bar("Answering the prompts in several ways", total=len(asked)) as progress:
        found = engine.generate(asked, preferences, sampled, streams=streams, on_batch=progress.advance)
    given = [answer.text.strip() for answer in found]
    comparisons = []
    for number, prompt in enumerate(prompts):
        ways = [text for text in dict.fromkeys(given[number * answers : (number + 1) * answers]) if is_text(text)]
        for later in range(len(ways)):
            for earlier in range(later):
                pair = (ways[earlier], ways[later])
                comparisons.append(Comparison(prompt, *(pair if rng.random() < 0.5 else pair[::-1])))
    if not comparisons:
        raise UsageError("The policy gives the same answer in every way.", "Give other prompts: --prompts FILE")
    features = choice_features(model, [Choice(each.prompt, each.first, each.second) for each in comparisons])
    return Pool(tuple(comparisons), np.asarray(features.slopes))


def _drawn(rng: random.Random, principles: Sequence[str]) -> Preference:
    """A few principles, more of them asked for than avoided."""
    count = rng.randint(1, min(_MOST_PRINCIPLES, len(principles)))
    return Preference({name: 1.0 if rng.random() < _ASKED else -1.0 for name in rng.sample(principles, count)}, {})
