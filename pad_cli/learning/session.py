"""A session of questions: what was asked and answered, kept on disk after every answer, and what to ask next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pad_cli.learning.choices import FEWEST, Choice, Choices
from pad_cli.learning.comparisons import Comparison, Pool
from pad_cli.learning.features import Features, choice_features
from pad_cli.learning.learn import Learned, learn_features
from pad_cli.learning.questions import Reply, as_choices, information, scale_of
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.records import as_messages
from pad_cli.runs import ResultLog, fingerprint

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
    replies: list[Reply] = field(init=False)

    def __post_init__(self) -> None:
        self._results = ResultLog(self.log, needs=("prompt", "answers", "choice"))
        self._scale = scale_of(self.pool.slopes)
        self._asked = {_key(Comparison(as_messages(row["prompt"]), *row["answers"])) for row in self._earlier}
        self.replies = self._read_again()

    @property
    def _earlier(self) -> list[dict[str, Any]]:
        return list(self._results.done.values())

    def next(self) -> Question | None:
        """The comparison whose answer tells most; None when nothing is left that tells enough."""
        promised = information(self.pool.slopes, self.pool.offsets, self.replies, self._scale)
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
        place = question.place
        self.replies.append(Reply(self.pool.slopes[place], float(self.pool.offsets[place]), first))

    @property
    def can_learn(self) -> bool:
        """Are there enough choices for a profile? Ties are none."""
        return len(self._decided) >= FEWEST

    def learned(self) -> Learned:
        """The weights from all choices so far, those of earlier sittings included; see `can_learn`."""
        made = []
        for row in self._earlier:
            if row["choice"] is not None:
                first, second = row["answers"][:: -1 if row["choice"] else 1]
                made.append(Choice(as_messages(row["prompt"]), first, second))
        choices = Choices(tuple(made), ties=len(self.replies) - len(self._decided))
        features = Features(*as_choices(self._decided, self._scale))
        return learn_features(self.model.principles, {"": (choices, features)}, self.model.pair_moments)[""]

    @property
    def _decided(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.first is not None]

    def _read_again(self) -> list[Reply]:
        """The replies of earlier sittings, whose comparisons need not be in this pool."""
        rows = self._earlier
        if not rows:
            return []
        pairs = [Choice(as_messages(row["prompt"]), *row["answers"]) for row in rows]
        features = choice_features(self.model, pairs)
        told: Sequence[bool | None] = [None if row["choice"] is None else row["choice"] == 0 for row in rows]
        return [
            Reply(*each) for each in zip(np.asarray(features.slopes), map(float, features.offsets), told, strict=True)
        ]


def _key(comparison: Comparison) -> str:
    """The same for two answers in either order."""
    return fingerprint(
        [[dict(message) for message in comparison.prompt], sorted([comparison.first, comparison.second])]
    )
