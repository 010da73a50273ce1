"""Scorers that look at the text alone: distinct bigrams, repeated 4-grams, length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextStatistic:
    """A statistic of one answer's words (split at white space)."""

    name: str
    description: str
    higher_is_better: bool
    facts: tuple[str, ...] = ()

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        words = text.lower().split()
        if self.name == "words":
            return float(len(words))
        size = 2 if self.name == "distinct_2" else 4
        grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
        distinct = len(set(grams)) / len(grams) if grams else 1.0
        return distinct if self.name == "distinct_2" else 1 - distinct


DISTINCT_2 = TextStatistic("distinct_2", "share of an answer's word pairs that are distinct", True)
REPEATED_4GRAMS = TextStatistic("repeated_4grams", "share of an answer's runs of four words that repeat", False)
WORDS = TextStatistic("words", "words in the answer", True)
