"""Scorers by likelihood: `perplexity`, `log_perplexity` and `reward`.

    log_perplexity(answer) = -1/T sum_t log pi(a_t | prompt, a_<t),     perplexity = exp(log_perplexity)

over the T tokens of the answer without its end of sequence, which an answer that was cut off lacks. The model is the
policy that answered, without guidance, or another one; the preference is not in the prompt that it reads. A mean of
perplexities is dominated by its worst few answers: compare means of `log_perplexity`.

`reward` is the reward model's own summed reward of an answer. It measures how far a method reaches what the reward
model wants, not how good that is: a method that maximises the reward is judged by its own yardstick.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.evaluation.contract import Answer, EvalContext, Score, Scorer
from pad_cli.evaluation.scorers.classifier import file_state
from pad_cli.evaluation.sequence_rewards import AnswerToReward, answer_tokens, sequence_rewards
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import TokenSequence, all_log_probs
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model


@dataclass(frozen=True, kw_only=True)
class Perplexity(Scorer):
    reader: ModelSettings | None
    logarithmic: bool

    def key(self, context: EvalContext) -> Any:
        reader: Any = context.policy.fingerprint
        if self.reader is not None:
            reader = [self.reader.model_dump(), file_state(resolve_model(self.reader.model))]
        return ["perplexity", self.logarithmic, None, reader]  # None: no limit but the model's own

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        model = context.policy if self.reader is None else _loaded(self.reader.model_dump_json())
        whole = [_encoded(model, answer) for answer in answers]
        read = [_cut(prompt, tokens, model.context_length or sys.maxsize) for prompt, tokens in whole]
        log_probs = all_log_probs(model, read).tolist()
        values = [-total / len(tokens) for total, (_, tokens) in zip(log_probs, read, strict=True)]
        return [
            Score(value if self.logarithmic else math.exp(value), truncated=part != sequence)
            for value, part, sequence in zip(values, read, whole, strict=True)
        ]


def perplexity(model: str | ModelSettings | None = None) -> Scorer:
    """exp of the mean negative log-likelihood of an answer's tokens, under the policy or another `model`."""
    return _perplexity("perplexity", model, "")


def log_perplexity(model: str | ModelSettings | None = None) -> Scorer:
    """The mean negative log-likelihood of an answer's tokens, under the policy or another `model`."""
    return _perplexity("mean negative log-likelihood of a token", model, "nats per token")


def _perplexity(what: str, model: str | ModelSettings | None, unit: str) -> Scorer:
    named = {"model": model} if isinstance(model, str) else model
    reader = None if named is None else ModelSettings.model_validate(named)
    return Perplexity(
        description=f"{what} of the answer under {reader.model if reader else 'the policy'}",
        dimension="fluency",
        higher_is_better=False,
        unit=unit,
        reader=reader,
        logarithmic=bool(unit),
    )


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> LanguageModel:
    return load_language_model(ModelSettings.model_validate_json(settings))


def _encoded(model: LanguageModel, answer: Answer) -> TokenSequence:
    """Tokens of the prompt, and of the answer without its end of sequence."""
    if not answer.text.strip():
        raise ValueError("an empty answer has no likelihood")
    prompt = encode_prompt(model.tokenizer, answer.item.prompt)
    return tuple(prompt), tuple(encode_answer(model.tokenizer, answer.text)[:-1])


def _cut(prompt: tuple[int, ...], answer: tuple[int, ...], limit: int) -> TokenSequence:
    """At least one token of the prompt, at most `limit` of both."""
    answer = answer[: limit - 1]
    return prompt[-(limit - len(answer)) :], answer


@dataclass(frozen=True, kw_only=True)
class Reward(Scorer):
    per_token: bool

    def key(self, context: EvalContext) -> Any:
        return ["reward", *context.rewarded_by, self.per_token]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        model = context.reward_model
        to_reward = [
            AnswerToReward(item.prompt, model.preference(item.preference), answer_tokens(model, text))
            for item, text, *_ in answers
        ]
        rewards = sequence_rewards(model, context.policy, to_reward).tolist()
        if self.per_token:
            rewards = [total / len(answer.tokens) for total, answer in zip(rewards, to_reward, strict=True)]
        return [Score(total) for total in rewards]


def reward(per_token: bool = False) -> Scorer:
    """The summed token rewards of an answer, its end of sequence included; `per_token` divides by their number."""
    return Reward(
        description="the reward model's own reward of the answer under the asked preference",
        dimension="reward",
        unit="nats per token" if per_token else "nats",
        per_token=per_token,
    )
