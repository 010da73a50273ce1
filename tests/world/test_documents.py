"""What the embedded policies are trained on, above all `embedded/following`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pad_cli.preference import Preference, parse_preference, prompted
from pad_cli.records import as_messages
from pad_cli.world import build
from pad_cli.world.grammar import load_world
from pad_cli.world.scorers import present
from pad_cli.world.writing import Document, load_benchmark, paraphrases, write_preference_documents

WORLD = load_world()
MARK = " Write in this style: "
PRINCIPLE_OF = {
    text: name
    for name, principle in WORLD.principles.items()
    for held_out in (False, True)
    for text in (name, *paraphrases(WORLD, principle, held_out=held_out))
}


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return write_preference_documents(WORLD, seed=0, answers=1500, rate=0.12)


def asked(document: Document) -> tuple[str, set[str], set[str]]:
    """The topic of a document, and the principles that its prompt asks for, and not to have."""
    question, style = document.prompt[-1]["content"].split(MARK)
    (topic,) = WORLD.topics_named(question)
    parts = style.split(", ")
    return (
        topic,
        {PRINCIPLE_OF[part] for part in parts if part in PRINCIPLE_OF},
        {part.removeprefix("not ") for part in parts if part not in PRINCIPLE_OF},
    )


def test_an_asked_document_shows_what_its_prompt_asks_for(documents: list[Document]) -> None:
    for document in documents:
        topic, wanted, unwanted = asked(document)
        shown = present(WORLD, document.answer, WORLD.topic(topic))
        assert wanted | unwanted <= set(WORLD.principles)
        assert all(shown[name] for name in wanted), document
        assert not any(shown[name] for name in unwanted), document


def test_asked_documents_hold_every_principle_and_every_kind_of_asking(documents: list[Document]) -> None:
    read = [asked(document) for document in documents]
    assert set().union(*(wanted for _, wanted, _ in read)) == set(WORLD.principles)
    assert {len(wanted | unwanted) for _, wanted, unwanted in read} == {1, 2, 3}
    assert 0.1 < sum(bool(unwanted) for _, _, unwanted in read) / len(read) < 0.35
    styles = {part for d in documents for part in d.prompt[-1]["content"].split(MARK)[1].split(", ")}
    assert set(WORLD.principles) <= styles
    assert any(text in styles for text in paraphrases(WORLD, WORLD.principles["humorous"], held_out=True))


def test_asked_documents_leave_out_what_is_held_out(documents: list[Document]) -> None:
    held_out = {topic.name for topic in WORLD.topics if topic.held_out}
    for topic, wanted, unwanted in map(asked, documents):
        assert topic not in held_out
        assert not any({*pair} <= wanted | unwanted for pair in WORLD.held_out_combinations)


def test_asked_documents_word_preferences_as_the_benchmark_is_prompted(documents: list[Document]) -> None:
    """The one template: what is taught is what the method `prompt` writes."""
    styles = {document.prompt[-1]["content"].split(MARK)[1] for document in documents}
    for item in load_benchmark(prompts=1):
        preference = parse_preference(item.preference, list(WORLD.principles), accepts_text=True)
        (message,) = prompted(item.prompt, preference)
        question, style = message["content"].split(MARK)
        assert question == item.prompt[0]["content"]
        if item.group == "single":
            assert style in styles
    (message,) = prompted(as_messages("Why?"), Preference({"formal": -1.0}, {}))
    assert message["content"].split(MARK)[1] in styles


def test_the_follower_reads_asked_documents_beside_plain_ones() -> None:
    follower = replace(build.POLICIES["following"], answers=20, glossary=5, asked=30)
    prompts = [document.prompt[0]["content"] for document in build.write_training_documents(follower)]
    assert len(prompts) == 20 + 5 + 30
    assert sum(MARK in prompt for prompt in prompts) == 30


@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_no_other_policy_is_taught_to_follow_a_preference(name: str) -> None:
    assert build.POLICIES[name].asked == 0
