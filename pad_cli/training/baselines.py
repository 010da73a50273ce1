"""What a reward model has to beat: answers judged by their length, and by their words in any order.

Both baselines see the same pairs as the reward model, with answers cut as it reads them, and both are of its form:

    margin(p, chosen, rejected) = sum_k w_pk <direction_k, difference(chosen, rejected)>

length         the difference is the sign of the difference in tokens; direction_k is how much oftener the longer
               answer wins under principle k than the shorter
bag_of_words   the difference is that of the answers' tf-idf vectors; direction_k is a logistic regression's

For free text, and for a principle that training lacks, the direction is that of all training pairs: what wins whatever
the preference is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pad_cli.models.prompts import decode_answer, end_of_turn
from pad_cli.models.scoring import TokenSequence
from pad_cli.training.pair_table import PairTable

_LEVEL = 0.05  # a difference with a larger p is no difference
_WORDS = r"\w+|[^\w\s]"  # words and punctuation marks

Vector = NDArray[np.float64]
Matrix = Any  # (N, F), dense or sparse


@dataclass(frozen=True)
class CutAnswers:
    """S distinct answers as the reward model reads them: their texts, and their lengths (S,) in tokens."""

    texts: tuple[str, ...]
    tokens: NDArray[np.int64]


def read_answers(tokenizer: Any, sequences: Sequence[TokenSequence]) -> CutAnswers:
    """The answers of a `SequenceBook`, decoded from their cut tokens."""
    ends = (end_of_turn(tokenizer),)
    texts = tuple(decode_answer(tokenizer, answer, ends) for _, answer in sequences)
    return CutAnswers(texts, np.array([len(answer) for _, answer in sequences]))


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline: how pairs differ, (N, F), and the direction of each principle and of all pairs, (F,)."""

    difference: Callable[[PairTable], Matrix]
    directions: Mapping[str, Vector]
    pooled: Vector

    def margins(self, pairs: PairTable) -> torch.Tensor:
        """(N,) margins of chosen over rejected: above 0 where the baseline finds the chosen answer the better one."""
        place = {name: column for column, name in enumerate(self.directions, start=1)}
        weights = np.zeros((len(pairs), 1 + len(place)))
        for row, preference, texts in zip(weights, pairs.preferences, pairs.texts, strict=True):
            for name, weight in preference.items():
                column = place.get(name, 0)
                row[column] += weight if column else abs(weight)
            row[0] += sum(map(abs, texts.values()))
        columns = np.stack([self.pooled, *self.directions.values()], axis=1)
        return torch.from_numpy((np.asarray(self.difference(pairs) @ columns) * weights).sum(axis=1))


def fit_baselines(train: PairTable, answers: CutAnswers) -> dict[str, Baseline]:
    """Both baselines, by name, from the training pairs; `answers` are those that every table numbers."""

    def longer(pairs: PairTable) -> Matrix:
        return np.sign(answers.tokens[pairs.chosen.numpy()] - answers.tokens[pairs.rejected.numpy()])[:, None]

    seen = np.unique(np.concatenate([train.chosen.numpy(), train.rejected.numpy()]))
    known = [answers.texts[number] for number in seen]
    vectors = csr_matrix((len(answers.texts), 1))
    if any(text.split() for text in known):
        vectorizer = TfidfVectorizer(token_pattern=_WORDS, sublinear_tf=True).fit(known)
        vectors = vectorizer.transform(answers.texts).tocsr()

    def words(pairs: PairTable) -> Matrix:
        return vectors[pairs.chosen.numpy()] - vectors[pairs.rejected.numpy()]

    return {"length": _fit(train, longer, _mean), "bag_of_words": _fit(train, words, _logistic)}


def _fit(
    train: PairTable, difference: Callable[[PairTable], Matrix], direction: Callable[[Matrix, Vector], Vector]
) -> Baseline:
    table, directions = difference(train), {}
    for name in sorted({name for preference in train.preferences for name in preference}):
        weights = np.array([preference.get(name, 0.0) for preference in train.preferences])
        if rows := list(weights.nonzero()[0]):
            directions[name] = direction(table[rows], weights[rows])
    return Baseline(difference, directions, direction(table, np.ones(len(train))))


def _mean(differences: Matrix, weights: Vector) -> Vector:
    """How much oftener, from -1 to 1, the longer answer wins than the shorter: (1,)."""
    return np.asarray(weights @ differences / np.abs(weights).sum())


def _logistic(differences: Matrix, weights: Vector) -> Vector:
    """Antisymmetric logistic regression: (F,). Every pair stands in it both ways round, so it needs no intercept."""
    size = len(weights)
    order = np.tile(np.arange(size), 2)
    labels = np.concatenate([weights > 0, weights < 0])
    turned = differences[order].multiply(np.repeat([1.0, -1.0], size)[:, None]).tocsr()
    model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=1000)
    return np.asarray(model.fit(turned, labels, sample_weight=np.abs(weights)[order]).coef_[0])


@dataclass(frozen=True)
class Verdict:
    """Is a reward model better than a baseline on the same pairs?"""

    words: Literal["beats", "does not beat", "is worse than"]  # `does not beat` where they cannot be told apart
    baseline: str
    difference: float  # of the pair accuracies, the reward model's less the baseline's
    p: float  # of McNemar's exact test


def verdict(model: torch.Tensor, name: str, baseline: torch.Tensor) -> Verdict:
    """McNemar's exact test: among the pairs on which the two differ, does either win more than half?

    `model` and `baseline` are (N,) `metrics.outcomes` on the same pairs; a tie against a win is a difference too.
    """
    better, worse = int((model > baseline).sum()), int((model < baseline).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    difference = round((model.double().mean() - baseline.double().mean()).item(), 4)
    words: Literal["beats", "does not beat", "is worse than"] = "does not beat"
    if p < _LEVEL:
        words = "beats" if better > worse else "is worse than"
    return Verdict(words, name, difference, float(f"{p:.3g}"))
