"""The interfaces of methods and scorers, and how those of a recipe are made.

A registry entry under `pad.methods` is a callable that takes the recipe's options and returns a `Method`. One under
`pad.scorers` returns a `Scorer` likewise; or, for a score of one text on its own, it is an object with `name`,
`description`, `higher_is_better` and a call `(text, facts) -> float`. Neither has to be a subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import RewardModel
from pad_cli.recipe import DecodingSettings, MethodSettings, ScorerSettings
from pad_cli.recipe.settings import make_with
from pad_cli.records import BenchmarkItem, Generation
from pad_cli.registry import METHODS, SCORERS

HINT = "See docs/evaluation.md for what it takes."
"""For every wrong option of a method or scorer."""


@dataclass(frozen=True)
class Cost:
    """What a method needs beyond the policy and before it answers: trained models, and their trainable parameters.

    `seconds` are those of training, on the machine that trained; None if unknown.
    """

    seconds: float | None = 0.0
    models: int = 0
    parameters: int = 0


def reward_model_cost(location: str) -> Cost:
    """What a reward model cost, as its checkpoint records it; raises as `inspect_reward_model`."""
    inspection = inspect_reward_model(location)
    seconds = sum(inspection.seconds.values()) if inspection.seconds else None
    return Cost(seconds, 1, sum(inspection.parameters.values()))


@dataclass(frozen=True)
class EvalContext:
    """One policy under evaluation, with the reward model.

    `items` are all of this policy, for methods that prepare for exactly those; `reward_model_cost` is that of training
    the reward model, and a cost of every method that uses it.
    """

    name: str
    engine: PadEngine
    items: tuple[BenchmarkItem, ...] = ()
    reward_model_cost: Cost = Cost()

    @property
    def policy(self) -> LanguageModel:
        return self.engine.policy

    @property
    def reward_model(self) -> RewardModel:
        assert self.engine.reward_model is not None
        return self.engine.reward_model


class System(NamedTuple):
    """What answers: a method at a guidance weight (0 for methods without one) on a policy."""

    method: str
    policy: str
    guidance_weight: float


class Answer(NamedTuple):
    """One answer to an item, and which system gave it with which sampling seed."""

    item: BenchmarkItem
    text: str
    system: System = System("", "", 0.0)
    seed: int = 0


class Method(ABC):
    """A way to answer; `pad list` shows the first sentence of the subclass's docstring.

    Attributes:
        reads_preference: whether the answer depends on the preference; if not, a prompt is answered once.
        weighted: whether it depends on the guidance weight; if not, it runs once, at 0.
    """

    reads_preference: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    @abstractmethod
    def key(self, context: EvalContext) -> Any:
        """What its answers depend on beside policy, item, decoding and guidance weight; JSON-serialisable."""

    def prepare(self, context: EvalContext) -> Cost:
        """Train or load what it needs; what is trained is kept on disk. Called once for each policy."""
        return Cost()

    @abstractmethod
    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answer one batch of items."""


class Score(NamedTuple):
    """A scorer's number for one answer; `truncated` if the scorer could read only a part of it."""

    value: float
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Scorer(ABC):
    """A way to score answers.

    Attributes:
        description: one sentence.
        dimension: what it measures, for example `helpful` or `fluency`.
        higher_is_better: its direction.
        unit: of its number; empty for a share or a score without one.
        batch_size: answers scored together.
        facts: keys that it needs in an item's facts.
    """

    description: str
    dimension: str
    higher_is_better: bool = True
    unit: str = ""
    batch_size: int = 64
    facts: tuple[str, ...] = ()

    @abstractmethod
    def key(self, context: EvalContext) -> Any:
        """What its scores depend on beside the item and the text; JSON-serialisable."""

    @abstractmethod
    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        """Score at most `batch_size` answers of the context's policy."""


@dataclass(frozen=True, kw_only=True)
class TextScorer(Scorer):
    """A scorer of single texts: `measure(text, facts)` is the score."""

    name: str
    measure: Callable[[str, Mapping[str, Any]], float]
    batch_size: int = 512

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        return float(self.measure(text, facts))

    def key(self, context: EvalContext) -> Any:
        return [self.name, self.description]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        return [Score(self(answer.text, answer.item.facts)) for answer in answers]


def load_method(settings: MethodSettings) -> Method:
    """A method of a recipe; UsageError if none has that name, RecipeError if it does not take these options."""
    where = f"methods: options of '{settings.method}'"
    method: Method = make_with(METHODS.get(settings.method), settings.options, where, HINT)
    return method


def load_scorer(settings: ScorerSettings) -> Scorer:
    """A scorer of a recipe; raises as `load_method`."""
    entry = SCORERS.get(settings.scorer)
    if isinstance(entry, type) or not hasattr(entry, "higher_is_better"):
        entry = make_with(entry, settings.options, f"scorers: options of '{settings.scorer}'", HINT)
    elif settings.options:
        raise RecipeError(f"scorers: '{settings.scorer}' takes no options.", "Leave `options` out.")
    if hasattr(entry, "score"):
        scorer: Scorer = entry
        return scorer
    return TextScorer(  # of a registered `(text, facts) -> float`
        name=entry.name,
        description=str(entry.description),
        higher_is_better=bool(entry.higher_is_better),
        measure=entry,
        dimension=str(getattr(entry, "dimension", entry.name)),
        unit=str(getattr(entry, "unit", "")),
        facts=tuple(getattr(entry, "facts", ())),
    )
