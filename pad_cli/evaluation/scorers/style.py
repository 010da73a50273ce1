"""Scorer `style`: a classifier of answers, fitted to answers that were written for one principle each.

It sees words (tf-idf) and a few counts, and no model that steers or is steered. Its ceiling is how often it is right on
answers to prompts that it was not fitted to: no method can be expected to be taken for the asked principle more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from pad_cli.errors import DataError
from pad_cli.evaluation.contract import Answer, EvalContext, Score, Scorer
from pad_cli.pairs import is_text, prompt_of, read_rows
from pad_cli.preference import parse_preference
from pad_cli.system.runs import fingerprint
from pad_cli.training.baselines import WORDS

_FOLDS = 5
_FORM = 'Write {"prompt": "...", "answers": {"formal": "...", "plain": "...", ...}} a line, as `pad pairs make` does.'


@dataclass(frozen=True)
class LabelledAnswers:
    """N answers, the name under which each was written, and the prompt that each answers."""

    texts: tuple[str, ...]
    names: tuple[str, ...]
    prompts: tuple[str, ...]


def read_labelled(path: Path) -> LabelledAnswers:
    """The answers of a file as `pad pairs make` writes it.

    Raises:
        DataError: a row is wrong, or there are answers of one name only, or to fewer than five prompts.
    """
    found = []
    for row in read_rows(path):
        prompt, answers = prompt_of(row)[-1]["content"], row.values.get("answers")
        if not isinstance(answers, dict) or not all(map(is_text, answers.values())):
            raise DataError("no map of names to answers", path=path, line=row.number, field="answers", hint=_FORM)
        found += [(text, name, prompt) for name, text in answers.items()]
    texts, names, prompts = zip(*found, strict=True) if found else ((), (), ())
    if len(set(names)) < 2 or len(set(prompts)) < _FOLDS:
        raise DataError(
            f"a classifier needs answers of two names at least, to {_FOLDS} prompts at least", path=path, hint=_FORM
        )
    return LabelledAnswers(texts, names, prompts)


def fit_classifier(answers: LabelledAnswers) -> Pipeline:
    """A logistic regression on words and counts; every name weighs the same."""
    features = FeatureUnion(
        [
            ("words", TfidfVectorizer(token_pattern=WORDS, sublinear_tf=True)),
            ("counts", FunctionTransformer(_counts)),
        ]
    )
    classifier = make_pipeline(features, LogisticRegression(C=4.0, class_weight="balanced", max_iter=3000))
    return classifier.fit(answers.texts, answers.names)


def ceilings(answers: LabelledAnswers) -> dict[str, float]:
    """Name to the share of its answers that are recognised by a classifier fitted to answers to other prompts."""
    names = np.array(answers.names)
    right = np.zeros(len(names))
    folds = GroupKFold(_FOLDS, shuffle=True, random_state=0)
    for train, test in folds.split(names, names, answers.prompts):
        parts = LabelledAnswers(*(tuple(each[i] for i in train) for each in (answers.texts, names, answers.prompts)))
        right[test] = fit_classifier(parts).predict([answers.texts[i] for i in test]) == names[test]
    return {str(name): float(right[names == name].mean()) for name in np.unique(names)}


def _counts(texts: Sequence[str]) -> csr_matrix:
    """(N, 5): length, and the shares of marks that styles differ in."""
    rows = []
    for text in texts:
        words = text.split()
        marks = [text.count(mark) / (len(words) + 1) for mark in "!?,\n"]
        rows.append([np.log1p(len(words)) / 5, *marks])
    return csr_matrix(np.array(rows, dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Style(Scorer):
    classifier: Pipeline
    fitted_to: str  # fingerprint

    def key(self, context: EvalContext) -> Any:
        return ["style", self.fitted_to]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        likely = self.classifier.predict_log_proba([answer.text for answer in answers])
        names = self.classifier.classes_[np.argsort(-likely, axis=1)].tolist()
        return [Score(_share(row, self._asked(answer, context))) for row, answer in zip(names, answers, strict=True)]

    def _asked(self, answer: Answer, context: EvalContext) -> Mapping[str, float]:
        known = context.reward_model.principles
        return parse_preference(answer.item.preference, known, accepts_text=True).weights


def _share(likely: Sequence[str], asked: Mapping[str, float]) -> float:
    """1 if the n asked names are the n likeliest; if only less is asked for, the likeliest is another."""
    wanted = {name for name, weight in asked.items() if weight > 0}
    return float(set(likely[: len(wanted)]) == wanted if wanted else asked.get(likely[0], 0.0) >= 0)


def style(answers: str) -> Scorer:
    """The share of answers that a classifier takes for the asked principle; `answers` is a file of `pad pairs make`.

    Of several asked principles, the share for which these are the likeliest.
    """
    labelled = read_labelled(Path(answers))
    return Style(
        description=f"taken for the asked principle by a classifier fitted to {len(labelled.texts)} answers",
        dimension="style",
        classifier=fit_classifier(labelled),
        fitted_to=fingerprint([labelled.texts, labelled.names]),
    )
