"""Writing in the embedded world: prompts, answers that show a set of principles, and what its language models read.

Those models read answered prompts, and a glossary of what style words mean. A glossary document is an instruction to
write in some style, answered by one sentence in that style. It plays the part of a pretrained model's general reading:
the model knows what "jokey" means, but was never taught to follow a user's preference when it answers a question.

Preference documents teach just that: the prompt holds a preference in the words of the one template, and the answer
shows the principles it names. They are for `embedded/following` alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass

from pad_cli.preference import Preference, instruction, prompted
from pad_cli.records import Messages, as_messages
from pad_cli.world.grammar import Intent, Principle, Register, Topic, World

_NEGATIVE = 0.12  # how often a preference asks for the absence of a principle
_NAMED = 0.5  # how often it names a principle, instead of paraphrasing it
_HELD_OUT = 0.5  # how often its paraphrase is one that the reward model never sees in training


@dataclass(frozen=True)
class Document:
    prompt: Messages
    answer: str


def write_prompt(rng: random.Random, topic: Topic, intent: Intent) -> str:
    return rng.choice(intent.prompts).format(**topic.slots)


def write_answer(rng: random.Random, world: World, topic: Topic, intent: Intent, names: Set[str]) -> str:
    """An answer in which exactly the named principles are present.

    Openers come first, then the core sentence, then closers, each group in random order.
    """
    register: Register = "formal" if "formal" in names else "casual" if "casual" in names else "neutral"
    core = rng.choice(intent.cores[register, "concise" in names])
    openers: list[str] = []
    closers: list[str] = []
    for name in sorted(names):
        principle = world.principles[name]
        if principle.place != "core":
            (openers if principle.place == "opener" else closers).append(rng.choice(principle.sentences))
    rng.shuffle(openers)
    rng.shuffle(closers)
    return " ".join(_capital(part.format(**topic.slots)) for part in [*openers, core, *closers])


def draw_principles(rng: random.Random, world: World, topic: Topic, rate: float) -> frozenset[str]:
    """A set of principles that one answer can show together.

    Each is drawn with probability `rate`; those that live in the core sentence, where they crowd each other out, a
    third more often.
    """
    names = {
        name
        for name, principle in world.principles.items()
        if rng.random() < (rate * 4 / 3 if principle.place == "core" else rate)
    }
    for pair in sorted(map(sorted, world.conflicts)):
        if set(pair) <= names:
            names.discard(rng.choice(pair))
    if topic.risky and {"helpful", "harmless"} <= names:
        names.discard(rng.choice(["helpful", "harmless"]))
    if "concise" in names and len(names) > 2:
        names.discard("concise")
    return frozenset(names)


def fit_together(world: World, topic: Topic, names: Set[str]) -> bool:
    """Can one answer about the topic show all these principles?"""
    if world.conflicting(set(names)) or (topic.risky and {"helpful", "harmless"} <= names):
        return False
    return not ("concise" in names and len(names) > 2)


def paraphrases(world: World, principle: Principle, *, held_out: bool) -> tuple[str, ...]:
    """Ways to ask for a principle: its words in the templates.

    With `held_out`, only those whose word or template the reward model never saw in training.
    """
    trained = [template.format(word=word) for template in world.templates for word in principle.words]
    if not held_out:
        return tuple(trained)
    words, templates = (*principle.words, *principle.held_out_words), (*world.templates, *world.held_out_templates)
    every = [template.format(word=word) for template in templates for word in words]
    return tuple(text for text in every if text not in set(trained))


def write_documents(world: World, *, seed: int, answers: int, glossary: int, rate: float) -> list[Document]:
    """Answered prompts and glossary documents for one language model, in random order.

    `rate` is the probability of each principle in an answer.
    """
    rng = random.Random(seed)
    documents = []
    for _ in range(answers):
        topic, intent = rng.choice(world.topics), rng.choice(world.intents)
        prompt = write_prompt(rng, topic, intent)
        names = draw_principles(rng, world, topic, rate)
        documents.append(Document(as_messages(prompt), write_answer(rng, world, topic, intent, names)))
    for _ in range(glossary):
        documents.append(_glossary(rng, world))
    rng.shuffle(documents)
    return documents


def write_preference_documents(world: World, *, seed: int, answers: int, rate: float) -> list[Document]:
    """Documents for a language model that follows preferences, in random order.

    They ask for one to three principles, by name or in any paraphrase, and now and then for the absence of one. As in
    preference pairs, topics and combinations that are held out do not occur.
    """
    rng = random.Random(seed)
    topics = [topic for topic in world.topics if not topic.held_out]
    documents = []
    for _ in range(answers):
        topic, intent = rng.choice(topics), rng.choice(world.intents)
        positive, negative = _draw_request(rng, world, topic)
        names = set(positive)
        for name in sorted(draw_principles(rng, world, topic, rate) - negative):
            if fit_together(world, topic, {*names, name}):
                names.add(name)
        prompt = as_messages(write_prompt(rng, topic, intent))
        preference = _draw_wording(rng, world, positive, negative)
        documents.append(Document(prompted(prompt, preference), write_answer(rng, world, topic, intent, names)))
    return documents


def _draw_request(rng: random.Random, world: World, topic: Topic) -> tuple[list[str], set[str]]:
    """Principles to ask for, and principles whose absence to ask for."""
    held_out = {frozenset(pair) for pair in world.held_out_combinations}
    while True:
        names = rng.sample(list(world.principles), rng.choices([1, 2, 3], weights=[5, 4, 1])[0])
        negative = {name for name in names if rng.random() < _NEGATIVE}
        positive = [name for name in names if name not in negative]
        if fit_together(world, topic, set(positive)) and not any(pair <= set(names) for pair in held_out):
            return positive, negative


def _draw_wording(rng: random.Random, world: World, positive: Sequence[str], negative: Set[str]) -> Preference:
    """A preference for some principles, by name or paraphrase, and against others, by name."""
    named = [name for name in positive if rng.random() < _NAMED]
    texts = []
    for name in positive:
        if name not in named:
            held_out = rng.random() < _HELD_OUT
            texts.append(rng.choice(paraphrases(world, world.principles[name], held_out=held_out)))
    weights = {**dict.fromkeys(named, 1.0), **dict.fromkeys(sorted(negative), -1.0)}
    return Preference(weights, dict.fromkeys(texts, 1.0))


def _glossary(rng: random.Random, world: World) -> Document:
    principle = rng.choice(list(world.principles.values()))
    word = rng.choice((*principle.words, *principle.held_out_words))
    style = rng.choice((*world.templates, *world.held_out_templates)).format(word=word)
    topic, intent = rng.choice(world.topics), rng.choice(world.intents)
    if principle.place == "core":
        sentence = write_answer(rng, world, topic, intent, {principle.name})
    else:
        sentence = rng.choice(principle.sentences).format(**topic.slots)
    return Document(as_messages(instruction(style)), _capital(sentence))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
