"""What a reward model has to beat: answers judged by their length, and by their words in any order.

Both baselines see the same pairs as the reward model, with answers cut as it reads them, and both are of its form:

    margin(p, chosen, rejected) = sum_k w_pk <direction_k, difference(chosen, rejected)>

length         the difference is the sign of the difference in tokens
bag_of_words   the difference is that of the answers' tf-idf vectors

direction_k is a logistic regression's. For free text, and for a principle that training lacks, it is that of all
training pairs: what wins whatever the preference is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pad_cli.training.pair_table import PairTable

WORDS = r"\w+|[^\w\s]"
"""Words and punctuation marks."""

Vector = NDArray[np.float64]
Matrix = Any  # (N, F), sparse

Margins = Callable[[PairTable], torch.Tensor]
"""N pairs to (N,) margins: above 0 where a baseline finds the chosen answer the better one."""


def fit_baselines(train: PairTable, texts: Sequence[str], lengths: Vector) -> dict[str, Margins]:
    """Both baselines, by name, from the training pairs.

    `texts` and `lengths`, (S,) in tokens, are those of the S answers that every table numbers.
    """

    def longer(pairs: PairTable) -> Matrix:
        return csr_matrix(np.sign(lengths[pairs.chosen.numpy()] - lengths[pairs.rejected.numpy()])[:, None])

    known = [texts[number] for number in np.unique(np.concatenate([train.chosen.numpy(), train.rejected.numpy()]))]
    vectors = csr_matrix((len(texts), 1))
    if any(text.split() for text in known):
        vectors = TfidfVectorizer(token_pattern=WORDS, sublinear_tf=True).fit(known).transform(texts).tocsr()

    def words(pairs: PairTable) -> Matrix:
        return vectors[pairs.chosen.numpy()] - vectors[pairs.rejected.numpy()]

    return {"length": _fit(train, longer), "bag_of_words": _fit(train, words)}


def _fit(train: PairTable, difference: Callable[[PairTable], Matrix]) -> Margins:
    table, place = difference(train), {}
    directions = [_direction(table, np.ones(len(train)))]  # of all pairs
    for name in sorted({name for preference in train.preferences for name in preference}):
        weights = np.array([preference.get(name, 0.0) for preference in train.preferences])
        if rows := list(weights.nonzero()[0]):
            place[name] = len(directions)
            directions.append(_direction(table[rows], weights[rows]))

    def margins(pairs: PairTable) -> torch.Tensor:
        weights = np.zeros((len(pairs), len(directions)))
        for row, preference, texts in zip(weights, pairs.preferences, pairs.texts, strict=True):
            for name, weight in preference.items():
                row[place.get(name, 0)] += weight if name in place else abs(weight)
            row[0] += sum(map(abs, texts.values()))
        return torch.from_numpy(((difference(pairs) @ np.stack(directions, axis=1)) * weights).sum(axis=1))

    return margins


def _direction(differences: Matrix, weights: Vector) -> Vector:
    """Antisymmetric logistic regression: (F,). Every pair stands in it both ways round, so it needs no intercept."""
    size = len(weights)
    order = np.tile(np.arange(size), 2)
    labels = np.concatenate([weights > 0, weights < 0])
    turned = differences[order].multiply(np.repeat([1.0, -1.0], size)[:, None]).tocsr()
    model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=1000)
    return np.asarray(model.fit(turned, labels, sample_weight=np.abs(weights)[order]).coef_[0])
