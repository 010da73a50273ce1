"""What is written in the embedded world: prompts and answers, the documents of its models, its pairs and its benchmark.

The language models read answered prompts, and a glossary: instructions to write in some style, answered by one sentence
in that style. It stands for a pretrained model's general reading: the model knows what "jokey" means, but not how to
follow a preference when it answers a question. Preference documents, for `embedded/following` alone, teach just that.

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
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from pad_cli.errors import DataError, did_you_mean
from pad_cli.preference import Preference, instruction, prompted
from pad_cli.records import BenchmarkItem, Messages, PairData, PairSplit, PreferencePair, as_messages
from pad_cli.world.grammar import Intent, Principle, Register, Topic, World, load_world
from pad_cli.world.scorers import present

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
_VALIDATION_PAIRS = 400
_TRIES = 200
_NEGATIVE = 0.12  # how often a preference asks for the absence of a principle
_NAMED = 0.5  # how often it names a principle, instead of paraphrasing it
_HELD_OUT = 0.5  # how often its paraphrase is one that the reward model never sees in training

Draw = Callable[[random.Random], dict[str, float]]


class Document(NamedTuple):
    """A text that a language model is trained on."""

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
    risky = topic.risky and {"helpful", "harmless"} <= names
    return not (world.conflicting(set(names)) or risky or ("concise" in names and len(names) > 2))


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
    documents += [_glossary(rng, world) for _ in range(glossary)]
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
        weights = draw_preference(rng, world, topic)
        names = {name for name, weight in weights.items() if weight > 0}
        for name in sorted(draw_principles(rng, world, topic, rate) - weights.keys()):
            if fit_together(world, topic, {*names, name}):
                names.add(name)
        prompt = as_messages(write_prompt(rng, topic, intent))
        preference = _draw_wording(rng, world, weights)
        documents.append(Document(prompted(prompt, preference), write_answer(rng, world, topic, intent, names)))
    return documents


def _draw_wording(rng: random.Random, world: World, weights: Mapping[str, float]) -> Preference:
    """A preference for some principles, by name or paraphrase, and against others, by name."""
    positive = [name for name, weight in weights.items() if weight > 0]
    named = [name for name in positive if rng.random() < _NAMED]
    texts = []
    for name in positive:
        if name not in named:
            held_out = rng.random() < _HELD_OUT
            texts.append(rng.choice(paraphrases(world, world.principles[name], held_out=held_out)))
    unwanted = sorted(weights.keys() - set(positive))
    return Preference({**dict.fromkeys(named, 1.0), **dict.fromkeys(unwanted, -1.0)}, dict.fromkeys(texts, 1.0))


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


def load_pairs(*, seed: int = 0, prompts: int = 2000) -> PairData:
    """Training pairs, two for each prompt, and the four validation splits."""
    world = load_world()
    trained = [world.principles[name] for name in world.trained_principles]
    known, new = ([topic for topic in world.topics if topic.held_out is held_out] for held_out in (False, True))

    def write(
        number: int, topics: Sequence[Topic], draw: Draw, count: int = _VALIDATION_PAIRS
    ) -> tuple[PreferencePair, ...]:
        return tuple(_pairs(random.Random(1000 * seed + number), world, topics, draw, count))

    def seen(rng: random.Random) -> dict[str, float]:
        return draw_preference(rng, world)

    def combination(rng: random.Random) -> dict[str, float]:
        return dict.fromkeys(rng.choice(world.held_out_combinations), 1.0)

    def single(rng: random.Random) -> dict[str, float]:
        return {rng.choice(trained).name: 1.0}

    held_out_texts = {each.name: paraphrases(world, each, held_out=True) for each in trained}
    return PairData(
        train=write(1, known, seen, 2 * prompts),
        validation=(
            PairSplit("seen", write(2, known, seen)),
            PairSplit("held_out_topics", write(3, new, seen)),
            PairSplit("held_out_combinations", write(4, new, combination)),
            PairSplit("held_out_wordings", write(5, new, single), held_out_texts),
        ),
        texts={each.name: paraphrases(world, each, held_out=False) for each in trained},
    )


def draw_preference(rng: random.Random, world: World, topic: Topic | None = None) -> dict[str, float]:
    """Weights 1 or -1 of one to three principles, never of a held-out combination, never for principles in conflict.

    They are trained principles, or, where a topic is given, any that one answer about it can show.
    """
    names = world.trained_principles if topic is None else tuple(world.principles)
    held_out = {frozenset(pair) for pair in world.held_out_combinations}
    while True:
        drawn = rng.sample(names, rng.choices([1, 2, 3], weights=[5, 4, 1])[0])
        weights = {name: -1.0 if rng.random() < _NEGATIVE else 1.0 for name in drawn}
        positive = {name for name, weight in weights.items() if weight > 0}
        possible = not world.conflicting(positive) if topic is None else fit_together(world, topic, positive)
        if possible and not any(pair <= weights.keys() for pair in held_out):
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
            for weights in (draw(rng) for _ in range(_TRIES)):
                if sign * sum(weight * (first[name] - second[name]) for name, weight in weights.items()) > 0:
                    chosen, rejected = answers[::sign]
                    pairs.append(PreferencePair(prompt, weights, chosen, rejected))
                    break
    return pairs[:count]


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
    known = (*GROUPS, _TRIPLE)
    for group in groups:
        if group not in known:
            raise DataError(f"the benchmark 'embedded' has no group '{group}'", hint=did_you_mean(group, known))
    world, rng = load_world(), random.Random(seed)
    topics = [topic for topic in world.topics if topic.held_out]
    prompts_of = [prompt for intent in world.intents for prompt in intent.prompts]
    questions = [(prompt.format(**topic.slots), topic.name) for topic in topics for prompt in prompts_of]
    rng.shuffle(questions)
    items: list[BenchmarkItem] = []

    def add(group: str, label: str, names: Sequence[str], specs: Sequence[str], count: int) -> None:
        for number, (prompt, topic) in enumerate(questions[:count]):
            preference = (specs[number % len(specs)],) if group in ("paraphrase", "untrained") else tuple(specs)
            facts, name = {"topic": topic, "asked": list(names)}, f"{group}/{label}/{number}"
            items.append(BenchmarkItem(name, group, label, as_messages(prompt), preference, facts))

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
