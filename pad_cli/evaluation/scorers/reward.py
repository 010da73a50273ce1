"""`reward`: what the reward model itself thinks of an answer.

It says how far a method reaches what the reward model wants, not how good that is: a method that maximises the reward
is judged by its own yardstick here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pad_cli.evaluation.contract import EvalContext, Sample, Score
from pad_cli.evaluation.sequence_rewards import AnswerToReward, answer_tokens, sequence_rewards


@dataclass(frozen=True)
class RewardScorer:
    """The summed token rewards of an answer, its end of sequence included, under the item's preference.

    Options:
        per_token: divide by the number of tokens.
        batch_size: answers scored together.
    """

    per_token: bool = False
    batch_size: int = 64
    description: ClassVar[str] = "the reward model's own reward of the answer under the asked preference"
    dimension: ClassVar[str] = "reward"
    higher_is_better: ClassVar[bool] = True
    facts: ClassVar[tuple[str, ...]] = ()

    @property
    def unit(self) -> str:
        return "nats per token" if self.per_token else "nats"

    def key(self, subject: EvalContext) -> Any:
        model = subject.reward_model
        relative_to = subject.policy.fingerprint if model.reference == "policy" else None
        return ["reward", model.fingerprint, relative_to, self.per_token]

    def score(self, samples: Sequence[Sample], subject: EvalContext) -> list[Score]:
        model = subject.reward_model
        answers = [
            AnswerToReward(item.prompt, model.preference(item.preference), answer_tokens(model, text))
            for item, text in samples
        ]
        rewards = sequence_rewards(model, subject.policy, answers).tolist()
        if self.per_token:
            rewards = [reward / len(each.answer) for reward, each in zip(rewards, answers, strict=True)]
        return [Score(reward) for reward in rewards]
