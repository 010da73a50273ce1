"""Statistics of an answer's words, counted by hand."""

from __future__ import annotations

import pytest

from pad_cli.evaluation.scorers.text_statistics import DISTINCT_2, REPEATED_4GRAMS, WORDS


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
