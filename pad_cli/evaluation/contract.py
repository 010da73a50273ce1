"""The nouns of an evaluation: what methods and scorers are given, and what they must be.

A registry entry under `pad.methods` is a callable that takes the recipe's options and gives a `Method`. One under
`pad.scorers` gives a `Scorer` likewise; or, for a score of one text on its own, it is an object with `name`,
`description`, `higher_is_better` and a call `(text, facts) -> float`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import RewardModel
from pad_cli.recipe import DecodingSettings, ModelSettings
from pad_cli.records import BenchmarkItem, Generation


@dataclass(frozen=True)
class Cost:
    """What a method needs beyond the policy and before it answers.

    Attributes:
        seconds: of training, on the machine that trained; None where nobody wrote it down.
        models: trained models.
        parameters: numbers that were trained, over all of them.
    """

    seconds: float | None = 0.0
    models: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class EvalContext:
    """One policy under evaluation.

    Attributes:
        name: in the report.
        settings: how it is loaded.
        engine: the policy with the reward model.
        items: all that it will be asked, for methods that prepare for just that.
        reward_model_cost: of training the reward model; what methods that use it cost.
    """

    name: str
    settings: ModelSettings
    engine: PadEngine
    items: tuple[BenchmarkItem, ...] = ()
    reward_model_cost: Cost = Cost()

    @property
    def policy(self) -> LanguageModel:
        return self.engine.policy

    @property
    def reward_model(self) -> RewardModel:
        """What an evaluation steers with and rewards by."""
        assert self.engine.reward_model is not None
        return self.engine.reward_model

    @property
    def steered_by(self) -> list[Any]:
        """What decides a guided answer beside policy, item and decoding, for a method's key."""
        return [self.reward_model.fingerprint, *([self.engine.always] if self.engine.always else [])]


class Method(Protocol):
    """A way to answer.

    Attributes:
        description: one sentence.
        reads_preference: does the answer depend on the preference? If not, a prompt is answered once.
        weighted: does it depend on the guidance weight? If not, it runs at one weight only, 0.
    """

    @property
    def description(self) -> str: ...

    @property
    def reads_preference(self) -> bool: ...

    @property
    def weighted(self) -> bool: ...

    def key(self, subject: EvalContext) -> Any:
        """What decides its answers beside policy, item, decoding and guidance weight; in a form that JSON can hold."""

    def prepare(self, subject: EvalContext) -> Cost:
        """Train or load what it needs; what is trained is kept on disk. Called once for each policy."""

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answer some items, one batch."""


class Sample(NamedTuple):
    """One answer to be scored."""

    item: BenchmarkItem
    text: str


class Score(NamedTuple):
    """One scorer's number for one answer; `truncated` says that the scorer read a part of it only."""

    value: float
    truncated: bool = False


class Scorer(Protocol):
    """A way to score answers.

    Attributes:
        description: one sentence.
        dimension: what it measures, for example `helpful` or `fluency`.
        higher_is_better: its direction.
        unit: of its number; empty for a share or a score without one.
        batch_size: answers scored together.
        facts: what it needs to find in an item's facts.
    """

    @property
    def description(self) -> str: ...

    @property
    def dimension(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def unit(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def facts(self) -> tuple[str, ...]: ...

    def key(self, subject: EvalContext) -> Any:
        """What decides its scores beside the item and the text; in a form that JSON can hold."""

    def score(self, samples: Sequence[Sample], subject: EvalContext) -> list[Score]:
        """Scores of some answers of the subject's, at most `batch_size`."""
