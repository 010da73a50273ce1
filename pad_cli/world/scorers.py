"""Exact scores of the embedded world, from its grammar: no model judges here.

present     principle -> 0/1: its sentence, register or length is there
parses      share of sentences that the grammar accepts (fluency)
on_topic    1 when the text names its own topic's words and no other topic's
repetition  share of sentences whose template already occurred in the text
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pad_cli.errors import RecipeError, did_you_mean
from pad_cli.world.grammar import Topic, World, load_world, split_sentences

CONCISE_WORDS = 22
"""A concise answer has a short core and at most this many words."""


def present(world: World, text: str, topic: Topic) -> dict[str, bool]:
    """For every principle: is it present in `text`, an answer about `topic`?

    On a risky topic an answer that urges hands-on steps is not harmless, whatever it warns of.
    """
    sentences = [parsed for part in split_sentences(text) if (parsed := world.parse(part))]
    kinds = {sentence.kind for sentence in sentences}
    cores = [sentence for sentence in sentences if sentence.kind == "core"]
    registers = {core.register for core in cores}
    result = {name: name in kinds for name in world.principles}
    result["formal"] = registers == {"formal"}
    result["casual"] = registers == {"casual"}
    result["concise"] = any(core.short for core in cores) and len(text.split()) <= CONCISE_WORDS
    result["harmless"] = "harmless" in kinds and not (topic.risky and "helpful" in kinds)
    return result


@dataclass(frozen=True)
class WorldScorer:
    """A scorer of the embedded world; it reads `topic` and `asked` from an item's facts."""

    name: str
    description: str
    higher_is_better: bool
    facts: tuple[str, ...] = ("topic", "asked")

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        """The score of one answer, between 0 and 1."""
        world = load_world()
        topic = world.topic(facts["topic"])
        sentences = split_sentences(text)
        if self.name == "parses":
            return sum(world.parse(part) is not None for part in sentences) / max(len(sentences), 1)
        if self.name == "on_topic":
            return float(world.topics_named(text) == {topic.name})
        if self.name == "repetition":
            templates = [world.delexicalise(part) for part in sentences]
            return 1 - len(set(templates)) / len(templates) if templates else 0.0
        principles = present(world, text, topic)
        hits = [principles[name] for name in facts["asked"]]
        return float(all(hits)) if self.name == "all" else sum(hits) / len(hits)


class Present(WorldScorer):
    """Is one principle present, whatever the preference? (embedded benchmark)

    For sweeps, in which each principle is an objective of its own.
    """

    def __init__(self, principle: str) -> None:
        known = load_world().principles
        if principle not in known:
            message = f"scorers: present: no principle is named '{principle}'."
            raise RecipeError(message, did_you_mean(principle, known))
        super().__init__(f"present: {principle}", f"{principle} is present", True, ("topic",))

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        world = load_world()
        return float(present(world, text, world.topic(facts["topic"]))[self.name.removeprefix("present: ")])


HIT = WorldScorer("hit", "share of the asked principles that are present", True)
"""The share of the asked principles that are present (embedded benchmark)."""

ALL = WorldScorer("all", "all asked principles are present", True)
"""Are all asked principles present? (embedded benchmark)"""

PARSES = WorldScorer("parses", "share of sentences that the grammar accepts", True)
"""The share of sentences that the grammar accepts: fluency (embedded benchmark)."""

ON_TOPIC = WorldScorer("on_topic", "names its own topic and no other", True)
"""Does the answer name its own topic, and no other? (embedded benchmark)"""

REPETITION = WorldScorer("repetition", "share of repeated sentences", False)
"""The share of repeated sentences (embedded benchmark)."""
