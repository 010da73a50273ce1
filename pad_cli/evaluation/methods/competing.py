"""What the trained competitors have in common: adapters for the named part of a preference, and answers by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pad_cli.evaluation.contract import Cost, EvalContext
from pad_cli.evaluation.methods.competitors import Competitors, Goal, answer_by_goal
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation


class Competing(ABC):
    """A method that answers with policies trained for principles; a subclass says with which, and how.

    Options: see `CompetitorSettings`.

    Raises:
        RecipeError: the options are wrong.
    """

    name: str
    description: str
    reads_preference = True
    weighted = False

    def __init__(self, **options: Any) -> None:
        self._competitors = Competitors(self.name, options)

    def key(self, subject: EvalContext) -> Any:
        return [self.name, self._competitors.key(subject)]

    def prepare(self, subject: EvalContext) -> Cost:
        goals = (self._goal(subject, item) for item in subject.items)
        return self._competitors.prepare(subject, [part for goal in goals for part in self._trained_for(goal)])

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        def answer(goal: Goal, group: list[BenchmarkItem]) -> list[Generation]:
            return self._answer(subject, goal, group, settings)

        return answer_by_goal(items, lambda item: self._goal(subject, item), answer)

    @abstractmethod
    def _goal(self, subject: EvalContext, item: BenchmarkItem) -> Goal:
        """What of an item's preference the method can go for."""

    @abstractmethod
    def _trained_for(self, goal: Goal) -> list[Goal]:
        """The goals of the adapters that it needs for that."""

    @abstractmethod
    def _answer(
        self, subject: EvalContext, goal: Goal, items: list[BenchmarkItem], settings: DecodingSettings
    ) -> list[Generation]:
        """Answers to items of one goal, one batch; an empty goal has no competitor."""


def each_alone(goal: Goal) -> list[Goal]:
    """Every principle of a goal as a goal of its own."""
    return [{name: 1.0} for name in goal]
