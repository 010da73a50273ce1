"""The embedded benchmark: prompts about topics the reward model never saw, under preferences of six kinds.

single        one trained principle, by name
combination   two principles that no training pair asks for together
triple        such a combination and a third principle (asked for only where `groups` says so)
paraphrase    one principle, in a wording that training never used
untrained     a principle that no training pair asks for, in words
cross-policy  single principles again, for the policies that are not the reward model's backbone
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pad_cli.errors import DataError, did_you_mean
from pad_cli.records import BenchmarkItem, as_messages
from pad_cli.world.documents import wordings
from pad_cli.world.grammar import World, load_world

GROUPS = ("single", "combination", "paraphrase", "untrained", "cross-policy")
_TRIPLE = "triple"
_THIRDS = (
    ("humorous", "expert", "empathetic"),
    ("concise", "humorous", "enthusiastic"),
    ("formal", "creative", "enthusiastic"),
    ("casual", "informative", "empathetic"),
    ("enthusiastic", "simple", "casual"),
    ("empathetic", "helpful", "formal"),
    ("formal", "harmless", "empathetic"),
    ("casual", "expert", "enthusiastic"),
)


def load(
    *, seed: int = 0, prompts: int = 200, cross_prompts: int = 40, groups: Sequence[str] = GROUPS
) -> list[BenchmarkItem]:
    """Principles, combinations, paraphrases and other policies of the embedded world, with exact facts.

    Args:
        seed: of the choice of prompts and wordings.
        prompts: how many prompts each preference is asked on (at most 256).
        cross_prompts: how many prompts each principle is asked on for the other policies.
        groups: the kinds of preferences, of those above.

    Raises:
        DataError: there is no such group.
    """
    for group in groups:
        if group not in (*GROUPS, _TRIPLE):
            raise DataError(
                f"the benchmark 'embedded' has no group '{group}'", hint=did_you_mean(group, (*GROUPS, _TRIPLE))
            )
    world = load_world()
    rng = random.Random(seed)
    asked = _prompts(rng, world)
    items: list[BenchmarkItem] = []

    def add(group: str, label: str, names: tuple[str, ...], specs: list[str], count: int) -> None:
        for number, (prompt, topic) in enumerate(asked[:count]):
            preference = (specs[number % len(specs)],) if group in ("paraphrase", "untrained") else tuple(specs)
            facts = {"topic": topic, "asked": list(names)}
            items.append(
                BenchmarkItem(f"{group}/{label}/{number}", group, label, as_messages(prompt), preference, facts)
            )

    for name in world.trained_principles:
        add("single", name, (name,), [name], prompts)
    for pair in world.held_out_combinations:
        add("combination", "+".join(pair), pair, list(pair), prompts)
    for triple in _THIRDS:
        add(_TRIPLE, "+".join(triple), triple, list(triple), prompts)
    for name, principle in world.principles.items():
        texts = [f"text:{text}" for text in wordings(world, principle, held_out=True)]
        rng.shuffle(texts)
        add("untrained" if principle.untrained else "paraphrase", name, (name,), texts, prompts)
    for name in world.trained_principles:
        add("cross-policy", name, (name,), [name], cross_prompts)
    return [item for item in items if item.group in groups]


def _prompts(rng: random.Random, world: World) -> list[tuple[str, str]]:
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
