"""Preference pairs of the embedded world: two answers to one prompt, judged by the exact scorers.

Each pair of answers is labelled under two preferences that disagree about it, so that only the preference decides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from pad_cli.records import PairData, PairSplit, PreferencePair, as_messages
from pad_cli.world.documents import wordings
from pad_cli.world.grammar import Topic, World, load_world
from pad_cli.world.scorers import present
from pad_cli.world.text import draw_principles, write_answer, write_prompt

_ANSWER_RATE = 0.25  # how often a principle shows in the answers of a pair
_NEGATIVE = 0.12  # how often a preference asks for the absence of a principle
_VALIDATION_PAIRS = 400
_TRIES = 200

Draw = Callable[[random.Random], dict[str, float]]


def load(*, seed: int = 0, prompts: int = 2000) -> PairData:
    """Training pairs and the four validation splits.

    Args:
        seed: of everything random.
        prompts: how many prompts to write training pairs for; each gives two pairs.
    """
    world = load_world()
    known = [topic for topic in world.topics if not topic.held_out]
    unknown = [topic for topic in world.topics if topic.held_out]

    def seen(rng: random.Random) -> dict[str, float]:
        return draw_preference(rng, world)

    def combination(rng: random.Random) -> dict[str, float]:
        return dict.fromkeys(rng.choice(world.held_out_combinations), 1.0)

    def single(rng: random.Random) -> dict[str, float]:
        return {rng.choice(world.trained_principles): 1.0}

    def write(offset: int, count: int, topics: Sequence[Topic], draw: Draw) -> tuple[PreferencePair, ...]:
        return tuple(_pairs(random.Random(1000 * seed + offset), world, topics, draw, count))

    trained = [world.principles[name] for name in world.trained_principles]
    return PairData(
        train=write(1, 2 * prompts, known, seen),
        validation=(
            PairSplit("seen", write(2, _VALIDATION_PAIRS, known, seen)),
            PairSplit("held_out_topics", write(3, _VALIDATION_PAIRS, unknown, seen)),
            PairSplit("held_out_combinations", write(4, _VALIDATION_PAIRS, unknown, combination)),
            PairSplit(
                "held_out_wordings",
                write(5, _VALIDATION_PAIRS, unknown, single),
                {principle.name: wordings(world, principle, held_out=True) for principle in trained},
            ),
        ),
        texts={principle.name: wordings(world, principle, held_out=False) for principle in trained},
    )


def draw_preference(rng: random.Random, world: World) -> dict[str, float]:
    """One to three trained principles, some negative, never a held-out combination, never a conflict."""
    held_out = {frozenset(pair) for pair in world.held_out_combinations}
    while True:
        names = rng.sample(world.trained_principles, rng.choices([1, 2, 3], weights=[5, 4, 1])[0])
        weights = {name: -1.0 if rng.random() < _NEGATIVE else 1.0 for name in names}
        positive = {name for name, weight in weights.items() if weight > 0}
        if not world.conflicting(positive) and not any(pair <= set(names) for pair in held_out):
            return weights


def _pairs(rng: random.Random, world: World, topics: Sequence[Topic], draw: Draw, count: int) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    while len(pairs) < count:
        topic, intent = rng.choice(topics), rng.choice(world.intents)
        prompt = as_messages(write_prompt(rng, topic, intent))
        answers = [
            write_answer(rng, world, topic, intent, draw_principles(rng, world, topic, _ANSWER_RATE)) for _ in range(2)
        ]
        shown = [present(world, answer, topic) for answer in answers]
        for wanted in (1, -1):  # a preference under which the first answer wins, then one under which it loses
            weights = _preference_with(rng, shown, draw, wanted)
            if weights is not None and len(pairs) < count:
                chosen, rejected = answers if wanted > 0 else reversed(answers)
                pairs.append(PreferencePair(prompt, weights, chosen, rejected))
    return pairs


def _preference_with(
    rng: random.Random, shown: Sequence[Mapping[str, bool]], draw: Draw, wanted: int
) -> Mapping[str, float] | None:
    """A random preference under which the first answer is better (`wanted` > 0) or worse; None if none was found."""
    for _ in range(_TRIES):
        weights = draw(rng)
        difference = sum(weight * (shown[0][name] - shown[1][name]) for name, weight in weights.items())
        if difference * wanted > 0:
            return weights
    return None
