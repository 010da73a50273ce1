"""What the embedded language models read: answered prompts, and a glossary of what style words mean.

A glossary document is an instruction to write in some style, answered by one sentence in that style. It plays the part
of a pretrained model's general reading: the model knows what "jokey" means, yet nobody has taught it to follow a user's
wish when it answers a question.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pad_cli.preference import instruction
from pad_cli.records import Messages, as_messages
from pad_cli.world.grammar import Principle, World
from pad_cli.world.text import draw_principles, write_answer, write_prompt


@dataclass(frozen=True)
class Document:
    prompt: Messages
    answer: str


def wordings(world: World, principle: Principle, *, held_out: bool) -> tuple[str, ...]:
    """Ways to ask for a principle: its words in the templates.

    With `held_out`, only wordings whose word or template the reward model never saw in training.
    """
    known = [template.format(word=word) for template in world.templates for word in principle.words]
    if not held_out:
        return tuple(known)
    words, templates = (*principle.words, *principle.held_out_words), (*world.templates, *world.held_out_templates)
    every = [template.format(word=word) for template in templates for word in words]
    return tuple(text for text in every if text not in set(known))


def write_documents(world: World, *, seed: int, answers: int, glossary: int, rate: float) -> list[Document]:
    """Documents for one language model, in random order.

    Args:
        seed: of the random choices.
        answers: how many answered prompts.
        glossary: how many glossary documents.
        rate: how often each principle shows in an answer, by chance.
    """
    rng = random.Random(seed)
    documents = []
    for _ in range(answers):
        topic, intent = rng.choice(world.topics), rng.choice(world.intents)
        prompt = write_prompt(rng, topic, intent)
        shown = draw_principles(rng, world, topic, rate)
        documents.append(Document(as_messages(prompt), write_answer(rng, world, topic, intent, shown)))
    for _ in range(glossary):
        documents.append(_glossary(rng, world))
    rng.shuffle(documents)
    return documents


def _glossary(rng: random.Random, world: World) -> Document:
    principle = rng.choice(list(world.principles.values()))
    word = rng.choice((*principle.words, *principle.held_out_words))
    wording = rng.choice((*world.templates, *world.held_out_templates)).format(word=word)
    topic, intent = rng.choice(world.topics), rng.choice(world.intents)
    if principle.place == "core":
        sentence = write_answer(rng, world, topic, intent, {principle.name})
    else:
        sentence = rng.choice(principle.sentences).format(**topic.slots)
    return Document(as_messages(instruction(wording)), sentence[:1].upper() + sentence[1:])
