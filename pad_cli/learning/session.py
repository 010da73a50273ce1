"""A session of questions: what was asked and answered, kept on disk after every answer, and what to ask next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pad_cli.learning.choices import FEWEST, Choice
from pad_cli.learning.comparisons import Comparison, Pool
from pad_cli.learning.decorrelation import basis_of
from pad_cli.learning.differences import basis_of_pool, differences
from pad_cli.learning.features import choice_features
from pad_cli.learning.fit import Array
from pad_cli.learning.learn import Learned
from pad_cli.learning.posterior import Posterior
from pad_cli.learning.questions import information
from pad_cli.learning.replies import Reply, learn_replies, weights_of
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.records import as_messages
from pad_cli.system.runs import ResultLog, fingerprint

_SHARP = 0.15  # bits that the best question must promise, for another one to be worth a user's time
_LEAST = 6  # answers before that counts


class Question(NamedTuple):
    """What to ask now.

    Attributes:
        number: of the question, from 1, those of earlier sittings included.
        place: of the comparison in the pool.
        comparison: the two answers.
        information: expected of the answer, bits.
    """

    number: int
    place: int
    comparison: Comparison
    information: float


@dataclass
class Session:
    """Questions to one user.

    Attributes:
        model: the reward model whose weights are learned.
        pool: what may be asked.
        log: the JSONL file of choices, as `read_choices` reads it; what is in it already was answered before.
        replies: the answers so far.
    """

    model: PersonalizedRewardModel
    pool: Pool
    log: Path
    replies: list[Reply] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._results = ResultLog(self.log, needs=("prompt", "answers", "choice"))
        self._places = {_key(comparison): place for place, comparison in enumerate(self.pool.comparisons)}
        self._basis = basis_of(self.model.pair_moments) or basis_of_pool(self.pool.slopes)
        self._seen = differences(self.pool.slopes, self._basis)
        self._posterior = Posterior(len(self.model.principles))
        rows = list(self._results.done.values())
        self._asked = {_key(_comparison(row)) for row in rows}
        seen = differences(self._slopes_of(rows), self._basis)
        for place, row in enumerate(rows):
            self._take(Reply(seen.at(place), None if row["choice"] is None else row["choice"] == 0))

    def next(self) -> Question | None:
        """The comparison whose answer tells most; None when nothing is left that tells enough."""
        promised = information(self._posterior, self._seen)
        for place in np.argsort(-promised, kind="stable"):
            comparison = self.pool.comparisons[place]
            if _key(comparison) in self._asked:
                continue
            if len(self.replies) >= _LEAST and promised[place] < _SHARP:
                return None
            return Question(len(self.replies) + 1, int(place), comparison, float(promised[place]))
        return None

    def answer(self, question: Question, first: bool | None) -> None:
        """Keep an answer: the first, the second (False), or neither."""
        comparison = question.comparison
        row = {
            "prompt": [dict(message) for message in comparison.prompt],
            "answers": [comparison.first, comparison.second],
            "choice": None if first is None else 0 if first else 1,
        }
        self._results.append({_key(comparison): row})
        self._asked.add(_key(comparison))
        self._take(Reply(self._seen.at(question.place), first))

    @property
    def can_learn(self) -> bool:
        """Are there enough choices for a profile? Ties are none."""
        return sum(reply.first is not None for reply in self.replies) >= FEWEST

    @property
    def weights(self) -> dict[str, float]:
        """Those that `learned` gives, without the rest."""
        return dict(zip(self.model.principles, weights_of(self._posterior, self._basis).tolist(), strict=True))

    def learned(self) -> Learned:
        """The weights from all answers so far, those of earlier sittings included; see `can_learn`."""
        return learn_replies(self.model.principles, self.replies, self._posterior, self._basis)

    def _take(self, reply: Reply) -> None:
        self.replies.append(reply)
        self._posterior.add(*reply)

    def _slopes_of(self, rows: list[dict[str, Any]]) -> Array:
        """(M, K) of earlier sittings' comparisons: the pool's own, to the bit, and read again where it has them not."""
        slopes = np.zeros((len(rows), len(self.model.principles)))
        missing = []
        for number, row in enumerate(rows):
            comparison = _comparison(row)
            place = self._places.get(_key(comparison))
            if place is None:
                missing.append(number)
            else:
                same = self.pool.comparisons[place].first == comparison.first
                slopes[number] = self.pool.slopes[place] if same else -self.pool.slopes[place]
        if missing:
            pairs = [Choice(as_messages(rows[number]["prompt"]), *rows[number]["answers"]) for number in missing]
            slopes[missing] = choice_features(self.model, pairs).slopes
        return slopes


def _comparison(row: dict[str, Any]) -> Comparison:
    return Comparison(as_messages(row["prompt"]), *row["answers"])


def _key(comparison: Comparison) -> str:
    """The same for two answers in either order."""
    return fingerprint(
        [[dict(message) for message in comparison.prompt], sorted([comparison.first, comparison.second])]
    )
