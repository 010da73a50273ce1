"""What the embedded world trains and asks: preference pairs, documents, and its benchmark."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.records import BenchmarkItem, PairData, PreferencePair
from pad_cli.world import writing as world_data
from pad_cli.world.grammar import load_world
from pad_cli.world.scorers import present
from pad_cli.world.writing import draw_preference, paraphrases, write_documents

WORLD = load_world()
TRAINED = set(WORLD.trained_principles)
HELD_OUT_TOPICS = {topic.name for topic in WORLD.topics if topic.held_out}
HELD_OUT_COMBINATIONS = [set(pair) for pair in WORLD.held_out_combinations]


@pytest.fixture(scope="module")
def data() -> PairData:
    return world_data.load_pairs(seed=0, prompts=500)


@pytest.fixture(scope="module")
def items() -> list[BenchmarkItem]:
    return world_data.load_benchmark()


def split(data: PairData, name: str) -> tuple[PreferencePair, ...]:
    return next(part.pairs for part in data.validation if part.name == name)


def topics_of(pairs: tuple[PreferencePair, ...]) -> set[str]:
    return {name for pair in pairs for name in WORLD.topics_named(pair.prompt[-1]["content"])}


def utility(pair: PreferencePair, answer: str) -> float:
    (topic,) = topics_of((pair,))
    shown = present(WORLD, answer, WORLD.topic(topic))
    return sum(weight * shown[name] for name, weight in pair.preference.items())


def test_the_pairs_come_in_the_documented_numbers_and_splits(data: PairData) -> None:
    assert len(data.train) == 1000
    assert {part.name: len(part.pairs) for part in data.validation} == dict.fromkeys(
        ("seen", "held_out_topics", "held_out_combinations", "held_out_wordings"), 400
    )


def test_the_chosen_answer_is_strictly_better_under_its_preference(data: PairData) -> None:
    for pair in [*data.train, *(pair for part in data.validation for pair in part.pairs)]:
        assert utility(pair, pair.chosen) > utility(pair, pair.rejected)


def test_held_out_topics_are_never_trained_on(data: PairData) -> None:
    trained = topics_of(data.train)
    assert trained == {topic.name for topic in WORLD.topics} - HELD_OUT_TOPICS
    for pair in data.train:
        assert not WORLD.topics_named(f"{pair.chosen} {pair.rejected}") & HELD_OUT_TOPICS
    assert topics_of(split(data, "seen")) <= trained
    for name in ("held_out_topics", "held_out_combinations", "held_out_wordings"):
        assert topics_of(split(data, name)) == HELD_OUT_TOPICS


def test_held_out_combinations_and_the_untrained_principle_are_never_asked_for_in_training(data: PairData) -> None:
    for pair in [*data.train, *split(data, "seen"), *split(data, "held_out_topics")]:
        assert set(pair.preference) <= TRAINED
        assert not [held_out for held_out in HELD_OUT_COMBINATIONS if held_out <= set(pair.preference)]
    asked = {frozenset(pair.preference) for pair in split(data, "held_out_combinations")}
    assert asked == set(map(frozenset, HELD_OUT_COMBINATIONS))


@given(st.integers(0, 2**32))
def test_a_drawn_preference_is_one_that_training_may_see(seed: int) -> None:
    preference = draw_preference(random.Random(seed), WORLD)
    assert 1 <= len(preference) <= 3
    assert set(preference) <= TRAINED
    assert set(preference.values()) <= {1.0, -1.0}
    assert not WORLD.conflicting({name for name, weight in preference.items() if weight > 0})
    assert not [held_out for held_out in HELD_OUT_COMBINATIONS if held_out <= set(preference)]


def test_training_asks_for_every_principle_and_for_absence_too(data: PairData) -> None:
    asked = Counter(name for pair in data.train for name in pair.preference)
    unwanted = Counter(name for pair in data.train for name, weight in pair.preference.items() if weight < 0)
    assert set(asked) == set(unwanted) == TRAINED
    assert min(asked.values()) > 20


def test_only_the_preference_decides_which_answer_is_chosen(data: PairData) -> None:
    """The same two answers come under two preferences that disagree; seldom is no such preference found."""
    sides = defaultdict(set)
    for pair in data.train:
        sides[pair.prompt[-1]["content"], frozenset((pair.chosen, pair.rejected))].add(pair.chosen)
    contrasted = sum(len(chosen) == 2 for chosen in sides.values())
    assert contrasted > 0.95 * len(sides)


def test_training_wordings_never_ask_in_a_held_out_word_or_template(data: PairData) -> None:
    held_out_words = {word for principle in WORLD.principles.values() for word in principle.held_out_words}
    trained = {text for texts in data.texts.values() for text in texts}
    asked = {text for part in data.validation for texts in part.texts.values() for text in texts}
    assert set(data.texts) == TRAINED
    assert asked
    assert not asked & trained
    assert not [text for text in trained if held_out_words & set(text.split())]


def test_a_wording_asks_for_one_principle_only() -> None:
    for held_out in (False, True):
        every = [text for p in WORLD.principles.values() for text in paraphrases(WORLD, p, held_out=held_out)]
        assert len(set(every)) == len(every)


def test_pairs_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    first, again, other = (world_data.load_pairs(seed=seed, prompts=20) for seed in (3, 3, 4))
    assert first == again
    assert first.train != other.train
    assert first.validation != other.validation


def test_documents_answer_about_every_topic_and_explain_every_word() -> None:
    documents = write_documents(WORLD, seed=0, answers=2000, glossary=3000, rate=0.1)
    assert len(documents) == 5000
    prompts = " ".join(document.prompt[0]["content"] for document in documents)
    assert WORLD.topics_named(prompts) == {topic.name for topic in WORLD.topics}
    for principle in WORLD.principles.values():
        assert all(word in prompts for word in (*principle.words, *principle.held_out_words))
    assert documents == write_documents(WORLD, seed=0, answers=2000, glossary=3000, rate=0.1)


def test_a_glossary_sentence_shows_the_principle_that_its_wording_asks_for() -> None:
    word_of = {w: p.name for p in WORLD.principles.values() for w in (*p.words, *p.held_out_words)}
    for document in write_documents(WORLD, seed=1, answers=0, glossary=300, rate=0.1):
        words = document.prompt[0]["content"].split(":", 1)[1].split()
        (principle,) = {word_of[word] for word in words if word in word_of}
        shown = present(WORLD, document.answer, WORLD.topics[0])
        assert [name for name, there in shown.items() if there] == [principle]


def test_the_benchmark_asks_each_preference_on_200_prompts(items: list[BenchmarkItem]) -> None:
    counts = Counter((item.group, item.label) for item in items)
    assert set(counts) == {
        *(("single", name) for name in TRAINED),
        *(("combination", "+".join(pair)) for pair in WORLD.held_out_combinations),
        *(("paraphrase", name) for name in TRAINED),
        ("untrained", "inquisitive"),
        *(("cross-policy", name) for name in TRAINED),
    }
    assert {n for (group, _), n in counts.items() if group != "cross-policy"} == {200}
    assert {n for (group, _), n in counts.items() if group == "cross-policy"} == {40}


def test_benchmark_items_have_unique_stable_ids(items: list[BenchmarkItem]) -> None:
    assert len({item.id for item in items}) == len(items)
    assert world_data.load_benchmark() == items
    assert world_data.load_benchmark(seed=1) != items


def test_the_benchmark_asks_about_held_out_topics_only(items: list[BenchmarkItem]) -> None:
    for item in items:
        assert WORLD.topics_named(item.prompt[-1]["content"]) == {item.facts["topic"]}
        assert item.facts["topic"] in HELD_OUT_TOPICS


def test_no_prompt_is_asked_twice_under_one_preference(items: list[BenchmarkItem]) -> None:
    prompts = defaultdict(list)
    for item in items:
        prompts[item.group, item.label].append(item.prompt[-1]["content"])
    for asked in prompts.values():
        assert len(set(asked)) == len(asked)


def test_the_benchmark_words_preferences_as_each_group_says(items: list[BenchmarkItem], data: PairData) -> None:
    trained = {text for texts in data.texts.values() for text in texts}
    for item in items:
        asked = item.facts["asked"]
        if item.group in ("single", "cross-policy", "combination"):
            assert list(item.preference) == asked
            assert len(asked) == (2 if item.group == "combination" else 1)
        else:
            (spec,) = item.preference
            assert spec.startswith("text:")
            assert asked == [item.label]
            if item.group == "paraphrase":
                assert spec.removeprefix("text:") not in trained
