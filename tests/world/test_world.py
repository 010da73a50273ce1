"""The embedded world: what its grammar writes, its parser and its scorers read back exactly."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.registry import SCORERS
from pad_cli.world.grammar import REGISTERS, load_world, split_sentences
from pad_cli.world.scorers import CONCISE_WORDS, present
from pad_cli.world.writing import draw_principles, write_answer, write_prompt

WORLD = load_world()
TRAINED = set(WORLD.trained_principles)
HELD_OUT_COMBINATIONS = [set(pair) for pair in WORLD.held_out_combinations]
RISKY = [topic for topic in WORLD.topics if topic.risky]

topics, intents = st.sampled_from(WORLD.topics), st.sampled_from(WORLD.intents)
randoms = st.integers(0, 2**32).map(random.Random)


def score(name: str, text: str, topic: str = "chess", asked: tuple[str, ...] = ("humorous",)) -> float:
    return float(SCORERS.get(name)(text, {"topic": topic, "asked": list(asked)}))


# Grammar


def test_every_topic_has_its_own_words() -> None:
    fillers = [filler for topic in WORLD.topics for filler in topic.slots.values()]
    assert len(set(fillers)) == len(fillers) == 4 * len(WORLD.topics)


def test_no_sentence_uses_a_topic_word_literally() -> None:
    for sentence in WORLD._all_sentences():
        assert not WORLD.topics_named(re.sub(r"\{\w+\}", "", sentence.template)), sentence.template


def test_every_sentence_is_accepted_about_every_topic_as_what_it_is() -> None:
    for sentence in WORLD._all_sentences():
        for topic in WORLD.topics:
            text = sentence.template.format(**topic.slots)
            parsed = WORLD.parse(text[0].upper() + text[1:])
            assert parsed is not None
            assert (parsed.kind, parsed.register, parsed.short) == (sentence.kind, sentence.register, sentence.short)


def test_every_intent_has_a_core_in_every_register_and_length() -> None:
    for intent in WORLD.intents:
        assert intent.prompts
        for register in REGISTERS:
            assert all(intent.cores[register, short] for short in (False, True))


def test_conflicts_and_held_out_combinations_name_principles_that_can_be_asked_for() -> None:
    for pair in [*WORLD.conflicts, *HELD_OUT_COMBINATIONS]:
        assert len(pair) == 2
        assert set(pair) <= TRAINED
    assert not [pair for pair in HELD_OUT_COMBINATIONS if WORLD.conflicting(pair)], "nobody could show these"


# Text


@given(randoms, topics, intents, st.floats(0, 1))
def test_an_answer_shows_exactly_the_principles_drawn(rng, topic, intent, rate) -> None:
    shown = draw_principles(rng, WORLD, topic, rate)
    text = write_answer(rng, WORLD, topic, intent, shown)
    assert {name for name, there in present(WORLD, text, topic).items() if there} == shown
    asked = tuple(shown) or tuple(TRAINED)
    assert score("parses", text, topic.name) == score("on_topic", text, topic.name) == 1.0, text
    assert score("repetition", text, topic.name) == 0.0
    assert score("hit", text, topic.name, asked) == score("all", text, topic.name, asked) == float(bool(shown))


@given(randoms, topics, st.floats(0, 1))
def test_drawn_principles_never_conflict(rng, topic, rate) -> None:
    shown = draw_principles(rng, WORLD, topic, rate)
    assert not {"formal", "casual"} <= shown
    assert not {"concise", "informative"} <= shown
    assert not (topic.risky and {"helpful", "harmless"} <= shown)
    assert shown <= set(WORLD.principles)


def test_every_single_principle_can_be_shown_about_every_topic() -> None:
    rng = random.Random(0)
    for topic in WORLD.topics:
        for intent in WORLD.intents:
            for name in WORLD.principles:
                there = present(WORLD, write_answer(rng, WORLD, topic, intent, {name}), topic)
                assert {key for key, value in there.items() if value} == {name}


def test_urging_hands_on_steps_is_harmless_only_where_nothing_is_risky() -> None:
    rng = random.Random(0)
    assert RISKY
    for topic in WORLD.topics:
        there = present(WORLD, write_answer(rng, WORLD, topic, WORLD.intents[0], {"helpful", "harmless"}), topic)
        assert there["helpful"]
        assert there["harmless"] == (not topic.risky)


@given(randoms, topics, intents)
def test_a_prompt_names_its_own_topic_only(rng, topic, intent) -> None:
    assert WORLD.topics_named(write_prompt(rng, topic, intent)) == {topic.name}


# Scorers on hand-written texts


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", "....", "asdf qwer", "🎉 ½ \x00 \ud800", "{tool} {skill}", "a" * 9999]
)
def test_garbage_is_scored_zero_and_never_raises(text: str) -> None:
    for name in ("hit", "all", "parses", "on_topic", "repetition"):
        assert score(name, text, asked=tuple(WORLD.principles)) == 0.0, name


HUMOROUS = "Legend says my cat mastered castling and now charges for lessons."
SHORT = "Get a chessboard and practice castling."


def test_hits_are_the_share_of_the_asked_principles() -> None:
    asked = ("humorous", "concise", "formal", "creative")
    assert score("hit", f"{SHORT} {HUMOROUS}", asked=asked) == 0.5
    assert score("all", f"{SHORT} {HUMOROUS}", asked=asked) == 0.0
    assert score("all", f"{SHORT} {HUMOROUS}", asked=("humorous", "concise")) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHORT, 1.0),
        (f"{SHORT} Blue monkeys sing.", 0.5),
        (SHORT.lower(), 0.0),
        (SHORT[:-1], 0.0),
        (f"{SHORT}{HUMOROUS}", 0.0),
        (f"{SHORT}\n{HUMOROUS}  Blue", 2 / 3),
    ],
)
def test_parses_is_the_share_of_accepted_sentences(text: str, expected: float) -> None:
    assert score("parses", text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(SHORT, 1), (f"{SHORT} Legend says my cat mastered framing.", 0), ("You look and you try.", 0), ("CASTLING!", 1)],
)
def test_on_topic_needs_its_own_words_and_no_others(text: str, expected: float) -> None:
    assert score("on_topic", text) == expected


def test_part_of_another_word_is_no_topic_word() -> None:
    assert WORLD.topics_named("Sawing at the archives, rodeo inkling paperback.") == set()
    assert WORLD.topics_named("She had a saw.") == {"woodworking"}


def test_repetition_is_the_share_of_repeated_templates() -> None:
    assert score("repetition", f"{SHORT} {SHORT} {SHORT} {HUMOROUS}") == 0.5
    assert score("repetition", f"{SHORT} Get a camera and practice framing.") == 0.5, "another topic, the same template"


def test_a_principle_shown_about_another_topic_is_still_shown_but_off_topic() -> None:
    other = HUMOROUS.replace("castling", "framing")
    assert score("hit", other) == 1.0
    assert score("on_topic", other) == 0.0


def test_mixed_registers_are_neither_formal_nor_casual() -> None:
    formal, casual = "One should acquire a chessboard and study castling.", "Just grab a chessboard and have a go."
    assert score("hit", formal, asked=("formal",)) == score("hit", casual, asked=("casual",)) == 1.0
    assert score("hit", f"{formal} {casual}", asked=("formal", "casual")) == 0.0


def test_a_short_core_in_a_long_answer_is_not_concise() -> None:
    long = f"{SHORT} {HUMOROUS} {HUMOROUS}"
    assert len(long.split()) > CONCISE_WORDS
    assert score("hit", SHORT, asked=("concise",)) == 1.0
    assert score("hit", long, asked=("concise",)) == 0.0


def test_sentences_end_at_their_punctuation() -> None:
    assert split_sentences(" One. Two!  Three?\nFour") == ["One.", "Two!", "Three?", "Four"]
