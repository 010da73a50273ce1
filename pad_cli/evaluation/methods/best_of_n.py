"""`best-of-n`: several sampled answers, of which the reward model keeps the best.

The same reward model, used after decoding in place of during it: n times the policy's work, and n answers to choose
from. Source of the name: Stiennon et al. 2020 (arXiv 2009.01325).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import Cost, EvalContext
from pad_cli.evaluation.sequence_rewards import AnswerToReward, answer_tokens, sequence_rewards
from pad_cli.models.language_model import same_vocabulary
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation


@dataclass(frozen=True)
class BestOfN:
    """The plain policy's sampled answer with the highest summed reward under the item's preference.

    The time it takes is that of all n answers and their rewards.

    Options:
        n: answers to choose from.
        temperature: of sampling, where the recipe decodes greedily.
    """

    n: int = 8
    temperature: float = 1.0
    description: ClassVar[str] = "the best of n sampled answers, by the reward model's reward of the whole answer"
    reads_preference: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature <= 0:
            raise RecipeError(
                f"methods: best-of-n with n {self.n} and temperature {self.temperature:g}.",
                "n is at least 1, and the temperature above 0.",
            )

    def key(self, subject: EvalContext) -> Any:
        return ["best-of-n", self.n, self.temperature, *subject.steered_by]

    def prepare(self, subject: EvalContext) -> Cost:
        return subject.reward_model_cost

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        model = subject.reward_model
        sampled = settings.model_copy(update={"temperature": settings.temperature or self.temperature})
        repeated = [item for item in items for _ in range(self.n)]
        streams = [f"{item.id}/{number}" if number else item.id for item in items for number in range(self.n)]
        drawn = subject.engine.generate([item.prompt for item in repeated], None, sampled, streams=streams)
        preferences = [
            preference for item in items for preference in [subject.engine.preference(item.preference)] * self.n
        ]
        to_reward = [
            AnswerToReward(item.prompt, preference, _tokens(subject, given))
            for item, preference, given in zip(repeated, preferences, drawn, strict=True)
        ]
        rewards = sequence_rewards(model, subject.policy, to_reward).view(len(items), self.n)
        return [drawn[self.n * row + best] for row, best in enumerate(rewards.argmax(1).tolist())]


def _tokens(subject: EvalContext, given: Generation) -> tuple[int, ...]:
    """What the reward model reads of an answer: the very tokens that were drawn, where it shares the vocabulary."""
    model = subject.reward_model
    if same_vocabulary(subject.policy, model.backbone):
        return given.token_ids
    return answer_tokens(model, given.text, ended=given.finish_reason == "stop")
