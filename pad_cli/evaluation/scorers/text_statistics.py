"""Scorers of the text alone: n-grams and length, and for English readability and sentiment (the extra `text`).

textstat from 0.7.9 on downloads its list of syllables when it is first used, hence the bound in the extra.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

from pad_cli.errors import PluginError
from pad_cli.evaluation.contract import Scorer, TextScorer


def _ngrams(name: str, n: int, *, repeated: bool) -> TextScorer:
    """Over the words of one answer, split at white space, in lower case."""

    def distinct(text: str) -> float:
        words = text.lower().split()
        runs = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        return len(set(runs)) / len(runs) if runs else 1.0

    return TextScorer(
        name=name,
        description=f"share of an answer's runs of {n} words that {'repeat' if repeated else 'are distinct'}",
        higher_is_better=not repeated,
        measure=lambda text, _: 1 - distinct(text) if repeated else distinct(text),
        dimension="repetition" if repeated else "diversity",
    )


DISTINCT_2 = _ngrams("distinct_2", 2, repeated=False)
"""The share of an answer's pairs of words that are distinct."""
REPEATED_4GRAMS = _ngrams("repeated_4grams", 4, repeated=True)
"""The share of an answer's runs of 4 words that repeat an earlier one."""
WORDS = TextScorer(
    name="words",
    description="words in the answer",
    measure=lambda text, _: len(text.split()),
    dimension="length",
    unit="words",
)
"""The number of an answer's words."""


def readability() -> Scorer:
    """Flesch reading ease: about 100 for very easy English, below 30 for hard; 206.8 - 1.015 words a sentence - 84.6
    syllables a word.

    Raises:
        PluginError: the extra `text` is not installed.
    """
    measure, unit = _library("textstat", "readability").flesch_reading_ease, "Flesch reading ease"
    return _of_words("readability", unit, measure, "textstat", unit)


def sentiment() -> Scorer:
    """VADER's compound sentiment, from -1 (negative) to 1 (positive); raises as `readability`."""
    scores = _library("vaderSentiment.vaderSentiment", "sentiment").SentimentIntensityAnalyzer().polarity_scores
    return _of_words("sentiment", "VADER's compound sentiment", lambda text: scores(text)["compound"], "vaderSentiment")


def _of_words(name: str, what: str, measure: Callable[[str], float], package: str, unit: str = "") -> TextScorer:
    """A statistic of answers with words; its description, a part of the key, has the library's version."""

    def of_words(text: str, _: Any) -> float:
        if not any(letter.isalnum() for letter in text):
            raise ValueError("an answer without words")
        return measure(text)

    description = f"{what} ({package} {importlib.metadata.version(package)})"
    return TextScorer(name=name, description=description, measure=of_words, dimension=name, unit=unit)


def _library(module: str, scorer: str) -> Any:
    """A library of the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = f"scorers: '{scorer}' needs the package {module.partition('.')[0]}: {error}"
        raise PluginError(reason, 'pip install "pad-cli[text]"') from error
