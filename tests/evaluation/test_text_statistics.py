"""Statistics of an answer's words, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import Answer, load_scorer
from pad_cli.evaluation.scorers.text_statistics import DISTINCT_2, REPEATED_4GRAMS, WORDS
from pad_cli.recipe import ScorerSettings
from pad_cli.records import BenchmarkItem, as_messages


@pytest.mark.parametrize(
    ("text", "words", "distinct", "repeated"),
    [
        ("", 0.0, 1.0, 0.0),
        ("one", 1.0, 1.0, 0.0),
        ("one two", 2.0, 1.0, 0.0),
        ("a b a b", 4.0, 2 / 3, 0.0),  # pairs ab, ba, ab
        ("a a a a a", 5.0, 1 / 4, 1 / 2),  # four pairs aa; two runs of four, both aaaa
        ("a b c d a b c d", 8.0, 4 / 7, 1 / 5),  # pairs ab bc cd da ab bc cd; runs abcd bcda cdab dabc abcd
        ("A  b\na B", 4.0, 2 / 3, 0.0),  # case and white space do not count
    ],
)
def test_statistics_are_those_counted_by_hand(text: str, words: float, distinct: float, repeated: float) -> None:
    assert WORDS(text, {}) == words
    assert DISTINCT_2(text, {}) == pytest.approx(distinct)
    assert REPEATED_4GRAMS(text, {}) == pytest.approx(repeated)


def test_fewer_repeats_are_better() -> None:
    assert not REPEATED_4GRAMS.higher_is_better
    assert DISTINCT_2.higher_is_better


def value_of(name: str, text: str, options: dict[str, Any]) -> float:
    item = BenchmarkItem("1", "single", "x", as_messages("Hi"), ("x",))
    scorer = load_scorer(ScorerSettings(scorer=name, options=options))
    return scorer.score([Answer(item, text)], None)[0].value


@pytest.mark.parametrize(
    ("text", "n", "distinct"),
    [("a b a b", 1, 1 / 2), ("a b a b a", 2, 2 / 4), ("a b c a b c", 3, 3 / 4), ("a b", 3, 1.0), ("", 1, 1.0)],
)
def test_the_length_of_runs_is_an_option(text: str, n: int, distinct: float) -> None:
    assert value_of("distinct_n", text, {"n": n}) == pytest.approx(distinct)
    assert value_of("repeated_ngrams", text, {"n": n}) == pytest.approx(1 - distinct)


def test_the_named_ones_are_those_of_two_and_four() -> None:
    text = "a b c d a b c d e a b"
    assert value_of("distinct_n", text, {"n": 2}) == value_of("distinct_2", text, {}) < 1
    assert value_of("repeated_ngrams", text, {"n": 4}) == value_of("repeated_4grams", text, {}) > 0


def test_runs_of_other_lengths_are_scored_anew() -> None:
    keys = [load_scorer(ScorerSettings(scorer="distinct_n", options={"n": n})).key(None) for n in (2, 3)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("options", [{}, {"n": 0}, {"n": "two"}, {"m": 2}])
def test_a_wrong_length_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="options of 'distinct_n'"):
        load_scorer(ScorerSettings(scorer="distinct_n", options=options))
