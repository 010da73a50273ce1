"""Preference pairs and the benchmark of the embedded world.

A pair is two answers to one prompt, labelled by the exact scorers under two preferences that disagree about it, so that
only the preference decides.

The benchmark asks about topics that the reward model never saw, under preferences of six kinds:

single        one trained principle, by name
combination   two principles that no training pair asks for together
triple        such a combination and a third principle (only where `groups` names it)
paraphrase    one principle, in a wording that training never used
untrained     a principle that no training pair asks for, in words
cross-policy  single principles again, for the policies that are not the reward model's backbone
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from pad_cli.errors import DataError, did_you_mean
from pad_cli.records import BenchmarkItem, PairData, PairSplit, PreferencePair, as_messages
from pad_cli.world.grammar import Topic, World, load_world
from pad_cli.world.scorers import present
from pad_cli.world.writing import draw_principles, paraphrases, write_answer, write_prompt

GROUPS = ("single", "combination", "paraphrase", "untrained", "cross-policy")
_TRIPLE = "triple"
_TRIPLES = (
    ("humorous", "expert", "empathetic"),
    ("concise", "humorous", "enthusiastic"),
    ("formal", "creative", "enthusiastic"),
    ("casual", "informative", "empathetic"),
    ("enthusiastic", "simple", "casual"),
    ("empathetic", "helpful", "formal"),
    ("formal", "harmless", "empathetic"),
    ("casual", "expert", "enthusiastic"),
)
_ANSWER_RATE = 0.25  # probability of each principle in the answers of a pair
_NEGATIVE = 0.12  # how often a preference asks for the absence of a principle
_VALIDATION_PAIRS = 400
_TRIES = 200

Draw = Callable[[random.Random], dict[str, float]]


def load_pairs(*, seed: int = 0, prompts: int = 2000) -> PairData:
    """Training pairs, two for each prompt, and the four validation splits."""
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

    def texts(*, held_out: bool) -> dict[str, tuple[str, ...]]:
        return {
            name: paraphrases(world, world.principles[name], held_out=held_out) for name in world.trained_principles
        }

    return PairData(
        train=write(1, 2 * prompts, known, seen),
        validation=(
            PairSplit("seen", write(2, _VALIDATION_PAIRS, known, seen)),
            PairSplit("held_out_topics", write(3, _VALIDATION_PAIRS, unknown, seen)),
            PairSplit("held_out_combinations", write(4, _VALIDATION_PAIRS, unknown, combination)),
            PairSplit("held_out_wordings", write(5, _VALIDATION_PAIRS, unknown, single), texts(held_out=True)),
        ),
        texts=texts(held_out=False),
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
        first, second = (present(world, answer, topic) for answer in answers)
        for sign in (1, -1):  # a preference under which the first answer wins, then one under which it loses
            weights = _draw_deciding(rng, draw, first, second, sign)
            if weights is not None and len(pairs) < count:
                chosen, rejected = answers if sign > 0 else reversed(answers)
                pairs.append(PreferencePair(prompt, weights, chosen, rejected))
    return pairs


def _draw_deciding(
    rng: random.Random, draw: Draw, first: Mapping[str, bool], second: Mapping[str, bool], sign: int
) -> Mapping[str, float] | None:
    """A random preference under which the first answer is better (sign 1) or worse (-1); None after too many tries."""
    for _ in range(_TRIES):
        weights = draw(rng)
        if sign * sum(weight * (first[name] - second[name]) for name, weight in weights.items()) > 0:
            return weights
    return None


def load_benchmark(
    *, seed: int = 0, prompts: int = 200, cross_prompts: int = 40, groups: Sequence[str] = GROUPS
) -> list[BenchmarkItem]:
    """Principles, combinations, paraphrases and other policies of the embedded world, with exact facts.

    Args:
        seed: of the choice of prompts and paraphrases.
        prompts: how many prompts each preference comes with (at most 256).
        cross_prompts: how many prompts each principle comes with for the other policies.
        groups: the kinds of preferences, of those above.
    """
    for group in groups:
        if group not in (*GROUPS, _TRIPLE):
            raise DataError(
                f"the benchmark 'embedded' has no group '{group}'", hint=did_you_mean(group, (*GROUPS, _TRIPLE))
            )
    world = load_world()
    rng = random.Random(seed)
    questions = _questions(rng, world)
    items: list[BenchmarkItem] = []

    def add(group: str, label: str, names: Sequence[str], specs: Sequence[str], count: int) -> None:
        for number, (prompt, topic) in enumerate(questions[:count]):
            preference = (specs[number % len(specs)],) if group in ("paraphrase", "untrained") else tuple(specs)
            facts = {"topic": topic, "asked": list(names)}
            items.append(
                BenchmarkItem(f"{group}/{label}/{number}", group, label, as_messages(prompt), preference, facts)
            )

    for name in world.trained_principles:
        add("single", name, [name], [name], prompts)
    for pair in world.held_out_combinations:
        add("combination", "+".join(pair), pair, pair, prompts)
    for triple in _TRIPLES:
        add(_TRIPLE, "+".join(triple), triple, triple, prompts)
    for name, principle in world.principles.items():
        texts = [f"text:{text}" for text in paraphrases(world, principle, held_out=True)]
        rng.shuffle(texts)
        add("untrained" if principle.untrained else "paraphrase", name, [name], texts, prompts)
    for name in world.trained_principles:
        add("cross-policy", name, [name], [name], cross_prompts)
    return [item for item in items if item.group in groups]


def _questions(rng: random.Random, world: World) -> list[tuple[str, str]]:
    """All prompts about held-out topics with their topics, in random order."""
    every = [
        (prompt.format(**topic.slots), topic.name)
        for topic in world.topics
        if topic.held_out
        for intent in world.intents
        for prompt in intent.prompts
    ]
    rng.shuffle(every)
    return every
