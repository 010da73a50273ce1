"""Scorers that look at the text alone: distinct and repeated runs of words, length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from pad_cli.evaluation.contract import Scorer
from pad_cli.evaluation.scoring import TextScorer
from pad_cli.recipe import Settings, read_options


class _Size(Settings):
    n: int = Field(ge=1, description="Words in a run.")


@dataclass(frozen=True)
class Runs:
    """Runs of n words of one answer (split at white space, in lower case): how many of them are distinct, or repeat."""

    name: str
    description: str
    n: int
    higher_is_better: bool
    dimension: str

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        words = text.lower().split()
        runs = [tuple(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]
        distinct = len(set(runs)) / len(runs) if runs else 1.0
        return distinct if self.higher_is_better else 1 - distinct


@dataclass(frozen=True)
class Length:
    """The number of one answer's words (split at white space)."""

    name: str = "words"
    description: str = "words in the answer"
    higher_is_better: bool = True
    dimension: str = "length"
    unit: str = "words"

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        return float(len(text.split()))


def distinct_n(**options: Any) -> Scorer:
    """The share of an answer's runs of n words that are distinct.

    Args:
        options: `n`.

    Raises:
        RecipeError: an option is wrong.
    """
    return TextScorer(_distinct("distinct_n", _size("distinct_n", options)))


def repeated_ngrams(**options: Any) -> Scorer:
    """The share of an answer's runs of n words that repeat an earlier one.

    Args:
        options: `n`.

    Raises:
        RecipeError: an option is wrong.
    """
    return TextScorer(_repeated("repeated_ngrams", _size("repeated_ngrams", options)))


def _size(name: str, options: Mapping[str, Any]) -> int:
    where = f"scorers: options of '{name}'"
    return read_options(_Size, options, where, f"For example: {{scorer: {name}, options: {{n: 3}}}}").n


def _distinct(name: str, n: int) -> Runs:
    return Runs(name, f"share of an answer's runs of {n} words that are distinct", n, True, "diversity")


def _repeated(name: str, n: int) -> Runs:
    return Runs(name, f"share of an answer's runs of {n} words that repeat", n, False, "repetition")


DISTINCT_2 = _distinct("distinct_2", 2)
"""The share of an answer's pairs of words that are distinct."""

REPEATED_4GRAMS = _repeated("repeated_4grams", 4)
"""The share of an answer's runs of 4 words that repeat an earlier one."""

WORDS = Length()
"""The number of an answer's words."""
