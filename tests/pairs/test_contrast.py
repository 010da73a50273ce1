"""Contrast pairs: made where answers were written for a preference each, and nowhere else."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.pairs.sources import SourcedPair, contrast_pairs
from pad_cli.records import PreferencePair, SourceReport, as_messages
from tests.pairs.conftest import Write, load, make_pair, texts_of

RING = [make_pair("How?", name, name.upper(), other.upper()) for name, other in ("ab", "bc", "cd", "da")]


def test_four_answers_written_for_four_preferences_give_twelve_ordered_pairs(write: Write) -> None:
    data = load(write(*RING))
    assert len(data.train) == 12
    assert set(texts_of(data)) == {("How?", a, a.upper(), b.upper()) for a, b in permutations("abcd", 2)}
    source = data.report.sources[0]
    assert (source.pairs_kept, source.contrast_pairs) == (4, 8)


def test_contrast_pairs_can_be_left_out(write: Write) -> None:
    assert len(load(write(*RING), contrast=False).train) == 4


def test_free_texts_contrast_like_names(write: Write) -> None:
    data = load(write(*RING), principles=["a", "b"])
    assert len(data.train) == 12
    assert {text for pair in data.train for text in pair.texts} == {"c", "d"}


@pytest.mark.parametrize(
    "rows",
    [
        [make_pair("How?", "a", "A", "B")],
        [make_pair("How?", "a", "A", "B"), make_pair("How?", "b", "B", "C")],
        [*RING, make_pair("How?", "c", "A", "B")],
        [make_pair("How?", "a", "A", "B"), make_pair("How?", "a", "B", "C"), make_pair("How?", "b", "C", "A")],
        [make_pair("How?", {"a": 1, "b": 1}, "A", "B"), make_pair("How?", "b", "B", "A"), RING[2], RING[3]],
        [make_pair("How?", {"a": -1}, "A", "B"), make_pair("How?", "b", "B", "A"), RING[2], RING[3]],
        [make_pair("How?", {"a": 0.5}, "A", "B"), make_pair("How?", "b", "B", "A"), RING[2], RING[3]],
        [RING[0], *({**row, "prompt": "Why?"} for row in RING[1:])],
    ],
    ids=["one", "loser not chosen", "chosen twice", "same preference", "two", "minus", "half", "other prompt"],
)
def test_answers_that_were_not_written_for_one_preference_each_give_none(write: Write, rows: list[Any]) -> None:
    data = load(write(*rows))
    assert data.report.sources[0].contrast_pairs == 0
    assert len(data.train) == len(rows)


def test_validation_splits_get_none(write: Write) -> None:
    rest = [{**row, "prompt": "Why?"} for row in RING]
    data = load(write(*rest), validation={"dev": str(write(*RING, name="dev.jsonl"))}, validation_share=0.0)
    assert (len(data.train), len(data.validation[0].pairs)) == (12, 4)
    data = load(write(*rest, *RING), validation_share=0.5)
    assert (len(data.train), data.validation[0].name, len(data.validation[0].pairs)) == (12, "held_out", 4)


def test_what_another_source_says_of_the_same_two_answers_is_not_contradicted(write: Write) -> None:
    """A third source knows better about two answers; the contrast pair that says the opposite is left out."""
    first = write(*RING, name="ring.jsonl")
    second = write(make_pair("How?", "a", "C", "A"), make_pair("How?", "b", "B", "D"), name="judge.jsonl")
    data = load([{"path": str(first)}, {"path": str(second)}])
    texts = texts_of(data)
    assert ("How?", "a", "A", "C") not in texts
    assert texts.count(("How?", "b", "B", "D")) == 1
    assert len(texts) == 12


_pairs = st.lists(
    st.tuples(st.sampled_from("xy"), st.sampled_from("pqr"), st.sampled_from("ABCD"), st.sampled_from("ABCD")).filter(
        lambda pair: pair[2] != pair[3]
    ),
    max_size=8,
    unique=True,
)


@given(_pairs, _pairs)
def test_contrast_pairs_never_repeat_or_contradict_a_given_pair_or_each_other(
    first: list[Any], second: list[Any]
) -> None:
    books = SourceReport("first", "train"), SourceReport("second", "train")
    found = [
        SourcedPair(PreferencePair(as_messages(prompt), {name: 1.0}, chosen, rejected), book)
        for book, pairs in zip(books, (first, second), strict=True)
        for prompt, name, chosen, rejected in pairs
    ]
    added = [(p.prompt[0]["content"], *p.preference, p.chosen, p.rejected) for p, _ in contrast_pairs(found)]
    given_pairs = {*first, *second}
    assert len(set(added)) == len(added)
    assert not given_pairs & set(added)
    turned = {(prompt, name, rejected, chosen) for prompt, name, chosen, rejected in added}
    assert not turned & (given_pairs | set(added))
    assert len(added) == books[0].contrast_pairs + books[1].contrast_pairs
